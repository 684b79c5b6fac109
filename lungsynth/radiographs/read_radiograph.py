"""A DICOM radiograph as a viewer shows it (PS3.3 C.11): stored values as of CT, modality LUT, VOI, presentation LUT."""

import math
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from pydicom import Dataset
from pydicom.errors import InvalidDicomError
from pydicom.multival import MultiValue
from pydicom.pixels.utils import pixel_array

from lungsynth.dataset.rejection import Reason, SeriesRejected
from lungsynth.dicom.frames import layout_of, padding_of
from lungsynth.dicom.header import Header, read_dataset, read_header
from lungsynth.dicom.pixels import clean, read_stored
from lungsynth.errors import first_line
from lungsynth.radiographs.grey import GREY_FROM_COLOURS, LUMA, PERCENTILES, Picture, by_percentiles, scaled
from lungsynth.radiographs.raster import check_size

RADIOGRAPHS = ("CR", "DX", "RG")
"""DICOM modalities: computed, digital and digitised film radiography."""
SECONDARY_CAPTURE = "1.2.840.10008.5.1.4.1.1.7"
MIN_SHOWN = 32
"""Least range of grey values, of 255, for a window to fit the image: 12-bit values in a window of 16 bits give 16."""


def read_radiograph(path: Path) -> Picture:
    """The first frame of a DICOM radiograph.

    Raises:
        SeriesRejected: it is damaged, no radiograph, or may show a name.
    """
    try:
        header, dataset = read_header(path), read_dataset(path, stop_before_pixels=True)
    except Exception as error:  # on damaged files pydicom raises whatever comes
        kind = "no DICOM" if isinstance(error, InvalidDicomError) else "damaged DICOM"
        raise SeriesRejected(Reason.UNREADABLE, kind) from None
    notes: list[str] = []
    try:
        _check(dataset, header)
        if (frames := int(dataset.get("NumberOfFrames") or 1)) > 1:
            notes.append(f"the first of {frames} frames")
        grey = _colours(path, notes) if dataset.get("SamplesPerPixel") == 3 else _grey(path, header, dataset, notes)
        spacing = dataset.get("PixelSpacing") or dataset.get("ImagerPixelSpacing")
        pixel_mm = float(spacing[0]) if spacing else math.nan
        sop_uid = header.values.get("SOPInstanceUID")
        return Picture(grey, str(sop_uid) if sop_uid else None, pixel_mm, 1, notes)
    except SeriesRejected:
        raise
    except Exception as error:  # as above; values of other kinds than the standard's among it
        raise SeriesRejected(Reason.UNREADABLE, f"damaged DICOM: {first_line(error)}") from None


def _check(dataset: Dataset, header: Header) -> None:
    """Reject files that are no radiograph, may show a name, or cannot be decoded."""
    modality = str(dataset.get("Modality", ""))
    if modality not in RADIOGRAPHS:
        raise SeriesRejected(Reason.NOT_CT, f"modality {modality[:16] or 'missing'} is no radiograph's")
    annotation = str(dataset.get("BurnedInAnnotation", "")).upper()
    if annotation == "YES":
        raise SeriesRejected(Reason.BURNED_IN_ANNOTATION, "Burned In Annotation is YES")
    if str(dataset.get("SOPClassUID", "")).startswith(SECONDARY_CAPTURE) and annotation != "NO":
        raise SeriesRejected(Reason.SECONDARY_CAPTURE, "a secondary capture that does not rule out burned-in text")
    photometric = str(dataset.get("PhotometricInterpretation", "missing"))
    if not photometric.startswith(("MONOCHROME", "RGB", "YBR")):
        raise SeriesRejected(Reason.UNREADABLE, f"photometric interpretation {photometric[:16]} is not supported")
    if header.pixels_at is None:
        raise SeriesRejected(Reason.NO_PIXEL_DATA, "no Pixel Data")
    check_size(int(dataset.Columns), int(dataset.Rows))


def _colours(path: Path, notes: list[str]) -> np.ndarray:
    dataset = read_dataset(path)
    try:
        pixels = pixel_array(dataset, index=0)
    except (NotImplementedError, RuntimeError) as error:  # an unknown syntax; a known one without decoder
        syntax = dataset.file_meta.TransferSyntaxUID.name
        raise SeriesRejected(Reason.NO_DECODER, f"{syntax}: {first_line(error)}") from None
    notes.append(GREY_FROM_COLOURS)
    grey = pixels @ np.array(LUMA)
    return scaled(grey, 0, 255) if dataset.BitsStored <= 8 else by_percentiles(grey, None, notes)


def _grey(path: Path, header: Header, dataset: Dataset, notes: list[str]) -> np.ndarray:
    """Grey values, 0 to 255; padding around the image is black, even in inverted images."""
    assert header.pixels_at is not None  # as checked
    layout = layout_of(header.values, header.transfer_syntax, header.pixels_at, length=header.pixel_bytes)
    stored = next(read_stored(path, layout, [0], scratch=bytearray(layout.rows * layout.columns * 4)))
    padded = clean(stored, layout, padding_of(header.values, layout), only_around=True)
    counted = None if padded is None else ~padded
    values = _modality_values(stored, dataset, notes)
    grey = _in_window(values, counted, dataset, notes=notes)
    if grey is None and layout.bits_stored <= 8:
        least = -(1 << layout.bits_stored - 1) if layout.signed else 0
        ends = np.array([least, least + (1 << layout.bits_stored) - 1], dtype=stored.dtype)
        low, high = sorted(_modality_values(ends, dataset, []).tolist())
        grey = scaled(values, low, high)
    elif grey is None:
        grey = by_percentiles(values, counted, notes)
    if _inverted(dataset, notes):
        grey = 255 - grey
    if padded is not None:
        grey[padded] = 0
    return grey


