"""Decoding of radiographs and ready slices: PNG, JPEG, TIFF and DICOM to grey values, or a reason why not."""

import hashlib
import warnings
from io import BytesIO
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import ExifTags, Image, ImageOps
from pydicom import Dataset, dcmread
from pydicom.encaps import generate_frames
from pydicom.errors import InvalidDicomError
from pydicom.multival import MultiValue
from pydicom.pixels import apply_modality_lut, apply_voi_lut, pixel_array

from lungsynth.imaging.codecs import frame_decoder
from lungsynth.imaging.rejection import Reason, SeriesRejected

FORMATS = ("PNG", "JPEG", "TIFF")
"""What Pillow may open; each decoder more is one more for hostile files."""
JPEG = b"\xff\xd8"
"""How a JPEG file starts."""
MAX_PIXELS = 64_000_000
"""Pixels of an image; the largest chest detectors have 18 million. A file of a few kB can claim billions."""
PERCENTILES = (0.5, 99.5)
"""Grey values that become 0 and 255 in a PNG or TIFF of more than 8 bit.

Such files mostly hold 12 or 14 bit and do not say so: over the full 16 bit they would be almost black, and from least
to greatest value a lead marker or a dead pixel would set the scale. nnU-Net (Isensee 2021,
doi:10.1038/s41592-020-01008-z) and most loaders of 16-bit radiographs clip the same tails.
"""
RADIOGRAPHS = ("CR", "DX", "RG")
"""DICOM modalities: computed, digital and digitised film radiography."""
SECONDARY_CAPTURE = "1.2.840.10008.5.1.4.1.1.7"
LUMA = (0.299, 0.587, 0.114)
"""Red, green and blue in grey (ITU-R BT.601), as Pillow has it."""
COLOURFUL = 32
"""Of 255: difference of the channels above which an image is no grey one that was stored in colour."""


class Picture(NamedTuple):
    """A decoded image: grey values 0 to 255 as float32, Y×X, and what its file says of itself."""

    grey: np.ndarray
    sop_uid: str | None
    pixel_mm: float
    notes: list[str]


def picture_uid(sha256: str) -> str:
    """The series UID of the picture whose file has this SHA-256."""
    return f"image-{sha256[:32]}"


