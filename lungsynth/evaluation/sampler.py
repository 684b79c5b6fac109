"""Evaluation's view of a generator: a function from class codes and a seed to slices."""

from collections.abc import Callable

import numpy as np

from lungsynth.errors import LungsynthError

Sampler = Callable[[np.ndarray, int], np.ndarray]
"""(int64 class codes N, seed) -> uint8 N×H×W. `GeneratorPackage.sample` is one; tests plant others."""

Realness = Callable[[np.ndarray, np.ndarray], np.ndarray | None]
"""(uint8 N×H×W, class codes N) -> scores N of a discriminator, higher is more real; None where there is none.
`GeneratorPackage.realness` is one."""


def draw(sampler: Sampler, labels: np.ndarray, seed: int, size: int) -> np.ndarray:
    """Synthetic slices of these class codes, uint8 N×size×size.

    Raises:
        LungsynthError: the sampler gives another shape or type than the real slices have.
    """
    images = sampler(labels, seed)
    if images.shape != (len(labels), size, size) or images.dtype != np.uint8:
        raise LungsynthError(
            f"the generator returned {images.dtype} {images.shape} where the slice dataset asks for "
            f"uint8 {(len(labels), size, size)}: give both the same size in pixels"
        )
    return images
