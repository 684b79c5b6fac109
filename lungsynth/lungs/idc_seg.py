"""Lungs from published DICOM SEG (PS3.3 A.51) with lungs or lobes among their segments.

IDC publishes TotalSegmentator's for NLST (doi:10.5281/zenodo.8347011): about a hundred organs a file, as bits.
"""

import re
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pydicom
from pydicom.uid import DeflatedExplicitVRLittleEndian, ExplicitVRLittleEndian, ImplicitVRLittleEndian

from lungsynth.dataset.rejection import Reason, SeriesRejected
from lungsynth.dicom.frames import layout_of
from lungsynth.dicom.geometry import AxialAxes
from lungsynth.dicom.header import read_header
from lungsynth.dicom.pixels import read_stored
from lungsynth.dicom.read import Volume
from lungsynth.dicom.seg_frames import SliceFinder, functional_group
from lungsynth.lungs.mask import LungMask

LUNG_CODES = {
    "SCT": {
        *("39607008", "3341006", "44029006"),  # lung, right lung, left lung
        *("31094006", "45653009", "90572001", "72481006", "40020002"),  # lobe; upper, lower, middle
        *("42400003", "266005", "44714003", "41224006"),  # right upper, right lower, left upper, left lower
    },
    "SRT": {"T-28000", "T-28100", "T-28500", "T-28770", "T-28820", "T-28830", "T-28300", "T-28600"},
}
"""Segmented property types that are lung: SNOMED CT, and the older SNOMED RT identifiers for the same."""
LUNG_LABEL = re.compile(r"\b(lungs?|(upper|middle|lower) lobe)\b")
OTHER_LABEL = re.compile(r"nodul|tumou?r|mass|lesion|cancer|vessel|airway|trachea|bronch|effusion|opacit|consolidat")
"""Words in labels of lung segments, and words in labels of other structures in or at the lung."""


def lungs(volume: Volume, seg_folders: Sequence[Path]) -> LungMask:
    """The union of all lung segments in the files of `seg_folders`, on the volume's own pixels.

    Raises:
        SeriesRejected: `NO_LUNG_MASK`: no file, none that belongs to this series, or one that cannot be read or placed.
    """
    paths = [path for folder in seg_folders for path in sorted(folder.iterdir())]
    mask = np.zeros(volume.hu.shape, np.uint8)
    frames = 0
    for path in paths:
        try:
            with warnings.catch_warnings():
                warnings.filterwarnings("ignore", module="pydicom")
                frames += _add(mask, volume, path)
        except SeriesRejected as rejected:
            raise SeriesRejected(Reason.NO_LUNG_MASK, f"{path.name}: {rejected.detail}") from None
        except Exception as error:  # on corrupt bytes pydicom raises nearly anything, from EOFError to struct.error
            raise SeriesRejected(Reason.NO_LUNG_MASK, f"{path.name}: {type(error).__name__}") from error
    if not frames:
        raise SeriesRejected(Reason.NO_LUNG_MASK, f"{len(paths)} segmentations have no frame of this series' lungs")
    return LungMask(mask.view(bool), (1, 1))


def _add(mask: np.ndarray, volume: Volume, path: Path) -> int:
    """Add a file's lung frames to `mask`, and say how many there were."""
    with path.open("rb") as file:
        seg = pydicom.dcmread(file, stop_before_pixels=True)
        offset = file.tell()
    if volume.series_uid not in {str(series.SeriesInstanceUID) for series in seg.ReferencedSeriesSequence}:
        return 0  # it belongs to another reconstruction with the same series number
    numbers = {int(segment.SegmentNumber) for segment in seg.SegmentSequence if is_lung(segment)}
    if seg.SegmentationType == "BINARY":
        lungs = _of_bits(seg, numbers, _bits(seg, path, offset))
    elif seg.SegmentationType == "LABELMAP":
        lungs = _of_label_map(seg, numbers, path)
    else:
        raise SeriesRejected(Reason.NO_LUNG_MASK, f"segmentation type {seg.SegmentationType} is not read")
    shared = seg.SharedFunctionalGroupsSequence[0]
    finder = SliceFinder(volume, str(seg.FrameOfReferenceUID), Reason.NO_LUNG_MASK)
    count = 0
    for frame, pixels in lungs:
        axes = _axes(frame, shared, volume)
        index = finder.find(frame, shared)
        if index is not None:
            view = axes.apply(pixels)
            if view.shape != volume.hu.shape[1:]:
                raise SeriesRejected(Reason.NO_LUNG_MASK, f"has {view.shape} pixels, the slices {volume.hu.shape[1:]}")
            mask[index] |= view
            count += 1
    return count


