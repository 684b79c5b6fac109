"""Positions of a series' lesions, from DICOM SEG: the slices, and the places in them."""

import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import pydicom

from lungsynth.dataset.rejection import Reason, SeriesRejected
from lungsynth.dicom.header import read_dataset
from lungsynth.dicom.read import Volume
from lungsynth.dicom.seg_frames import SliceFinder, corner, functional_group, in_plane
from lungsynth.slicing.lesion_codes import is_lesion, named


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


@dataclass(frozen=True)
class LesionSeg:
    """The lesions of one segmentation, and a note about segments that are no lesions and were left out."""

    lesions: tuple[Lesion, ...]
    notes: tuple[str, ...]


def find_lesions(volume: Volume, path: Path) -> LesionSeg:
    """The lesions in the slices of `volume` that a DICOM SEG outlines (PS3.3 A.51: binary, fractional or label map).

    Raises:
        SeriesRejected: `NO_LESION_EVIDENCE`, where the file cannot be read or placed, or holds no lesion.
    """
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", module="pydicom")
            seg = read_dataset(path)
            wanted = [segment for segment in seg.SegmentSequence if is_lesion(segment)]
            others = [segment for segment in seg.SegmentSequence if not is_lesion(segment)]
            if not wanted:
                raise SeriesRejected(
                    Reason.NO_LESION_EVIDENCE, f"none of its segments is a lesion, by their codes: {named(others)}"
                )
            lesions = tuple(_lesions(volume, seg, {int(segment.SegmentNumber) for segment in wanted}))
    except SeriesRejected as rejected:
        raise SeriesRejected(rejected.reason, f"{path.name}: {rejected.detail}") from None
    except Exception as error:  # on corrupt bytes pydicom raises nearly anything, from EOFError to struct.error
        raise SeriesRejected(Reason.NO_LESION_EVIDENCE, f"{path.name}: {type(error).__name__}") from error
    note = f"lesion segmentation {path.name}: segments that are no lesions left out: {named(others)}"
    return LesionSeg(lesions, (note,) if others else ())


def _lesions(volume: Volume, seg: pydicom.Dataset, wanted: set[int]) -> Iterator[Lesion]:
    pixels = seg.pixel_array.reshape(seg.NumberOfFrames, seg.Rows, seg.Columns)
    shared = seg.SharedFunctionalGroupsSequence[0]
    finder = SliceFinder(volume, str(seg.FrameOfReferenceUID), Reason.NO_LESION_EVIDENCE)
    for frame, values in zip(seg.PerFrameFunctionalGroupsSequence, pixels, strict=True):
        masks = list(_masks(seg, frame, shared, values, wanted))
        index = finder.find(frame, shared) if masks else None
        if index is not None:
            for mask in masks:
                yield from _outlines(volume, index, mask, corner(frame, shared), *in_plane(frame, shared))


def _masks(
    seg: pydicom.Dataset, frame: pydicom.Dataset, shared: pydicom.Dataset, values: np.ndarray, wanted: set[int]
) -> Iterator[np.ndarray]:
    """The masks (bool, not empty) of the wanted segments in a frame; a frame of a label map may show several."""
    if seg.SegmentationType == "LABELMAP":
        for number in wanted & set(np.unique(values).tolist()):
            yield values == number
    elif functional_group("SegmentIdentificationSequence", frame, shared).ReferencedSegmentNumber in wanted:
        # Fractions run from 0 to a maximum; half of it corresponds to the edge of a binary mask.
        mask = values >= (seg.MaximumFractionalValue / 2 if seg.SegmentationType == "FRACTIONAL" else 1)
        if mask.any():
            yield mask


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

    These middles lie on the contour of marching squares, from which PyRadiomics takes `Maximum2DDiameter`.
    """
    middles = np.argwhere(part)[:, None] + [(-0.5, 0), (0.5, 0), (0, -0.5), (0, 0.5)]
    hull = cv2.convexHull(middles.reshape(-1, 2).astype(np.float32))[:, 0] @ np.stack([down, across])
    return float(np.linalg.norm(hull[:, None] - hull[None], axis=-1).max())
