"""Grey values of pictures, and the range that becomes black to white where a file does not say."""

from typing import NamedTuple

import numpy as np

PERCENTILES = (0.5, 99.5)
"""Grey values that become 0 and 255 where more than 8 bit come without a window.

Such files mostly hold 12 or 14 bit without saying so. Scaled by the full 16 bit they would be almost black; scaled by
their least and greatest values, one lead marker or dead pixel would set the scale. nnU-Net (Isensee 2021,
doi:10.1038/s41592-020-01008-z) and most loaders of 16-bit radiographs clip the same tails.
"""
LUMA = (0.299, 0.587, 0.114)
"""Red, green and blue in grey (ITU-R BT.601), as Pillow has it."""
COLOURFUL = 32
"""Difference of the channels, of 255, above which an image counts as coloured rather than as grey stored in colour."""
GREY_FROM_COLOURS = "colours became grey"


class Picture(NamedTuple):
    """A decoded image: grey values 0 to 255 as float32, Y×X, upright, and what its file says of itself.

    `orientation` is the EXIF orientation by which it was turned upright, 1 where it was not.
    """

    grey: np.ndarray
    sop_uid: str | None
    pixel_mm: float
    orientation: int
    notes: list[str]


def by_percentiles(values: np.ndarray, counted: np.ndarray | None, notes: list[str], *, why: str = "") -> np.ndarray:
    """Values (Y×X) scaled to 0 to 255 by `PERCENTILES` of those `counted` (bool, Y×X; none: all)."""
    sample = values if counted is None else values[counted]
    if not sample.size:
        return np.zeros(values.shape, np.float32)
    low, high = (float(value) for value in np.percentile(sample, PERCENTILES))
    if low == high:
        low, high = float(sample.min()), float(sample.max())
    notes.append(f"{why}grey values {low:g} to {high:g} became 0 to 255")
    return scaled(values, low, high)


def scaled(values: np.ndarray, low: float, high: float) -> np.ndarray:
    """`low` to `high` as 0 to 255, clipped: float32."""
    return np.clip((values - low) * (255 / max(high - low, 1e-6)), 0, 255).astype(np.float32)