def _bits(seg: pydicom.Dataset, path: Path, offset: int) -> np.ndarray:
    """The packed pixels, uint8. Uncompressed files (100 MB) are mapped, so that only the pages in use are read."""
    syntax = seg.file_meta.TransferSyntaxUID
    if syntax == DeflatedExplicitVRLittleEndian:
        return np.frombuffer(pydicom.dcmread(path).PixelData, np.uint8)
    if syntax not in (ExplicitVRLittleEndian, ImplicitVRLittleEndian):
        raise SeriesRejected(Reason.NO_LUNG_MASK, f"transfer syntax {syntax.name} is not read")
    header = 12 if syntax == ExplicitVRLittleEndian else 8
    bits = np.memmap(path, np.uint8, "r", offset + header)
    if 8 * len(bits) < seg.NumberOfFrames * seg.Rows * seg.Columns:
        raise SeriesRejected(Reason.NO_LUNG_MASK, "is cut short")
    return bits


def _of_bits(seg: pydicom.Dataset, numbers: set[int], bits: np.ndarray) -> Iterator[tuple[pydicom.Dataset, np.ndarray]]:
    """The frames of the segments of these numbers, and their pixels (uint8, 0 or 1)."""
    shared = seg.SharedFunctionalGroupsSequence[0]
    size = seg.Rows * seg.Columns
    for number, frame in enumerate(seg.PerFrameFunctionalGroupsSequence):
        if functional_group("SegmentIdentificationSequence", frame, shared).ReferencedSegmentNumber in numbers:
            first = number * size
            packed = bits[first // 8 : -(-(first + size) // 8)]
            pixels = np.unpackbits(packed, bitorder="little")[first % 8 : first % 8 + size]
            yield frame, pixels.reshape(seg.Rows, seg.Columns)


def _of_label_map(seg: pydicom.Dataset, numbers: set[int], path: Path) -> Iterator[tuple[pydicom.Dataset, np.ndarray]]:
    """The frames of a label map that have pixels of these segment numbers, and these pixels (uint8, 0 or 1)."""
    header = read_header(path)
    if header.pixels_at is None:
        raise SeriesRejected(Reason.NO_LUNG_MASK, "no pixel data")
    layout = layout_of(header.values, header.transfer_syntax, header.pixels_at, length=header.pixel_bytes)
    frames = seg.PerFrameFunctionalGroupsSequence
    scratch = bytearray(layout.rows * layout.columns * 4)
    for frame, values in zip(frames, read_stored(path, layout, range(layout.frames), scratch=scratch), strict=True):
        mask = np.isin(values, list(numbers))
        if mask.any():
            yield frame, mask.view(np.uint8)


def is_lung(segment: pydicom.Dataset) -> bool:
    """Whether an item of the Segment Sequence is a lung or a lobe, by its code or else by its label."""
    code = segment.SegmentedPropertyTypeCodeSequence[0]
    if str(code.get("CodeValue")) in LUNG_CODES.get(code.get("CodingSchemeDesignator"), ()):
        return True
    label = re.sub(r"[^a-z]+", " ", str(segment.get("SegmentLabel", "")).lower())
    return bool(LUNG_LABEL.search(label)) and not OTHER_LABEL.search(label)


def _axes(frame: pydicom.Dataset, shared: pydicom.Dataset, volume: Volume) -> AxialAxes:
    """The axes that turn a frame into the volume's view: it has the same grid, perhaps with other directions."""
    orientation = functional_group("PlaneOrientationSequence", frame, shared).ImageOrientationPatient
    axes = AxialAxes.of(tuple(map(float, orientation)))
    spacing = tuple(map(float, functional_group("PixelMeasuresSequence", frame, shared).PixelSpacing))
    if not np.allclose(spacing[::-1] if axes.transposed else spacing, volume.spacing_mm, rtol=1e-3):
        raise SeriesRejected(Reason.NO_LUNG_MASK, f"has pixels of {spacing} mm, the slices of {volume.spacing_mm}")
    return axes
