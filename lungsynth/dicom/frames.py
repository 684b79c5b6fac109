"""The slices of a DICOM CT file, as its attributes describe them, or the reason why it is rejected."""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from pydicom.uid import (
    EnhancedCTImageStorage,
    JPEGBaseline8Bit,
    JPEGExtended12Bit,
    JPEGLSNearLossless,
    LegacyConvertedEnhancedCTImageStorage,
    SecondaryCaptureImageStorage,
)

from lungsynth.dataset.rejection import Reason, SeriesRejected
from lungsynth.dicom.header import BIT_FOR_BIT, KEYWORDS, read_dataset, read_header

Values = dict[str, Any]
ENHANCED = (EnhancedCTImageStorage, LegacyConvertedEnhancedCTImageStorage)
LOSSY = (JPEGBaseline8Bit, JPEGExtended12Bit, JPEGLSNearLossless)
FUNCTIONAL_GROUPS = (
    "PixelMeasuresSequence",
    "PlanePositionSequence",
    "PlaneOrientationSequence",
    "PixelValueTransformationSequence",
    "CTImageFrameTypeSequence",
    "UnassignedSharedConvertedAttributesSequence",  # what a legacy converted image kept of its sources
    "UnassignedPerFrameConvertedAttributesSequence",
)
AIR_HU = -1024
METAL_HU = 3071
"""The least HU that scanners give, and the greatest in 12 bits."""
LOCALIZERS = {"LOCALIZER", "SCOUT"}
CAPTURES = {"SCREEN SAVE", "SCREENSHOT", "DOSE_INFO"}
"""Values of Image Type for screenshots and dose reports."""


@dataclass(frozen=True)
class PixelLayout:
    """The layout of an image's stored values in its file; Pixel Data begins at byte `at`."""

    transfer_syntax: str
    at: int
    length: int
    frames: int
    rows: int
    columns: int
    bits_allocated: int
    bits_stored: int
    high_bit: int
    signed: bool


@dataclass(frozen=True)
class Frame:
    """One slice; `index` counts the frames of its file from 0. Positions, directions and spacings are as in DICOM."""

    path: Path
    index: int
    layout: PixelLayout
    slope: float
    intercept: float
    padding: tuple[int, int] | None  # least and greatest stored value of pixels outside the field of view
    position: np.ndarray  # 3
    orientation: tuple[float, ...]
    spacing_mm: tuple[float, ...]
    thickness_mm: float | None
    sop_uid: str
    instance_number: int | None
    series_uid: str
    frame_of_reference_uid: str
    manufacturer: str
    parts: int  # files of the concatenation that its file is a part of; else 1
    oddities: tuple[str, ...]

    @property
    def uid(self) -> str:
        """SOP Instance UID, with the frame's number from 1 (as in Referenced Frame Number) where a file has several."""
        return f"{self.sop_uid}#{self.index + 1}" if self.layout.frames > 1 else self.sop_uid


def read_frames(path: Path) -> tuple[list[Frame], int]:
    """All slices of a file without localizers, and the number of localizers.

    Raises:
        SeriesRejected: the file cannot be used, and so its series cannot.
        Exception: nearly any, where the file is corrupt.
    """
    header = read_header(path)
    values = header.values
    _check_kind(values)
    if header.pixels_at is None:
        raise SeriesRejected(Reason.NO_PIXEL_DATA, "no pixel data")
    layout = layout_of(values, header.transfer_syntax, header.pixels_at, length=header.pixel_bytes)
    several = values.get("SOPClassUID") in ENHANCED or layout.frames > 1
    of_frames = list(_functional_groups(path, values)) if several else [values]
    frames = [
        _frame(path, index, layout, values=frame_values)
        for index, frame_values in enumerate(of_frames)
        if not LOCALIZERS & set(_texts(frame_values, "ImageType"))
    ]
    return frames, len(of_frames) - len(frames)


