"""Why a series or an image gives no slices: a closed list of reasons."""

from enum import StrEnum

import numpy as np

from lungsynth.text import printable


class Reason(StrEnum):
    """Every reason; reports and tables hold the values."""

    NOT_FETCHED = "not_fetched"  # the object store gave no whole copy of it
    UNREADABLE = "unreadable"  # a file is not DICOM or no image, is cut short or is corrupt
    NO_DECODER = "no_decoder"  # no installed decoder for the transfer syntax
    NOT_CT = "not_ct"  # an instance of another modality
    SECONDARY_CAPTURE = "secondary_capture"  # an image of a screen or a film, which may show a name
    BURNED_IN_ANNOTATION = "burned_in_annotation"  # the file says that its pixels hold text
    NO_PIXEL_DATA = "no_pixel_data"
    NO_GEOMETRY = "no_geometry"  # position, orientation or pixel spacing is missing or makes no sense
    NOT_HU = "not_hu"  # no rescale to Hounsfield units, or values that cannot be HU
    NOT_AXIAL = "not_axial"  # a localizer, or too oblique
    MIXED_SERIES = "mixed_series"  # more than one series, orientation, size or spacing, or another than asked for
    TOO_FEW_SLICES = "too_few_slices"
    DUPLICATE_POSITIONS = "duplicate_positions"  # different images in one place
    MISSING_SLICES = "missing_slices"  # too much of the scan is missing
    NO_LUNGS = "no_lungs"  # none found
    IMPLAUSIBLE_LUNGS = "implausible_lungs"  # found, but not of a form or volume that lungs have
    NO_LUNG_MASK = "no_lung_mask"  # no usable published mask of the lungs
    NO_LESION_EVIDENCE = "no_lesion_evidence"  # a cancer patient's series of which no usable annotation says where
    NO_SLICES = "no_slices"  # no slice has both a label and enough lung
    FAILED = "failed"  # a fault of this software: the detail names the place in the code
    NO_MASK = "no_mask"  # an image without the mask that it should have, or with one of another size


class SeriesRejected(Exception):  # noqa: N818 - an outcome of a series, which the run records and goes on
    """A series is of no use, for a reason from the closed list; `detail` names files and numbers, never a patient.

    `preview` (uint8, Y×X) is a slice of it for the sheet of rejected cases, where it could be read so far.
    """

    def __init__(self, reason: Reason, detail: str, preview: np.ndarray | None = None) -> None:
        super().__init__(reason, detail)
        self.reason = reason
        self.detail = printable(detail)  # it quotes DICOM, decoders and servers
        self.preview = preview


def preview_of(hu: np.ndarray) -> np.ndarray:
    """A slice (HU, Y×X) as uint8 for the sheet of rejected cases, in a window wide enough for lungs and tissue."""
    result: np.ndarray = ((np.clip(hu, -1350, 450).astype(np.float32) + 1350) * (255 / 1800)).astype(np.uint8)
    return result
