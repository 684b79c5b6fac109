"""Evaluation's view of a generator: a function from class codes and a seed to slices."""

from collections.abc import Callable

import numpy as np

from lungsynth.errors import LungsynthError
from lungsynth.generators.package import Pairs

Sampler = Callable[[np.ndarray, int], np.ndarray]
"""(int64 class codes N, seed) -> uint8 N×H×W. `GeneratorPackage.sample` is one; tests plant others."""
PairSampler = Callable[[np.ndarray, int], Pairs]
"""The same with masks. `GeneratorPackage.sample_pairs` is one."""

Realness = Callable[[np.ndarray, np.ndarray], np.ndarray | None]
"""(uint8 N×H×W, class codes N) -> scores N of a discriminator, higher is more real; None where there is none.
`GeneratorPackage.realness` is one."""


def draw(sampler: Sampler, labels: np.ndarray, seed: int, *, size: int) -> np.ndarray:
    """Synthetic slices of these class codes, uint8 N×size×size.

    Raises:
        LungsynthError: the sampler gives another shape or type than the real slices have.
    """
    return _fitting(sampler(labels, seed), len(labels), size)


def draw_pairs(sampler: PairSampler, labels: np.ndarray, seed: int, *, size: int) -> Pairs:
    """Synthetic slices of these class codes with their masks, both uint8 N×size×size.

    Raises:
        LungsynthError: the sampler gives slices or masks of another shape or type.
    """
    return Pairs(*(_fitting(part, len(labels), size) for part in sampler(labels, seed)))


def _fitting(images: np.ndarray, count: int, size: int) -> np.ndarray:
    if images.shape != (count, size, size) or images.dtype != np.uint8:
        raise LungsynthError(
            f"the generator returned {images.dtype} {images.shape} where the slice dataset asks for "
            f"uint8 {(count, size, size)}: give both the same size in pixels"
        )
    return images