def _check_kind(values: Values) -> None:
    if values.get("Modality") != "CT":
        if not values.get("Modality") and not values.get("SOPClassUID"):  # every image has at least one of them
            raise SeriesRejected(Reason.UNREADABLE, "damaged: neither Modality nor SOP Class UID")
        raise SeriesRejected(Reason.NOT_CT, f"modality {str(values.get('Modality'))[:16]!r}")
    capture = str(values.get("SOPClassUID", "")).startswith(SecondaryCaptureImageStorage)
    if capture or values.get("ConversionType") or CAPTURES & set(_texts(values, "ImageType")):
        raise SeriesRejected(Reason.SECONDARY_CAPTURE, "a secondary capture")
    if values.get("BurnedInAnnotation") == "YES":
        raise SeriesRejected(Reason.BURNED_IN_ANNOTATION, "text is drawn into its pixels")
    if (values.get("SamplesPerPixel") or 1) != 1:
        raise SeriesRejected(Reason.NOT_HU, "a colour image")


def layout_of(values: Values, transfer_syntax: str, at: int, *, length: int) -> PixelLayout:
    """The layout of an image's pixels, from its attributes and the place and length of its Pixel Data.

    Raises:
        SeriesRejected: the attributes are missing or make no sense.
    """
    if missing := [keyword for keyword in ("Rows", "Columns", "BitsAllocated") if not values.get(keyword)]:
        raise SeriesRejected(Reason.UNREADABLE, f"no {', '.join(missing)}")
    allocated = values["BitsAllocated"]
    high = values.get("HighBit")
    stored = values.get("BitsStored") or (allocated if high is None else high + 1)
    high = stored - 1 if high is None or transfer_syntax not in BIT_FOR_BIT else high
    if allocated not in (8, 16, 32) or not stored - 1 <= high < allocated:
        raise SeriesRejected(Reason.UNREADABLE, f"{stored} bits up to bit {high} of {allocated} make no sense")
    return PixelLayout(
        transfer_syntax=transfer_syntax,
        at=at,
        length=length,
        frames=int(values.get("NumberOfFrames") or 1),
        rows=values["Rows"],
        columns=values["Columns"],
        bits_allocated=allocated,
        bits_stored=stored,
        high_bit=high,
        signed=values.get("PixelRepresentation") == 1,
    )


def _functional_groups(path: Path, values: Values) -> Iterator[Values]:
    """The attributes of each frame of a multi-frame image: those of its functional groups, else those of the image."""
    dataset = read_dataset(path, stop_before_pixels=True)
    if "PerFrameFunctionalGroupsSequence" not in dataset:
        raise SeriesRejected(Reason.NO_GEOMETRY, "several frames without functional groups")
    per_frame = dataset.PerFrameFunctionalGroupsSequence
    if len(per_frame) != int(values.get("NumberOfFrames") or 1):
        raise SeriesRejected(
            Reason.UNREADABLE, f"{len(per_frame)} functional groups for {values['NumberOfFrames']} frames"
        )
    shared = _of_groups(dataset.get("SharedFunctionalGroupsSequence"))
    own = {"InstanceNumber": None}  # the image's number is not a slice's
    for frame in per_frame:
        yield values | own | shared | _of_groups([frame])


def _of_groups(functional_groups: Any) -> Values:
    values: Values = {}
    for keyword in FUNCTIONAL_GROUPS:
        for item in (functional_groups[0].get(keyword) or ())[:1] if functional_groups else ():
            values |= {name: item[name].value for name in KEYWORDS if name in item}
            if "FrameType" in item:
                values["ImageType"] = item.FrameType
    return values


