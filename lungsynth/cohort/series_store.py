"""The series store record: where each series' instances lie on disk, whole and checked."""

from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from lungsynth.hashing import table_sha256

COLUMNS = {
    "series_uid": "string",
    "folder": "string",  # name of the series' folder under the root; it holds the instances and nothing else
    "state": "string",  # present or rejected
    "reason": "string",  # of a rejection: one of REASONS; else empty
    "detail": "string",  # what was expected and what was found
}
REASONS = ("not_found", "incomplete", "size_differs", "unreachable")


@dataclass(frozen=True)
class SeriesStore:
    """`table` holds one row for each series of the cohort; `root` is the folder that holds the series' folders."""

    root: Path
    table: pd.DataFrame

    @property
    def sha256(self) -> str:
        """Hash of the table: it is the same whether the series were fetched just now or lay there already."""
        return table_sha256(self.table)
