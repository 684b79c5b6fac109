"""Pixels of PNG, JPEG and TIFF files as they are stored, and the checks and notes that their readers have in common."""

from typing import NamedTuple

import numpy as np

from lungsynth.dataset.rejection import Reason, SeriesRejected

MAX_PIXELS = 64_000_000
"""Pixels of an image; the largest chest detectors have 18 million. A file of a few kB can claim billions."""
TRANSPARENT = "transparent pixels were laid on black"


class Raster(NamedTuple):
    """The pixels of a file, upright: `pixels` is Y×X, or Y×X×3 for colours.

    Pixels that are not `deep` are uint8; `deep` ones have more than 8 bit, or are floats. `opacity` (float32, 0 to 1,
    Y×X) is none if the picture is opaque or already laid on black. `orientation` is the file's EXIF orientation, which
    has been applied.
    """

    pixels: np.ndarray
    opacity: np.ndarray | None
    deep: bool
    orientation: int


def check_size(width: int, height: int) -> None:
    """Reject a size of no pixels or more than `MAX_PIXELS`, before anything is decoded."""
    if not 0 < width * height <= MAX_PIXELS:
        raise SeriesRejected(Reason.UNREADABLE, f"claims {width}×{height} pixels")


def say_pages(pages: int, notes: list[str]) -> None:
    """Note that a file has more pages than the one that is read."""
    if pages > 1:
        notes.append(f"the first of {pages} pages or frames")


def say_turned(orientation: object, notes: list[str]) -> int:
    """The EXIF orientation, 1 to 8, noted where it turns the picture; 1 where it makes no sense."""
    if not isinstance(orientation, int) or not 2 <= orientation <= 8:
        return 1
    notes.append("turned upright by its EXIF orientation")
    return int(orientation)


def turned(image: np.ndarray, orientation: int) -> np.ndarray:
    """An image (Y×X or Y×X×…) stored in this EXIF orientation, turned upright."""
    if orientation >= 5:
        image = np.swapaxes(image, 0, 1)
    down, across = (orientation in (3, 4, 7, 8)), (orientation in (2, 3, 6, 7))
    return image[:: -1 if down else 1, :: -1 if across else 1]


def flat(pixels: np.ndarray) -> np.ndarray:
    """Y×X×1 as Y×X; colours as they are."""
    return pixels[..., 0] if pixels.shape[2] == 1 else pixels


def opacity_of(alpha: np.ndarray | None, notes: list[str]) -> np.ndarray | None:
    """A deep alpha channel divided by its greatest value, since 4095 may mean opaque in files of 12 bits."""
    if alpha is None or alpha.min() == alpha.max() != 0:
        return None
    notes.append(TRANSPARENT)
    return (alpha / max(float(alpha.max()), 1e-6)).clip(0, 1).astype(np.float32)
