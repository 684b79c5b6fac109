"""Finds the slice of a volume for each frame of a DICOM SEG (PS3.3 A.51)."""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pydicom
from pydicom.multival import MultiValue

from lungsynth.dataset.rejection import Reason, SeriesRejected
from lungsynth.dicom.read import Volume


def functional_group(keyword: str, frame: pydicom.Dataset, shared: pydicom.Dataset) -> pydicom.Dataset:
    """The item of a functional group, from the frame itself or from the shared groups."""
    result: pydicom.Dataset = (frame if keyword in frame else shared)[keyword][0]
    return result


def in_plane(frame: pydicom.Dataset, shared: pydicom.Dataset) -> tuple[np.ndarray, np.ndarray]:
    """The steps from a pixel of a frame to the next one down, and to the next one across: mm in LPS, 3 each."""
    orientation = functional_group("PlaneOrientationSequence", frame, shared).ImageOrientationPatient
    axes = np.array(orientation, dtype=float).reshape(2, 3)
    spacing = functional_group("PixelMeasuresSequence", frame, shared).PixelSpacing
    return axes[1] * float(spacing[0]), axes[0] * float(spacing[1])


def corner(frame: pydicom.Dataset, shared: pydicom.Dataset) -> np.ndarray:
    """The centre of a frame's first pixel, mm in LPS, 3."""
    return np.array(functional_group("PlanePositionSequence", frame, shared).ImagePositionPatient, dtype=float)


@dataclass(frozen=True)
class SliceFinder:
    """Finds the slice of `volume` for frames of a segmentation; frames that cannot be placed are rejected for `reason`.

    A frame belongs to the slice that it names as its source, by SOP Instance UID and, in a multi-frame image, frame
    number. If it names none or several (some files list the whole series for every frame), it belongs to the slice
    nearest to its plane, at most half a slice spacing away.
    """

    volume: Volume
    frame_of_reference_uid: str
    reason: Reason

    def find(self, frame: pydicom.Dataset, shared: pydicom.Dataset) -> int | None:
        """The slice's index; none if no slice is near."""
        named = {
            self._indices[name]
            for derivation in frame.get("DerivationImageSequence", ())
            for image in derivation.get("SourceImageSequence", ())
            for name in _names(image)
            if name in self._indices
        }
        return named.pop() if len(named) == 1 else self._nearest(frame, shared)

    @cached_property
    def _indices(self) -> dict[str, int]:
        return {uid: index for index, uid in enumerate(self.volume.sop_uids)}

    def _nearest(self, frame: pydicom.Dataset, shared: pydicom.Dataset) -> int | None:
        volume = self.volume
        if self.frame_of_reference_uid != volume.frame_of_reference_uid:
            raise SeriesRejected(self.reason, "the segmentation has another frame of reference")
        down, across = in_plane(frame, shared)
        normal = np.cross(across, down)
        if abs(normal @ volume.normal) < 0.999 * np.linalg.norm(normal):
            raise SeriesRejected(self.reason, "the segmentation's planes are not parallel to the slices")
        distances = np.abs(volume.positions_mm - corner(frame, shared) @ volume.normal)
        index = int(distances.argmin())
        return index if distances[index] <= 0.5 * volume.slice_spacing_mm + 1e-3 else None


def _names(image: pydicom.Dataset) -> list[str]:
    """The names that a source image may have in a volume: the UID, and UID and number of frames."""
    uid, numbers = str(image.ReferencedSOPInstanceUID), image.get("ReferencedFrameNumber")
    if numbers is None:
        return [uid]
    numbers = numbers if isinstance(numbers, MultiValue) else [numbers]
    return [uid, *(f"{uid}#{number}" for number in numbers)]  # single-frame images may be referenced with frame 1
