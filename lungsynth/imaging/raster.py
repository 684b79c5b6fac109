"""PNG, JPEG and TIFF to pixels at the depth that they have: Pillow reads 8 bit and less, and drops the rest of more."""

from io import BytesIO
from typing import NamedTuple

import imagecodecs
import numpy as np
from PIL import ExifTags, Image, ImageOps

from lungsynth.errors import first_line
from lungsynth.imaging.rejection import Reason, SeriesRejected

FORMATS = ("PNG", "JPEG", "TIFF")
"""What Pillow may open; each decoder more is one more for hostile files."""
MAX_PIXELS = 64_000_000
"""Pixels of an image; the largest chest detectors have 18 million. A file of a few kB can claim billions."""
PNG, TIFF = b"\x89PNG\r\n\x1a\n", (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
"""How files of these kinds start; the last two are BigTIFF."""
TRANSPARENT = "transparent pixels were laid on black"


class Raster(NamedTuple):
    """A picture as its file has it, upright: `pixels` Y×X, or Y×X×3 where it has colours.

    `deep` pixels have more than 8 bit, or no bounds; others are uint8. `opacity` (float32, 0 to 1, Y×X) is none where
    all is opaque or lies on black already. `orientation` is the EXIF orientation by which it was turned upright.
    """

    pixels: np.ndarray
    opacity: np.ndarray | None
    deep: bool
    orientation: int


def open_raster(content: bytes, notes: list[str]) -> Raster:
    """The first picture of a file.

    Raises:
        SeriesRejected: it is none of the kinds, is damaged, or claims too many pixels.
    """
    try:
        if content.startswith(TIFF):
            from lungsynth.imaging.tiff import read_tiff  # more than other files need

            if (raster := read_tiff(content, notes)) is not None:
                return raster
        return _by_pillow(content, notes)
    except SeriesRejected:
        raise
    except Image.UnidentifiedImageError:
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
    """The image without palette or alpha; where it is transparent, black, as the field around a radiograph is."""
    keyed = "transparency" in image.info and image.mode in ("1", "L", "RGB")
    if not keyed and image.mode not in ("P", "PA", "LA", "La", "RGBA", "RGBa"):
        return image
    image = image.convert("RGBA")
    if image.getchannel("A").getextrema() == (255, 255):
        return image.convert("RGB")
    notes.append(TRANSPARENT)
    return Image.alpha_composite(Image.new("RGBA", image.size, "black"), image).convert("RGB")


def check_size(width: int, height: int) -> None:
    """Reject what claims no pixels or more than `MAX_PIXELS`, before any of it is decoded."""
    if not 0 < width * height <= MAX_PIXELS:
        raise SeriesRejected(Reason.UNREADABLE, f"claims {width}×{height} pixels")


def say_pages(pages: int, notes: list[str]) -> None:
    """Note that a file has more pages than the one that is read."""
    if pages > 1:
        notes.append(f"the first of {pages} pages or frames")


def say_turned(orientation: object, notes: list[str]) -> int:
    """The EXIF orientation, 1 to 8, noted where it turns the picture; 1 where it makes no sense."""
    if not isinstance(orientation, int) or not 2 <= orientation <= 8:
        return 1
    notes.append("turned upright by its EXIF orientation")
    return int(orientation)


def turned(image: np.ndarray, orientation: int) -> np.ndarray:
    """An image (Y×X or Y×X×…) upright that is stored in this EXIF orientation."""
    if orientation >= 5:
        image = np.swapaxes(image, 0, 1)
    down, across = (orientation in (3, 4, 7, 8)), (orientation in (2, 3, 6, 7))
    return image[:: -1 if down else 1, :: -1 if across else 1]


def flat(pixels: np.ndarray) -> np.ndarray:
    """Y×X×1 as Y×X; colours as they are."""
    return pixels[..., 0] if pixels.shape[2] == 1 else pixels


def opacity_of(alpha: np.ndarray | None, notes: list[str]) -> np.ndarray | None:
    """A deep alpha channel as a share of its own greatest value, as writers of 12-bit files may mean 4095 by opaque."""
    if alpha is None or alpha.min() == alpha.max() != 0:
        return None
    notes.append(TRANSPARENT)
    return (alpha / max(float(alpha.max()), 1e-6)).clip(0, 1).astype(np.float32)
