"""Slice labels: from a table by SOP Instance UID, else from lesion segmentations (DICOM SEG) or the patient's label."""

import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pydicom

from lungsynth import CLASSES
from lungsynth.imaging.read import Reason, SeriesRejected, Volume

NON_CANCER, CANCER = CLASSES
NOT_LESIONS = {
    ("SCT", "85756007"),  # tissue
    ("SCT", "91723000"),  # anatomical structure
    ("SCT", "123037004"),  # body structure
    ("SRT", "T-D0050"),  # tissue
    ("SRT", "T-D000A"),  # anatomical structure
}
"""Segmented property categories (DICOM CID 7150) of what is no lesion, such as lungs beside it in the same file."""


def slice_labels(
    volume: Volume, patient_label: str, by_sop_uid: Mapping[str, str], lesion_folders: Sequence[Path]
) -> list[str | None]:
    """Label every slice of a series with the best evidence there is.

    Args:
        volume: Z slices.
        patient_label: the patient's class.
        by_sop_uid: labels of single slices; where there are any, they alone decide.
        lesion_folders: one folder for each lesion segmentation of this series.

    Returns:
        Z labels, each one of `lungsynth.CLASSES`, or none for a slice about which the evidence says nothing: a lesion's
        outline makes its own slices `cancer`, but the patient's other slices not `non-cancer`.

    Raises:
        SeriesRejected: `NO_LESION_EVIDENCE`, where a cancer patient has no usable annotation.
    """
    if by_sop_uid:
        return [label if (label := by_sop_uid.get(uid)) in CLASSES else None for uid in volume.sop_uids]
    if patient_label == NON_CANCER:
        return [NON_CANCER] * len(volume.sop_uids)
    covered = np.zeros(len(volume.sop_uids), dtype=bool)
    for folder in lesion_folders:
        for path in sorted(folder.iterdir()):
            covered |= lesion_slices(volume, path)
    if not covered.any():
        raise SeriesRejected(Reason.NO_LESION_EVIDENCE, f"{len(lesion_folders)} lesion segmentations mark no slice")
    return [CANCER if hit else None for hit in covered]


def lesion_slices(volume: Volume, path: Path) -> np.ndarray:
    """Which slices of `volume` a DICOM SEG marks as lesion, bool Z.

    A frame belongs to the one slice of the series that it names as its source. Where it names none or several (some
    files list the whole series for every frame), it belongs to the slice nearest to its plane, up to half a slice
    spacing away.

    Raises:
        SeriesRejected: `NO_LESION_EVIDENCE`, where the file cannot be read or placed.
    """
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", module="pydicom")
            return _lesion_slices(volume, pydicom.dcmread(path))
    except SeriesRejected:
        raise
    except Exception as error:  # on corrupt bytes pydicom raises nearly anything, from EOFError to struct.error
        raise SeriesRejected(Reason.NO_LESION_EVIDENCE, f"{path.name}: {type(error).__name__}") from error


def _lesion_slices(volume: Volume, seg: pydicom.Dataset) -> np.ndarray:
    # Fractions run from 0 to a maximum; half of it is where a binary mask would change.
    threshold = seg.MaximumFractionalValue / 2 if seg.SegmentationType == "FRACTIONAL" else 1
    masks = seg.pixel_array.reshape(seg.NumberOfFrames, -1)
    marked = masks.max(axis=1) >= threshold
    lesions = {segment.SegmentNumber for segment in seg.SegmentSequence if _category(segment) not in NOT_LESIONS}
    shared = seg.SharedFunctionalGroupsSequence[0]
    covered = np.zeros(len(volume.sop_uids), dtype=bool)
    for frame, any_pixel in zip(seg.PerFrameFunctionalGroupsSequence, marked, strict=True):
        if (
            any_pixel
            and _functional_group("SegmentIdentificationSequence", frame, shared).ReferencedSegmentNumber in lesions
        ):
            covered |= _frame_slices(volume, seg, frame, shared)
    return covered


def _category(segment: pydicom.Dataset) -> tuple[str, str]:
    code = segment.SegmentedPropertyCategoryCodeSequence[0]
    return code.CodingSchemeDesignator, code.CodeValue


def _functional_group(keyword: str, frame: pydicom.Dataset, shared: pydicom.Dataset) -> pydicom.Dataset:
    """A functional group stands with each frame or once for all."""
    return (frame if keyword in frame else shared)[keyword][0]


def _frame_slices(volume: Volume, seg: pydicom.Dataset, frame: pydicom.Dataset, shared: pydicom.Dataset) -> np.ndarray:
    sources = {
        str(image.ReferencedSOPInstanceUID)
        for derivation in frame.get("DerivationImageSequence", ())
        for image in derivation.get("SourceImageSequence", ())
    }
    named = np.array([uid in sources for uid in volume.sop_uids])
    if named.sum() == 1:
        return named
    if seg.FrameOfReferenceUID != volume.frame_of_reference_uid:
        raise SeriesRejected(Reason.NO_LESION_EVIDENCE, "the segmentation has another frame of reference")
    plane = np.array(_functional_group("PlaneOrientationSequence", frame, shared).ImageOrientationPatient, dtype=float)
    if abs(np.cross(plane[:3], plane[3:]) @ volume.normal) < 0.999:
        raise SeriesRejected(Reason.NO_LESION_EVIDENCE, "the segmentation's planes are not parallel to the slices")
    corner = np.array(_functional_group("PlanePositionSequence", frame, shared).ImagePositionPatient, dtype=float)
    distances = np.abs(volume.positions_mm - corner @ volume.normal)
    nearest = np.arange(len(distances)) == distances.argmin()
    return nearest & (distances <= 0.5 * volume.slice_spacing_mm + 1e-3)