def read_picture(path: Path, uid: str) -> Picture:
    """Decode an image file: PNG, JPEG, TIFF, or a DICOM radiograph.

    Raises:
        SeriesRejected: it cannot be read, holds nothing usable, or its content is not that of `uid`.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise SeriesRejected(Reason.UNREADABLE, f"cannot be opened: {error.strerror}") from None
    if picture_uid(hashlib.sha256(content).hexdigest()) != uid:
        raise SeriesRejected(Reason.UNREADABLE, "the file has changed since the cohort was selected: select it again")
    with warnings.catch_warnings():
        # Both libraries warn of odd metadata, which are not used, and Pillow of large images, which `_open` sees to.
        warnings.simplefilter("ignore")
        picture = _read_dicom(content) if content[128:132] == b"DICM" else _read_image(content)
    if not picture.grey.max() > picture.grey.min():
        raise SeriesRejected(Reason.UNREADABLE, "blank: all pixels have the same value")
    return picture


def read_mask(path: Path, shape: tuple[int, ...]) -> np.ndarray:
    """A mask file as bool, of its own size, whose sides must be in the ratio of `shape`.

    What is not black belongs to the mask; in a JPEG, whose compression dirties the black, what is above half.

    Raises:
        SeriesRejected: `NO_MASK`, where the file cannot be read or does not fit.
    """
    try:
        content = path.read_bytes()
        pixels = np.asarray(_flattened(_open(content, []), []))
    except OSError as error:
        raise SeriesRejected(Reason.NO_MASK, f"the mask cannot be opened: {error.strerror}") from None
    except SeriesRejected as rejected:
        raise SeriesRejected(Reason.NO_MASK, f"the mask is unusable: {rejected.detail}") from None
    mask = (pixels if pixels.ndim == 2 else pixels.max(axis=2)) > (127 if content.startswith(JPEG) else 0)
    # Published masks may be smaller than the radiographs: JSRT's are 1024² of 2048².
    if abs(mask.shape[0] * shape[1] / (mask.shape[1] * shape[0]) - 1) > 0.01:
        sizes = " and ".join(f"{columns}×{rows}" for rows, columns in (mask.shape, shape))
        raise SeriesRejected(Reason.NO_MASK, f"mask and image differ in shape: {sizes}")
    return mask


def _read_image(content: bytes) -> Picture:
    notes: list[str] = []
    image = _flattened(_open(content, notes), notes)
    if image.mode.startswith(("I", "F")):
        return Picture(_deep_grey(np.asarray(image, dtype=np.float32), notes), None, np.nan, notes)
    if image.mode not in ("1", "L"):
        image = image.convert("RGB")  # CMYK and LAB have no direct way to grey
        if np.ptp(np.asarray(image), axis=2).max() > COLOURFUL:
            notes.append("colours became grey")
    return Picture(np.asarray(image.convert("L"), dtype=np.float32), None, np.nan, notes)


def _deep_grey(pixels: np.ndarray, notes: list[str]) -> np.ndarray:
    """Grey values of a PNG or TIFF of more than 8 bit, see `PERCENTILES`."""
    if not np.isfinite(pixels).all():
        raise SeriesRejected(Reason.UNREADABLE, "has pixels that are not finite numbers")
    low, high = (float(value) for value in np.percentile(pixels, PERCENTILES))
    if low == high:
        low, high = float(pixels.min()), float(pixels.max())
    notes.append(f"grey values {low:g} to {high:g} became 0 to 255")
    return _scaled(pixels, low, high)


def _open(content: bytes, notes: list[str]) -> Image.Image:
    """The first picture of a file, decoded and upright, in its own mode."""
    try:
        image = Image.open(BytesIO(content), formats=FORMATS)
        if image.width * image.height <= MAX_PIXELS:
            if (pages := getattr(image, "n_frames", 1)) > 1:
                notes.append(f"the first of {pages} pages or frames")
            if image.getexif().get(ExifTags.Base.Orientation, 1) != 1:  # a TIFF forgets it, once it is loaded
                notes.append("turned upright by its EXIF orientation")
            return ImageOps.exif_transpose(image)
        detail = f"claims {image.width}×{image.height} pixels"
    except Image.UnidentifiedImageError:
        detail = "neither PNG, JPEG, TIFF nor DICOM" if content else "empty"
    except Exception as error:  # on damaged files decoders raise whatever comes
        detail = f"damaged: {_first_line(error)}"
    raise SeriesRejected(Reason.UNREADABLE, detail)


def _flattened(image: Image.Image, notes: list[str]) -> Image.Image:
    """The image without palette or alpha; where it is transparent, black, as the field around a radiograph is."""
    keyed = "transparency" in image.info and image.mode in ("1", "L", "RGB")
    if not keyed and image.mode not in ("P", "PA", "LA", "La", "RGBA", "RGBa"):
        return image
    image = image.convert("RGBA")
    if image.getchannel("A").getextrema() == (255, 255):
        return image.convert("RGB")
    notes.append("transparent pixels were laid on black")
    return Image.alpha_composite(Image.new("RGBA", image.size, "black"), image).convert("RGB")


def _read_dicom(content: bytes) -> Picture:
    try:
        dataset = dcmread(BytesIO(content))
    except Exception as error:  # on damaged files pydicom raises whatever comes
        kind = "no DICOM" if isinstance(error, InvalidDicomError) else "damaged DICOM"
        raise SeriesRejected(Reason.UNREADABLE, kind) from None
    _check_dicom(dataset)
    notes = []
    frames = int(dataset.get("NumberOfFrames") or 1)
    if frames > 1:
        notes.append(f"the first of {frames} frames")
    try:
        pixels = _first_frame(dataset)
        grey = _dicom_grey(dataset, pixels, notes)
        spacing = dataset.get("PixelSpacing") or dataset.get("ImagerPixelSpacing")
        pixel_mm = float(spacing[0]) if spacing else np.nan
    except SeriesRejected:
        raise
    except Exception as error:  # as above; values of other kinds than the standard's among it
        raise SeriesRejected(Reason.UNREADABLE, f"damaged DICOM: {_first_line(error)}") from None
    return Picture(grey, str(dataset.SOPInstanceUID), pixel_mm, notes)


def _check_dicom(dataset: Dataset) -> None:
    """Reject what is no radiograph, what may show a name, and what cannot be decoded."""
    modality = str(dataset.get("Modality", ""))
    if modality not in RADIOGRAPHS:
        raise SeriesRejected(Reason.NOT_CT, f"modality {modality or 'missing'} is no radiograph's")
    annotation = str(dataset.get("BurnedInAnnotation", "")).upper()
    if annotation == "YES":
        raise SeriesRejected(Reason.BURNED_IN_ANNOTATION, "Burned In Annotation is YES")
    if str(dataset.get("SOPClassUID", "")).startswith(SECONDARY_CAPTURE) and annotation != "NO":
        raise SeriesRejected(Reason.SECONDARY_CAPTURE, "a secondary capture that does not rule out burned-in text")
    photometric = str(dataset.get("PhotometricInterpretation", "missing"))
    if not photometric.startswith(("MONOCHROME", "RGB", "YBR")):
        raise SeriesRejected(Reason.UNREADABLE, f"photometric interpretation {photometric} is not supported")
    if "PixelData" not in dataset:
        raise SeriesRejected(Reason.NO_PIXEL_DATA, "no Pixel Data")
    if int(dataset.Rows) * int(dataset.Columns) > MAX_PIXELS:
        raise SeriesRejected(Reason.UNREADABLE, f"claims {dataset.Columns}×{dataset.Rows} pixels")


def _first_frame(dataset: Dataset) -> np.ndarray:
    """Stored values of the first frame: Y×X, or Y×X×3 where it has colours."""
    syntax = dataset.file_meta.TransferSyntaxUID
    dtype = np.dtype(f"<{'i' if dataset.PixelRepresentation else 'u'}{dataset.BitsAllocated // 8}")
    decode = frame_decoder(syntax, dtype) if dataset.SamplesPerPixel == 1 else None
    if decode is not None:
        code = next(generate_frames(dataset.PixelData, number_of_frames=int(dataset.get("NumberOfFrames") or 1)))
        return decode(code).reshape(dataset.Rows, dataset.Columns).astype(dtype, copy=False)
    try:
        return pixel_array(dataset, index=0)
    except (NotImplementedError, RuntimeError) as error:  # an unknown syntax; a known one without decoder
        raise SeriesRejected(Reason.NO_DECODER, f"{syntax.name}: {_first_line(error)}") from None


def _dicom_grey(dataset: Dataset, pixels: np.ndarray, notes: list[str]) -> np.ndarray:
    """Grey values as PS3.3 C.11 has them shown: modality LUT, VOI LUT or window, MONOCHROME1 inverted.

    Without a VOI the whole range of the stored bits is shown.
    """
    if dataset.SamplesPerPixel == 3:
        notes.append("colours became grey")
        return _scaled(pixels @ np.array(LUMA), 0, 2**dataset.BitsStored - 1)
    values = apply_modality_lut(pixels, dataset).astype(np.float64)
    windows = [dataset.get(name) for name in ("WindowCenter", "WindowWidth")]
    centre, width = (item[0] if isinstance(item, MultiValue) else item for item in windows)
    if dataset.get("VOILUTSequence"):
        bits = int(dataset.VOILUTSequence[0].LUTDescriptor[2])
        grey = _scaled(apply_voi_lut(np.rint(values).astype(np.int64), dataset), 0, 2**bits - 1)
    elif centre is not None and width is not None and float(width) >= 1:
        grey = _windowed(values, float(centre), float(width), str(dataset.get("VOILUTFunction", "LINEAR")))
    else:
        low = -(2 ** (dataset.BitsStored - 1)) if dataset.PixelRepresentation else 0
        stored = np.array([low, low + 2**dataset.BitsStored - 1], dtype=pixels.dtype)
        first, last = apply_modality_lut(stored, dataset).astype(float)
        grey = _scaled(values, min(first, last), max(first, last))
    return 255 - grey if dataset.PhotometricInterpretation == "MONOCHROME1" else grey


def _windowed(values: np.ndarray, centre: float, width: float, function: str) -> np.ndarray:
    """PS3.3 C.11.2.1.2 and C.11.2.1.3."""
    if function == "SIGMOID":
        return (255 / (1 + np.exp(-4 * (values - centre) / width))).astype(np.float32)
    if function == "LINEAR_EXACT":
        return _scaled(values, centre - width / 2, centre + width / 2)
    return _scaled(values, centre - 0.5 - (width - 1) / 2, centre - 0.5 + (width - 1) / 2)


def _scaled(values: np.ndarray, low: float, high: float) -> np.ndarray:
    """`low` to `high` as 0 to 255, clipped: float32."""
    return np.clip((values - low) * (255 / max(high - low, 1e-6)), 0, 255).astype(np.float32)


def _first_line(error: Exception) -> str:
    return str(error).partition("\n")[0] or type(error).__name__
