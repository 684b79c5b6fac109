"""Predictions: the score of each trained classifier for each held-out slice, or the Dice of each segmenter."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from lungsynth.errors import LungsynthError
from lungsynth.evaluation.statistics import Measure
from lungsynth.hashing import combine, table_sha256

Role = Literal["baseline", "candidate", "champion", "control"]
"""Roles of arms: without synthetic slices, with the candidate's, with the champion's, controls."""
COLUMNS = {
    "arm": "string",  # what the model was trained on, as in `real+classical+synthetic@1`
    "role": "string",  # of the arm: one of `Role`
    "seed": "int64",
    "split": "string",  # val or test
    "row": "int64",  # of the slice in its SliceDataset
    "patient": "string",
    "label": "int64",  # class code: of two classes, 1 for the positive one
    "score": "float64",  # 0 to 1: probability of the positive class; where the measure is Dice, that of the slice
}


class Scores(NamedTuple):
    """One arm's scores S×N (training seeds × slices), with the slices' labels N and patient codes N (0 to P-1)."""

    scores: np.ndarray
    labels: np.ndarray
    patients: np.ndarray


@dataclass(frozen=True)
class Predictions:
    """`table`: one row for each arm, seed and held-out slice (`COLUMNS`); `classes`: (negative, positive).

    `measure` is what scores are; with Dice, any number of `classes` is allowed.
    `notes` are remarks for whoever reads the scorecard.
    """

    table: pd.DataFrame
    classes: tuple[str, ...]
    measure: Measure = "AUROC"
    notes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        table = self.table[list(COLUMNS)].astype(COLUMNS)
        object.__setattr__(self, "table", table.sort_values(["arm", "seed", "split", "row"], ignore_index=True))
        if not np.isfinite(table["score"]).all():
            arms = ", ".join(sorted(set(table.loc[~np.isfinite(table["score"]), "arm"])))
            raise LungsynthError(f"scores of {arms} are not finite: training diverged; lower utility.lr")

    @property
    def arms(self) -> tuple[str, ...]:
        """Names of the arms, sorted."""
        return tuple(sorted(set(self.table["arm"])))

    def arms_of(self, role: Role) -> tuple[str, ...]:
        """Names of the arms of one role, sorted."""
        return tuple(sorted(set(self.table.loc[self.table["role"] == role, "arm"])))

    @property
    def sha256(self) -> str:
        """Hash of all of it."""
        own = [] if self.measure == "AUROC" and not self.notes else [self.measure, *self.notes]
        return combine([table_sha256(self.table), *self.classes, *own])

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
        """Write the table as Parquet, with the rest in the file's metadata."""
        table = pa.Table.from_pandas(self.table, preserve_index=False)
        rest = {"classes": self.classes, "measure": self.measure, "notes": self.notes}
        own = {name.encode(): json.dumps(value).encode() for name, value in rest.items()}
        pq.write_table(table.replace_schema_metadata(table.schema.metadata | own), path)

    @classmethod
    def load(cls, path: Path) -> "Predictions":
        """Read what `save` wrote."""
        table = pq.read_table(path)
        own = {name: json.loads(table.schema.metadata[name.encode()]) for name in ("classes", "measure", "notes")}
        return cls(table.to_pandas(), tuple(own["classes"]), own["measure"], tuple(own["notes"]))
