"""The predictions record: what each trained classifier said about each held-out slice."""

from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd

from lungsynth.errors import LungsynthError
from lungsynth.hashing import table_sha256

COLUMNS = {
    "arm": "string",  # what the classifier was trained on, as in `real+classical+synthetic@1`
    "seed": "int64",
    "split": "string",  # val or test
    "row": "int64",  # of the slice in its SliceDataset
    "patient": "string",
    "label": "int64",  # index in lungsynth.CLASSES
    "score": "float64",  # probability of cancer, 0 to 1
}


class Scores(NamedTuple):
    """One arm's scores S×N (training seeds × slices), with the slices' labels N and patient codes N (0 to P-1)."""

    scores: np.ndarray
    labels: np.ndarray
    patients: np.ndarray


@dataclass(frozen=True)
class Predictions:
    """`table`: one row for each arm, seed and held-out slice (`COLUMNS`)."""

    table: pd.DataFrame

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

    @property
    def sha256(self) -> str:
        """Hash of the table."""
        return table_sha256(self.table)

    def of(self, arm: str, split: str) -> Scores:
        """The scores of one arm on one split; slices come in the same order for every arm."""
        part = self.table[(self.table["arm"] == arm) & (self.table["split"] == split)]
        slices = part[part["seed"] == part["seed"].min()]
        patients = np.unique(slices["patient"].to_numpy(str), return_inverse=True)[1]
        return Scores(part["score"].to_numpy().reshape(-1, len(slices)), slices["label"].to_numpy(), patients)

    def save(self, path: Path) -> None:
        """Write the table as Parquet."""
        self.table.to_parquet(path, index=False)

    @classmethod
    def load(cls, path: Path) -> "Predictions":
        """Read what `save` wrote."""
        return cls(pd.read_parquet(path))
