"""Which square of a scan's slice is shown: the whole slice, the lungs, or a patch; in whole pixels of the scan."""

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np

from lungsynth.dicom.read import Volume
from lungsynth.lungs.mask import LungMask
from lungsynth.slicing.lesions import Lesion


@dataclass(frozen=True)
class Crop:
    """A square of a slice in mm, rounded to whole pixels; it may reach beyond the image."""

    top: int
    left: int
    height: int
    width: int

    @classmethod
    def around(cls, centre: tuple[float, float], side_mm: float, spacing_mm: tuple[float, float]) -> "Crop":
        """The square of `side_mm` about `centre` (row, column; 0 is the outer edge of the first pixel)."""
        height, width = (max(1, round(side_mm / spacing)) for spacing in spacing_mm)
        return cls(round(centre[0] - height / 2), round(centre[1] - width / 2), height, width)

    def pixel_mm(self, spacing_mm: tuple[float, float], size: int) -> float:
        """Side of a pixel in mm after the crop is resampled to size×size: the square root of its area."""
        return float(np.sqrt(self.height * spacing_mm[0] * self.width * spacing_mm[1])) / size

    def lung_fractions(self, cells: np.ndarray, cell_px: tuple[int, int]) -> np.ndarray:
        """Fraction of the crop that is lung in each slice of a mask (bool Z×h×w) with such cells: float64 Z."""
        rows, down = _overlap(self.top, self.height, cell_px[0], count=cells.shape[1])
        columns, across = _overlap(self.left, self.width, cell_px[1], count=cells.shape[2])
        areas = cells[:, rows, columns].astype(np.float32) @ across @ down
        result: np.ndarray = areas.astype(np.float64) / (self.height * self.width)
        return result


def whole_slice(volume: Volume) -> Crop:
    """The whole slice, padded with air to a square."""
    rows, columns = volume.hu.shape[1:]
    row_mm, column_mm = volume.spacing_mm
    return Crop.around((rows / 2, columns / 2), max(rows * row_mm, columns * column_mm), volume.spacing_mm)


def lung_box(volume: Volume, lungs: LungMask, margin_mm: float) -> Crop:
    """The smallest square with the lungs of all slices and a margin: one crop for all slices of the series."""
    box = []
    for axes, cell in zip(((0, 2), (0, 1)), lungs.cell_px, strict=True):
        cells = np.flatnonzero(lungs.cells.any(axis=axes))
        box.append((int(cells[0]) * cell, (int(cells[-1]) + 1) * cell))
    extents = [(last - first) * spacing for (first, last), spacing in zip(box, volume.spacing_mm, strict=True)]
    (top, bottom), (left, right) = box
    return Crop.around(((top + bottom) / 2, (left + right) / 2), max(extents) + 2 * margin_mm, volume.spacing_mm)


def lesion_patch(lesions: Sequence[Lesion], patch_mm: float, spacing_mm: tuple[float, float]) -> Crop:
    """The patch about the largest of a slice's lesions."""
    return Crop.around(max(lesions, key=lambda lesion: lesion.area_px).centre, patch_mm, spacing_mm)


def lung_patch(
    volume: Volume,
    lungs: LungMask,
    index: int,
    *,
    lesions: Sequence[Lesion],
    patch_mm: float,
    margin_mm: float,
    min_lung_fraction: float,
    rng: np.random.Generator,
) -> Crop | None:
    """A patch at a random place in the lung of slice `index`; none if no place meets the conditions.

    The centre of the patch is lung, at least `min_lung_fraction` of the patch is lung, and it lies `margin_mm` or more
    from all lesions in this slice and in slices nearer than `margin_mm`.
    """
    row_mm, column_mm = volume.spacing_mm
    rows, columns = lungs.cell_px
    cells = lungs.cells[index]
    window = (max(1, round(patch_mm / (columns * column_mm))), max(1, round(patch_mm / (rows * row_mm))))
    fractions = cv2.blur(cells.astype(np.float32), window, borderType=cv2.BORDER_CONSTANT)
    fit = cells & (fractions >= min_lung_fraction)
    y = (np.arange(cells.shape[0]) + 0.5)[:, None] * rows
    x = (np.arange(cells.shape[1]) + 0.5)[None] * columns
    for lesion in lesions:
        if abs(volume.positions_mm[lesion.index] - volume.positions_mm[index]) < margin_mm:
            reach = patch_mm / 2 + margin_mm + max(row_mm, column_mm)  # crops are rounded to whole pixels
            beside = np.maximum(lesion.left - x, x - lesion.right) * column_mm
            above = np.maximum(lesion.top - y, y - lesion.bottom) * row_mm
            fit &= np.maximum(beside, above) >= reach
    places = np.argwhere(fit)
    if not len(places):
        return None
    row, column = rng.choice(places) + 0.5
    return Crop.around((row * rows, column * columns), patch_mm, volume.spacing_mm)


def _overlap(start: int, length: int, cell: int, *, count: int) -> tuple[slice, np.ndarray]:
    """Which of `count` cells of `cell` pixels overlap the span of `length` pixels, and how many: float32."""
    shared = np.diff(np.clip(np.arange(count + 1) * cell, start, start + length)).astype(np.float32)
    touched = np.flatnonzero(shared)
    span = slice(touched[0], touched[-1] + 1) if len(touched) else slice(0)
    return span, shared[span]
