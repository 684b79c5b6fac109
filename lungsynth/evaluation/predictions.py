"""The predictions record: what each trained classifier said about each held-out slice."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from lungsynth.errors import LungsynthError
from lungsynth.hashing import combine, table_sha256

Role = Literal["baseline", "candidate", "champion", "control"]
"""Of an arm: without synthetic slices; with those to judge; with the champion's; to see what is behind an effect."""
COLUMNS = {
    "arm": "string",  # what the classifier was trained on, as in `real+classical+synthetic@1`
    "role": "string",  # of the arm: one of `Role`
    "seed": "int64",
    "split": "string",  # val or test
    "row": "int64",  # of the slice in its SliceDataset
    "patient": "string",
    "label": "int64",  # 1 for the positive class, else 0
    "score": "float64",  # probability of the positive class, 0 to 1
}


class Scores(NamedTuple):
    """One arm's scores S×N (training seeds × slices), with the slices' labels N and patient codes N (0 to P-1)."""

    scores: np.ndarray
    labels: np.ndarray
    patients: np.ndarray


@dataclass(frozen=True)
class Predictions:
    """`table`: one row for each arm, seed and held-out slice (`COLUMNS`); `classes`: (negative, positive)."""

    table: pd.DataFrame
    classes: tuple[str, ...]

    def __post_init__(self) -> None:
        table = self.table[list(COLUMNS)].astype(COLUMNS)
        object.__setattr__(self, "table", table.sort_values(["arm", "seed", "split", "row"], ignore_index=True))
        if not np.isfinite(table["score"]).all():
            arms = ", ".join(sorted(set(table.loc[~np.isfinite(table["score"]), "arm"])))
            raise LungsynthError(f"classifier scores of {arms} are not finite: training diverged; lower utility.lr")

    @property
    def arms(self) -> tuple[str, ...]:
        """Names of the arms, sorted."""
        return tuple(sorted(set(self.table["arm"])))

    def arms_of(self, role: Role) -> tuple[str, ...]:
        """Names of the arms of one role, sorted."""
        return tuple(sorted(set(self.table.loc[self.table["role"] == role, "arm"])))

    @property
    def sha256(self) -> str:
        """Hash of table and classes."""
        return combine([table_sha256(self.table), *self.classes])

    def of(self, arm: str, split: str) -> Scores:
        """The scores of one arm on one split; slices come in the same order for every arm."""
        part = self.table[(self.table["arm"] == arm) & (self.table["split"] == split)]
        slices = part[part["seed"] == part["seed"].min()]
        patients = np.unique(slices["patient"].to_numpy(str), return_inverse=True)[1]
        return Scores(part["score"].to_numpy().reshape(-1, len(slices)), slices["label"].to_numpy(), patients)

    def patients(self, split: str) -> np.ndarray:
        """The pseudonymous keys behind the patient codes that `of` gives for this split."""
        return np.unique(self.table.loc[self.table["split"] == split, "patient"].to_numpy(str))

    def save(self, path: Path) -> None:
        """Write the table as Parquet, with the classes in the file's metadata."""
        table = pa.Table.from_pandas(self.table, preserve_index=False)
        metadata = table.schema.metadata | {b"classes": json.dumps(self.classes).encode()}
        pq.write_table(table.replace_schema_metadata(metadata), path)

    @classmethod
    def load(cls, path: Path) -> "Predictions":
        """Read what `save` wrote."""
        table = pq.read_table(path)
        return cls(table.to_pandas(), tuple(json.loads(table.schema.metadata[b"classes"])))
