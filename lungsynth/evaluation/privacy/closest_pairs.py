"""The closest pairs record: the synthetic slices that are most like a training slice, each with that slice."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from safetensors.numpy import load_file, save_file

from lungsynth.hashing import array_sha256, combine


@dataclass(frozen=True)
class ClosestPairs:
    """K pairs, those with the greatest detail correlation first; see `copies.detail_correlation`."""

    synthetic: np.ndarray
    """uint8 K×H×W."""
    train: np.ndarray
    """uint8 K×H×W: of each synthetic slice, the training slice that is most like it."""

    @property
    def sha256(self) -> str:
        """Hash of the slices."""
        return combine([array_sha256(self.synthetic), array_sha256(self.train)])

    def save(self, path: Path) -> None:
        """Write a safetensors file."""
        save_file({"synthetic": self.synthetic, "train": self.train}, path)

    @classmethod
    def load(cls, path: Path) -> "ClosestPairs":
        """Read what `save` wrote."""
        return cls(**load_file(path))
