"""Decoding of radiographs and ready slices: PNG, JPEG, TIFF and DICOM to grey values, or a reason why not."""

import hashlib
import warnings
from pathlib import Path

import numpy as np
from PIL import Image

from lungsynth.cohort.cohort import picture_uid
from lungsynth.dataset.rejection import Reason, SeriesRejected
from lungsynth.dicom.header import is_dicom
from lungsynth.errors import reason
from lungsynth.radiographs.decode import open_raster
from lungsynth.radiographs.grey import COLOURFUL, GREY_FROM_COLOURS, LUMA, Picture, by_percentiles
from lungsynth.radiographs.raster import Raster, turned

JPEG = b"\xff\xd8"
"""First bytes of a JPEG file."""
SAME_SHAPE = 0.01
"""Relative difference up to which the sides of mask and image are in the same ratio."""


def read_picture(path: Path, uid: str) -> Picture:
    """Decode an image file: PNG, JPEG, TIFF, or a DICOM radiograph.

    Raises:
        SeriesRejected: it cannot be read, holds nothing usable, or its content is not that of `uid`.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise SeriesRejected(Reason.UNREADABLE, f"cannot be opened: {reason(error)}") from None
    if picture_uid(hashlib.sha256(content).hexdigest()) != uid:
        raise SeriesRejected(Reason.UNREADABLE, "the file has changed since the cohort was selected: select it again")
    with warnings.catch_warnings():
        # pydicom and Pillow warn of odd metadata, which are not used, and of large images, which are rejected.
        warnings.simplefilter("ignore")
        picture = _read_dicom(path) if is_dicom(content[:4096]) else _read_image(content)
    if not picture.grey.max() > picture.grey.min():
        raise SeriesRejected(Reason.UNREADABLE, "blank: all pixels have the same value")
    return picture


def _read_dicom(path: Path) -> Picture:
    from lungsynth.radiographs.read_radiograph import read_radiograph  # OpenCV, which other pictures do without

    return read_radiograph(path)


def _read_image(content: bytes) -> Picture:
    notes: list[str] = []
    raster = open_raster(content, notes)
    return Picture(_grey(raster, notes), None, np.nan, raster.orientation, notes)


def _grey(raster: Raster, notes: list[str]) -> np.ndarray:
    pixels = raster.pixels
    if not raster.deep:
        if pixels.ndim == 3 and np.ptp(pixels, axis=2).max() > COLOURFUL:
            notes.append(GREY_FROM_COLOURS)
        return np.asarray(Image.fromarray(pixels).convert("L"), dtype=np.float32)
    if not np.isfinite(pixels).all():
        raise SeriesRejected(Reason.UNREADABLE, "has pixels that are not finite numbers")
    # Of the type's own, a difference may overflow.
    spread = pixels.max(axis=2).astype(np.float64) - pixels.min(axis=2) if pixels.ndim == 3 else np.zeros((1, 1))
    values = _exact(pixels if pixels.ndim == 2 else pixels[..., 0] if not spread.any() else pixels @ np.array(LUMA))
    counted = None if raster.opacity is None else raster.opacity > 0
    if spread.max() > COLOURFUL / 255 * np.ptp(values):
        notes.append(GREY_FROM_COLOURS)
    grey = by_percentiles(values, counted, notes)
    return grey if raster.opacity is None else grey * raster.opacity


def _exact(values: np.ndarray) -> np.ndarray:
    """As float32 where it holds all of the values, else as float64."""
    single = values.astype(np.float32)
    return single if np.array_equal(single, values) else values.astype(np.float64)


def read_mask(path: Path, picture: Picture) -> np.ndarray:
    """A mask file as bool, of its own size, on a picture whose sides must be in the same ratio.

    Pixels that are not black belong to the mask. In a JPEG, whose compression makes black noisy, those above half do.

    Raises:
        SeriesRejected: `NO_MASK`, where the file cannot be read or does not fit.
    """
    try:
        content = path.read_bytes()
        raster = open_raster(content, [])
    except OSError as error:
        raise SeriesRejected(Reason.NO_MASK, f"the mask cannot be opened: {reason(error)}") from None
    except SeriesRejected as rejected:
        raise SeriesRejected(Reason.NO_MASK, f"the mask is unusable: {rejected.detail}") from None
    pixels = raster.pixels if raster.pixels.ndim == 2 else raster.pixels.max(axis=2)
    mask = pixels > (127 if content.startswith(JPEG) else 0)
    if raster.opacity is not None:
        mask &= raster.opacity > 0
    if raster.orientation == 1 and picture.orientation != 1:
        mask = _turned_like(picture, mask)
    if not _fits(mask, picture):
        sizes = " and ".join(f"{columns}×{rows}" for rows, columns in (mask.shape, picture.grey.shape))
        raise SeriesRejected(Reason.NO_MASK, f"mask and image differ in shape: {sizes}")
    return mask


def _turned_like(picture: Picture, mask: np.ndarray) -> np.ndarray:
    """A mask without EXIF orientation for an image that was turned upright by its own.

    The mask may fit the pixels as stored or as seen. It is used if only one of these fits, or if both are equal;
    otherwise it is rejected, since a wrong guess would put the mask at another place.
    """
    upright = turned(mask, picture.orientation)
    as_stored, as_seen = _fits(upright, picture), _fits(mask, picture)
    if as_stored and as_seen and not np.array_equal(upright, mask):
        raise SeriesRejected(
            Reason.NO_MASK,
            "the image is turned upright by its EXIF orientation, and nothing says whether its mask has to be: "
            "save both upright and without orientation",
        )
    if not as_stored:
        return mask
    if not as_seen:
        picture.notes.append("its mask was turned with it")
    return upright


def _fits(mask: np.ndarray, picture: Picture) -> bool:
    """Whether the sides are in the same ratio. Published masks may be smaller: JSRT has 1024² for images of 2048²."""
    rows, columns = picture.grey.shape
    result: bool = abs(mask.shape[0] * columns / (mask.shape[1] * rows) - 1) <= SAME_SHAPE
    return result
