"""The slice dataset record: uint8 slices, memory-mapped, beside a table that says what each is."""

import json
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import pandas as pd

from lungsynth import CLASSES
from lungsynth.errors import LungsynthError
from lungsynth.hashing import array_sha256, combine, table_sha256

COLUMNS = {
    "patient": "string",  # pseudonymous key of the cohort
    "series_uid": "string",
    "sop_uid": "string",
    "position_mm": "float64",  # along the slice normal, patient coordinates
    "label": "string",  # one of lungsynth.CLASSES
    "split": "string",  # train, val or test
    "spacing_mm": "float64",  # in-plane size of an output pixel
    "thickness_mm": "float64",
    "lung_fraction": "float64",  # share of the crop's pixels that is lung, 0 to 1
    "manufacturer": "string",
}
REJECTED_COLUMNS = {"series_uid": "string", "reason": "string", "detail": "string"}


@dataclass(frozen=True)
class SliceMeta:
    """What all slices share: `window_hu` (low, high) maps linearly to 0 to 255; `size` is H = W in pixels."""

    size: int
    window_hu: tuple[float, float]
    cohort_sha256: str


@dataclass(frozen=True)
class SliceDataset:
    """A folder with `slices.npy` (uint8, N×H×W), `slices.parquet`, `rejected.parquet` and `dataset.json`."""

    folder: Path

    @cached_property
    def images(self) -> np.ndarray:
        """uint8 slices, N×H×W, memory-mapped read-only."""
        return np.load(self.folder / "slices.npy", mmap_mode="r")

    @cached_property
    def table(self) -> pd.DataFrame:
        """One row a slice, in the order of `images`; see `COLUMNS`."""
        return pd.read_parquet(self.folder / "slices.parquet")

    @cached_property
    def rejected(self) -> pd.DataFrame:
        """One row a series that gave no slices, with a reason from the closed list in `imaging.read`."""
        return pd.read_parquet(self.folder / "rejected.parquet")

    @cached_property
    def meta(self) -> SliceMeta:
        """Size, window and the cohort's hash."""
        fields = json.loads((self.folder / "dataset.json").read_text())
        return SliceMeta(fields["size"], tuple(fields["window_hu"]), fields["cohort_sha256"])

    @cached_property
    def labels(self) -> np.ndarray:
        """int64 class codes, N: the index in `lungsynth.CLASSES`."""
        codes = {name: code for code, name in enumerate(CLASSES)}
        return self.table["label"].map(codes).to_numpy(np.int64)

    def rows(self, split: str) -> np.ndarray:
        """Indices of the slices of one split, ascending."""
        return np.flatnonzero((self.table["split"] == split).to_numpy())

    @property
    def sha256(self) -> str:
        """Hash of pixels, table and metadata: the key of all that is made from this dataset."""
        return combine([array_sha256(self.images), table_sha256(self.table), repr(self.meta)])

    @classmethod
    def write(
        cls, folder: Path, images: np.ndarray, table: pd.DataFrame, rejected: pd.DataFrame, meta: SliceMeta
    ) -> "SliceDataset":
        """Write all four files into `folder`, which must be new or empty."""
        claim(folder)
        np.save(folder / "slices.npy", np.ascontiguousarray(images, dtype=np.uint8))
        table[list(COLUMNS)].astype(COLUMNS).to_parquet(folder / "slices.parquet", index=False)
        rejected[list(REJECTED_COLUMNS)].astype(REJECTED_COLUMNS).to_parquet(folder / "rejected.parquet", index=False)
        (folder / "dataset.json").write_text(json.dumps(vars(meta), indent=2))
        return cls(folder)


def claim(folder: Path) -> None:
    """Make the folder for a new dataset.

    Raises:
        LungsynthError: it holds files already.
    """
    folder.mkdir(parents=True, exist_ok=True)
    if any(folder.iterdir()):
        raise LungsynthError(f"{folder} is not empty: name a new folder for the slices, or remove this one")
