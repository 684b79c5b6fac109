"""PNG, JPEG and TIFF to pixels at the depth that they have: Pillow reads 8 bit and less, and drops the rest of more."""

from io import BytesIO

import imagecodecs
import numpy as np
from PIL import ExifTags, Image, ImageOps, UnidentifiedImageError

from lungsynth.dataset.rejection import Reason, SeriesRejected
from lungsynth.errors import first_line
from lungsynth.radiographs.raster import (
    TRANSPARENT,
    Raster,
    check_size,
    flat,
    opacity_of,
    say_pages,
    say_turned,
    turned,
)
from lungsynth.radiographs.tiff import read_tiff

FORMATS = ("PNG", "JPEG", "TIFF")
"""Formats that Pillow may open. Others stay closed, since each decoder is a target for hostile files."""
PNG, TIFF = b"\x89PNG\r\n\x1a\n", (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
"""First bytes of PNG and TIFF files; the last two are BigTIFF."""


def open_raster(content: bytes, notes: list[str]) -> Raster:
    """The first picture of a file.

    Raises:
        SeriesRejected: it is of another format, is damaged, or claims too many pixels.
    """
    try:
        if content.startswith(TIFF) and (raster := read_tiff(content, notes)) is not None:
            return raster
        return _by_pillow(content, notes)
    except SeriesRejected:
        raise
    except UnidentifiedImageError:
        detail = "neither PNG, JPEG, TIFF nor DICOM" if content else "empty"
    except Exception as error:  # on damaged files decoders raise whatever comes
        detail = f"damaged: {first_line(error)}"
    raise SeriesRejected(Reason.UNREADABLE, detail)


def _by_pillow(content: bytes, notes: list[str]) -> Raster:
    image = Image.open(BytesIO(content), formats=FORMATS)
    check_size(image.width, image.height)
    say_pages(getattr(image, "n_frames", 1), notes)
    orientation = say_turned(image.getexif().get(ExifTags.Base.Orientation, 1), notes)
    if content.startswith(PNG) and content[24] == 16:
        pixels = np.atleast_3d(turned(imagecodecs.png_decode(content), orientation))
        colours = 3 if pixels.shape[2] > 2 else 1
        alpha = pixels[..., colours] if pixels.shape[2] > colours else None
        return Raster(flat(pixels[..., :colours]), opacity_of(alpha, notes), True, orientation)
    upright = _on_black(ImageOps.exif_transpose(image), notes)
    if upright.mode.startswith(("I", "F")):
        return Raster(np.asarray(upright), None, True, orientation)
    return Raster(np.asarray(upright.convert("L" if upright.mode in ("1", "L") else "RGB")), None, False, orientation)


def _on_black(image: Image.Image, notes: list[str]) -> Image.Image:
    """The image without palette or alpha; transparent parts become black, like the field around a radiograph."""
    keyed = "transparency" in image.info and image.mode in ("1", "L", "RGB")
    if not keyed and image.mode not in ("P", "PA", "LA", "La", "RGBA", "RGBa"):
        return image
    image = image.convert("RGBA")
    if image.getchannel("A").getextrema() == (255, 255):
        return image.convert("RGB")
    notes.append(TRANSPARENT)
    return Image.alpha_composite(Image.new("RGBA", image.size, "black"), image).convert("RGB")