def _frame(path: Path, index: int, layout: PixelLayout, *, values: Values) -> Frame:
    slope, intercept = _rescale(values)
    padding = padding_of(values, layout)
    thickness = values.get("SliceThickness")
    number = values.get("InstanceNumber")
    series_uid, sop_uid = (str(values.get(keyword) or "") for keyword in ("SeriesInstanceUID", "SOPInstanceUID"))
    if not series_uid or not sop_uid:
        raise SeriesRejected(Reason.UNREADABLE, "no UID of its series or of its own")
    return Frame(
        path=path,
        index=index,
        layout=layout,
        slope=slope,
        intercept=intercept,
        padding=padding,
        position=np.array(_numbers(values, "ImagePositionPatient", 3)),
        orientation=_numbers(values, "ImageOrientationPatient", 6),
        spacing_mm=_numbers(values, "PixelSpacing", 2),
        thickness_mm=float(thickness) if thickness and 0 < thickness < math.inf else None,
        sop_uid=sop_uid,
        instance_number=int(number) if number is not None and number != "" else None,
        series_uid=series_uid,
        frame_of_reference_uid=str(values.get("FrameOfReferenceUID") or ""),
        manufacturer=str(values.get("Manufacturer") or ""),
        parts=int(values.get("InConcatenationTotalNumber") or 1),
        oddities=(*_oddities(values, layout.transfer_syntax), *_padding_oddity(padding, slope, intercept)),
    )


def _rescale(values: Values) -> tuple[float, float]:
    slope, intercept = values.get("RescaleSlope"), values.get("RescaleIntercept")
    if slope is None or intercept is None:
        raise SeriesRejected(Reason.NOT_HU, "no rescale slope and intercept")
    if not slope or not math.isfinite(slope) or not math.isfinite(intercept):
        raise SeriesRejected(Reason.NOT_HU, f"rescale slope {slope} and intercept {intercept}")
    if values.get("RescaleType") not in (None, "", "HU", "US"):  # US: unspecified
        raise SeriesRejected(Reason.NOT_HU, f"rescale type {str(values['RescaleType'])[:16]!r}")
    return float(slope), float(intercept)


def padding_of(values: Values, layout: PixelLayout) -> tuple[int, int] | None:
    """The least and the greatest stored value that means padding.

    Values of the wrong VR are corrected: -2000 in 16 signed bits is often written as the unsigned 63536, or vice versa.
    """
    padding = values.get("PixelPaddingValue")
    if padding is None or padding == "":
        return None
    limit = values.get("PixelPaddingRangeLimit")
    span = 1 << layout.bits_allocated
    wrapped = [int(value) % span for value in (padding, padding if limit is None or limit == "" else limit)]
    low, high = sorted(value - span if layout.signed and value >= span // 2 else value for value in wrapped)
    return low, high


def among_tissue(padding: tuple[int, int], slope: float, intercept: float) -> bool:
    """Whether the padding's stored values, taken as HU, occur in a body."""
    low, high = sorted(value * slope + intercept for value in padding)
    return high > AIR_HU and low <= METAL_HU


def _padding_oddity(padding: tuple[int, int] | None, slope: float, intercept: float) -> Iterator[str]:
    if padding and among_tissue(padding, slope, intercept):
        low, high = sorted(value * slope + intercept for value in padding)
        shown = f"{low:g} HU" if low == high else f"{low:g} to {high:g} HU"
        yield f"tissue has its padding value too, {shown}: only taken for padding around the image"


def _numbers(values: Values, keyword: str, length: int) -> tuple[float, ...]:
    value = values.get(keyword)
    numbers = tuple(map(float, value)) if value and not isinstance(value, str | float) else ()
    if len(numbers) != length or not all(map(math.isfinite, numbers)):
        raise SeriesRejected(Reason.NO_GEOMETRY, f"no {keyword} of {length} numbers")
    return numbers


def _texts(values: Values, keyword: str) -> list[str]:
    value = values.get(keyword) or []
    return [value] if isinstance(value, str) else list(value)


def _oddities(values: Values, transfer_syntax: str) -> Iterator[str]:
    if values.get("PhotometricInterpretation") == "MONOCHROME1":
        yield "MONOCHROME1: to be shown inverted, which does not change its HU"
    if values.get("LossyImageCompression") == "01" or transfer_syntax in LOSSY:
        yield "compressed with loss"
