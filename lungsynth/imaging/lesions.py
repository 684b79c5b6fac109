"""Where the lesions of a series lie, from DICOM SEG: which slices, and where in them."""

import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import pydicom

from lungsynth.imaging.read import Volume
from lungsynth.imaging.rejection import Reason, SeriesRejected
from lungsynth.imaging.seg_frames import SliceFinder, corner, functional_group, in_plane

NOT_LESIONS = {
    ("SCT", "85756007"),  # tissue
    ("SCT", "91723000"),  # anatomical structure
    ("SCT", "123037004"),  # body structure
    ("SRT", "T-D0050"),  # tissue
    ("SRT", "T-D000A"),  # anatomical structure
}
"""Segmented property categories (DICOM CID 7150) of what is no lesion, such as lungs beside it in the same file."""


@dataclass(frozen=True)
class Lesion:
    """One connected outline in slice `index`: its bounding box in pixels of the volume, where 0 is the outer edge of
    the first pixel, its area, and its longest diameter, as a radiologist measures in an axial slice."""

    index: int
    top: float
    left: float
    bottom: float
    right: float
    area_px: float
    diameter_mm: float

    @property
    def centre(self) -> tuple[float, float]:
        """Row and column of the middle of its box."""
        return (self.top + self.bottom) / 2, (self.left + self.right) / 2


def find_lesions(volume: Volume, path: Path) -> list[Lesion]:
    """What a DICOM SEG (PS3.3 A.51) outlines as lesion in the slices of `volume`.

    Raises:
        SeriesRejected: `NO_LESION_EVIDENCE`, where the file cannot be read or placed.
    """
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", module="pydicom")
            return list(_lesions(volume, pydicom.dcmread(path)))
    except SeriesRejected as rejected:
        raise SeriesRejected(rejected.reason, f"{path.name}: {rejected.detail}") from None
    except Exception as error:  # on corrupt bytes pydicom raises nearly anything, from EOFError to struct.error
        raise SeriesRejected(Reason.NO_LESION_EVIDENCE, f"{path.name}: {type(error).__name__}") from error


def _lesions(volume: Volume, seg: pydicom.Dataset) -> Iterator[Lesion]:
    # Fractions run from 0 to a maximum; half of it is where a binary mask would change.
    threshold = seg.MaximumFractionalValue / 2 if seg.SegmentationType == "FRACTIONAL" else 1
    pixels = seg.pixel_array.reshape(seg.NumberOfFrames, seg.Rows, seg.Columns)
    lesions = {segment.SegmentNumber for segment in seg.SegmentSequence if _category(segment) not in NOT_LESIONS}
    shared = seg.SharedFunctionalGroupsSequence[0]
    finder = SliceFinder(volume, str(seg.FrameOfReferenceUID), Reason.NO_LESION_EVIDENCE)
    for frame, values in zip(seg.PerFrameFunctionalGroupsSequence, pixels, strict=True):
        segment = functional_group("SegmentIdentificationSequence", frame, shared).ReferencedSegmentNumber
        if segment not in lesions or values.max() < threshold:
            continue
        index = finder.find(frame, shared)
        if index is not None:
            yield from _outlines(volume, index, values >= threshold, corner(frame, shared), *in_plane(frame, shared))


def _category(segment: pydicom.Dataset) -> tuple[str, str]:
    code = segment.SegmentedPropertyCategoryCodeSequence[0]
    return code.CodingSchemeDesignator, code.CodeValue


def _outlines(
    volume: Volume, index: int, mask: np.ndarray, first: np.ndarray, down: np.ndarray, across: np.ndarray
) -> Iterator[Lesion]:
    """The connected parts of a frame's mask (bool, not empty), from the frame's pixels to those of the volume."""
    # Affine map of (row, column) as the frame counts pixel centres to where the volume counts pixel edges.
    axes = np.stack([volume.down, volume.across]) / np.array(volume.spacing_mm)[:, None]
    steps = axes @ np.stack([down, across], axis=1)
    offset = axes @ (first - volume.corners_mm[index]) + 0.5
    count, parts, stats, _ = cv2.connectedComponentsWithStats(mask.view(np.uint8), connectivity=8)
    for part, (left, top, width, height, area) in enumerate(stats[1:count].astype(float), start=1):
        edges = np.array([[top, left], [top + height, left + width]]) - 0.5
        (y0, x0), (y1, x1) = np.sort(edges @ steps.T + offset, axis=0).tolist()
        diameter_mm = _longest(parts == part, down, across)
        yield Lesion(index, y0, x0, y1, x1, float(area * abs(np.linalg.det(steps))), diameter_mm)


def _longest(part: np.ndarray, down: np.ndarray, across: np.ndarray) -> float:
    """Longest distance in mm across a part of a frame (bool, not empty), between middles of outer edges of its pixels.

    There runs the contour that marching squares would draw, of which PyRadiomics takes `Maximum2DDiameter`.
    """
    middles = np.argwhere(part)[:, None] + [(-0.5, 0), (0.5, 0), (0, -0.5), (0, 0.5)]
    hull = cv2.convexHull(middles.reshape(-1, 2).astype(np.float32))[:, 0] @ np.stack([down, across])
    return float(np.linalg.norm(hull[:, None] - hull[None], axis=-1).max())
