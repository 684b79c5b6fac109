"""Slices for training: uint8 in memory or on the device, drawn by step."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor


@dataclass(frozen=True)
class Slices:
    """Some of a dataset's slices: `images` uint8 N×H×W (N×C×H×W in colour), class codes int64 N, and which rows count.

    `images` may be a memory map: only the rows that a step draws are read.
    """

    images: Any
    labels: np.ndarray
    rows: np.ndarray

    @classmethod
    def all(cls, images: np.ndarray, labels: np.ndarray) -> "Slices":
        """Every row counts."""
        return cls(images, labels, np.arange(len(labels)))

    def __len__(self) -> int:
        return len(self.rows)

    def take(self, places: np.ndarray) -> np.ndarray:
        """Images uint8 n×C×H×W at these places among `rows`."""
        images = np.asarray(self.images[self.rows[places]])
        return images if images.ndim == 4 else images[:, None]

    @property
    def codes(self) -> np.ndarray:
        """Class codes int64 of `rows`."""
        return self.labels[self.rows]


class Source:
    """Real slices and their class codes, batch by batch; which ones, follows from the seed and the step alone."""

    def __init__(self, slices: Slices, *, balanced: bool, seed: int, device: torch.device) -> None:
        self._seed, self._device = seed, device
        codes = slices.codes
        order = np.argsort(codes, kind="stable")
        self._counts = np.unique(codes, return_counts=True)[1] if balanced else np.array([len(codes)])
        self._starts = self._counts.cumsum() - self._counts
        self._images = torch.from_numpy(slices.take(order)).to(device)
        self._labels = torch.from_numpy(codes[order]).to(device)

    def draw(self, step: int, batch: int, rank: int = 0, world: int = 1) -> tuple[Tensor, Tensor]:
        """Images B×C×H×W in [-1, 1] and class codes int64 B: process `rank`'s share of a batch of `batch` slices.

        Drawn with replacement; where balanced, each class is equally likely.
        """
        rng = np.random.default_rng([self._seed, step])
        stratum = rng.integers(len(self._counts), size=batch)
        places = self._starts[stratum] + (rng.random(batch) * self._counts[stratum]).astype(np.int64)
        mine = torch.from_numpy(np.array_split(places, world)[rank]).to(self._device)
        return self._images[mine].float() / 127.5 - 1, self._labels[mine]
