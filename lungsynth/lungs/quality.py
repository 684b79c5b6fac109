"""Checks whether a mask is plausible as lungs: volume, two sides of similar size, air that the body encloses."""

from dataclasses import dataclass
from typing import Self

import numpy as np

from lungsynth.dicom.read import Volume
from lungsynth.lungs.config import QualityConfig
from lungsynth.lungs.grid import Enclosed, cell_pixels
from lungsynth.lungs.mask import LungMask

SLICES = 12
"""Least number of slices that are measured, of a series with more; faults extend over more than a few slices."""


@dataclass(frozen=True)
class Quality:
    """Measures of one mask, named like the limits in `QualityConfig`."""

    litres: float
    side_ratio: float
    bridge: float
    mean_hu: float
    leak: float

    @classmethod
    def of(cls, mask: LungMask, volume: Volume, threshold_hu: float) -> Self:
        """Measure a mask that is not empty. All but the volume is measured on some slices, at a pixel per 3 mm."""
        row, column = mask.cell_px
        voxel_mm3 = volume.spacing_mm[0] * volume.spacing_mm[1] * volume.slice_spacing_mm
        down, across = (
            max(1, round(want / have)) for want, have in zip(cell_pixels(volume.spacing_mm), mask.cell_px, strict=True)
        )
        thin = slice(None, None, max(1, len(mask.cells) // SLICES))
        hu = volume.hu[thin, row // 2 :: row * down, column // 2 :: column * across]
        cells = mask.cells[thin, ::down, ::across][:, : hu.shape[1], : hu.shape[2]]
        hu = hu[:, : cells.shape[1], : cells.shape[2]]
        if not cells.any():
            return cls(0.0, 0.0, 1.0, 0.0, 0.0)
        side_ratio, bridge = _sides(np.count_nonzero(cells, axis=(0, 1)))
        return cls(
            litres=int(np.count_nonzero(mask.cells)) * row * column * voxel_mm3 * 1e-6,
            side_ratio=side_ratio,
            bridge=bridge,
            mean_hu=float(hu[cells].mean()),
            leak=_leak(cells, hu < threshold_hu),
        )

    def faults(self, limits: QualityConfig) -> str:
        """A text with every violated limit; empty for a plausible mask."""
        faults = []
        if not limits.min_litres <= self.litres <= limits.max_litres:
            faults.append(f"{self.litres:.2f} litres, not {limits.min_litres:g} to {limits.max_litres:g}")
        if self.side_ratio < limits.min_side_ratio:
            faults.append(f"one side has {self.side_ratio:.2f} of the other's volume, not {limits.min_side_ratio:g}")
        # A single lung, which min_side_ratio 0 admits, has no thin place in its middle.
        if self.bridge > limits.max_bridge and limits.min_side_ratio > 0:
            faults.append(
                f"no two lungs: {self.bridge:.2f} of a lung's section between them, not {limits.max_bridge:g}"
            )
        if not limits.min_mean_hu <= self.mean_hu <= limits.max_mean_hu:
            faults.append(f"mean {self.mean_hu:.0f} HU, not {limits.min_mean_hu:g} to {limits.max_mean_hu:g}")
        if self.leak > limits.max_leak:
            faults.append(f"{self.leak:.1%} open to the image's border, not {limits.max_leak:.1%}")
        return "; ".join(faults)


def _sides(profile: np.ndarray) -> tuple[float, float]:
    """Volume ratio of the two sides, and the section between them relative to the smaller side's largest section.

    `profile` counts the mask's cells in each sagittal column. The sides are parted at the smallest section in the
    middle two fifths of the mask's breadth, where the mediastinum is.
    """
    columns = np.flatnonzero(profile)
    profile = profile[columns[0] : columns[-1] + 1]
    first, last = int(0.3 * len(profile)), int(0.7 * len(profile)) + 1
    middle = first + int(profile[first:last].argmin())
    right, left = profile[:middle], profile[middle + 1 :]
    if not right.size or not left.size:
        return 0.0, 1.0
    sums = sorted((float(right.sum()), float(left.sum())))
    return sums[0] / sums[1], float(profile[middle]) / min(right.max(), left.max())


def _leak(cells: np.ndarray, air: np.ndarray) -> float:
    """Fraction of the mask in air that reaches the border of its slice, or on that border itself."""
    enclosed = Enclosed.of(air)
    outside = air & ~enclosed.mask(enclosed.size > 0)
    outside[:, [0, -1]] = outside[:, :, [0, -1]] = True
    return int(np.count_nonzero(cells & outside)) / int(np.count_nonzero(cells))