def _modality_values(stored: np.ndarray, dataset: Dataset, notes: list[str]) -> np.ndarray:
    """The stored values after the modality LUT, or else slope and intercept: float64."""
    if dataset.get("ModalityLUTSequence"):
        return _looked_up(stored, dataset.ModalityLUTSequence[0], dataset)
    slope, intercept = dataset.get("RescaleSlope"), dataset.get("RescaleIntercept")
    if slope in (None, "") or intercept in (None, ""):
        return stored.astype(np.float64)
    if not float(slope) or not math.isfinite(float(slope) + float(intercept)):
        notes.append("a rescale slope or intercept that makes no sense was ignored")
        return stored.astype(np.float64)
    return stored.astype(np.float64) * float(slope) + float(intercept)


def _looked_up(values: np.ndarray, lut: Dataset, dataset: Dataset) -> np.ndarray:
    """Values after a LUT (PS3.3 C.11.1.1), float64; values beyond its ends get its first or last entry."""
    entries, first, _ = map(int, lut.LUTDescriptor)
    entries = entries or 1 << 16
    if isinstance(data := lut.LUTData, bytes):
        order = "<" if dataset.original_encoding[1] else ">"
        data = np.frombuffer(data, f"{order}u2" if len(data) >= 2 * entries else np.uint8)
    if first >= 1 << 15 and values.min() < 0:  # the VR that unsigned pixels would have
        first -= 1 << 16
    table = np.atleast_1d(np.asarray(data, np.float64))[:entries]
    result: np.ndarray = table[(np.rint(values).astype(np.int64) - first).clip(0, len(table) - 1)]
    return result


def _in_window(
    values: np.ndarray, counted: np.ndarray | None, dataset: Dataset, *, notes: list[str]
) -> np.ndarray | None:
    """Grey values by the first of the file's VOI LUTs and windows in which the image shows anything; none: by none."""
    if dataset.get("VOILUTSequence"):
        bits = int(dataset.VOILUTSequence[0].LUTDescriptor[2])
        looked_up = _looked_up(values, dataset.VOILUTSequence[0], dataset)
        if _differ(grey := scaled(looked_up, 0, 2**bits - 1), counted):
            return grey
        if np.ptp(looked_up if counted is None else looked_up[counted]):
            return by_percentiles(looked_up, counted, notes, why="its VOI LUT has less bits than it says: ")
    function = str(dataset.get("VOILUTFunction", "LINEAR"))
    for number, (centre, width) in enumerate(windows := list(_windows(dataset, function)), start=1):
        if _differ(grey := _windowed(values, centre, width, function=function), counted):
            if number > 1:
                notes.append(f"its window {number} of {len(windows)}, as those before show nothing")
            return grey
    if windows:
        notes.append("its windows do not fit its values")
    return None


def _differ(grey: np.ndarray, counted: np.ndarray | None) -> bool:
    """Whether an image shows anything: a range of `MIN_SHOWN` grey values in a sample of its pixels."""
    step = max(1, math.isqrt(grey.size // 250_000))
    thin = (slice(None, None, step),) * 2
    sample = grey[thin] if counted is None else grey[thin][counted[thin]]
    return bool(sample.size and np.ptp(np.percentile(sample, PERCENTILES)) >= MIN_SHOWN)


def _windows(dataset: Dataset, function: str) -> Iterator[tuple[float, float]]:
    centres, widths = (
        list(item) if isinstance(item := dataset.get(name), MultiValue) else [item]
        for name in ("WindowCenter", "WindowWidth")
    )
    for centre, width in zip(centres, widths, strict=False):
        if centre not in (None, "") and width not in (None, ""):
            pair = float(centre), float(width)
            if all(map(math.isfinite, pair)) and (pair[1] >= 1 or (pair[1] > 0 and function != "LINEAR")):
                yield pair


def _windowed(values: np.ndarray, centre: float, width: float, *, function: str) -> np.ndarray:
    """PS3.3 C.11.2.1.2 and C.11.2.1.3."""
    if function == "SIGMOID":
        return (255 / (1 + np.exp(-4 * (values - centre) / width))).astype(np.float32)
    if function == "LINEAR_EXACT":
        return scaled(values, centre - width / 2, centre + width / 2)
    return scaled(values, centre - 0.5 - (width - 1) / 2, centre - 0.5 + (width - 1) / 2)


def _inverted(dataset: Dataset, notes: list[str]) -> bool:
    """Whether small values have to be shown bright.

    Dense tissue, which lets little dose through, is bright in radiographs. In raw images, which viewers do not show,
    its values may be small or large; the sign of their relation to the dose says which.
    """
    sign = dataset.get("PixelIntensityRelationshipSign")
    if str(dataset.get("PresentationIntentType", "")) == "FOR PROCESSING":
        notes.append("for processing: raw values of the detector, without what its maker does to show them")
        if sign in (1, -1):
            return bool(sign == 1)
    inverse = dataset.PhotometricInterpretation == "MONOCHROME1"
    shape = str(dataset.get("PresentationLUTShape", ""))
    if shape == ("IDENTITY" if inverse else "INVERSE"):
        notes.append(f"{dataset.PhotometricInterpretation} with presentation LUT shape {shape}: shown inverted")
    return inverse or shape == "INVERSE"
