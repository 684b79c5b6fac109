"""TIFF files that Pillow reads wrongly or not at all: with more than 8 bit, signed values, floats or deep palettes.

Numbers of tags and of their values are those of TIFF 6.0.
"""

import logging
from io import BytesIO

import numpy as np
from tifffile import TiffFile, TiffPage

from lungsynth.dataset.rejection import Reason, SeriesRejected
from lungsynth.radiographs.raster import MAX_PIXELS, Raster, check_size, flat, opacity_of, say_pages, say_turned, turned

COMPRESSIONS = {1: "none", 5: "LZW", 8: "Deflate", 32946: "Deflate", 32773: "PackBits", 50000: "Zstandard"}
"""Compressions that are decoded: their decoders fill a buffer of known size."""
WHITE_IS_ZERO, BLACK_IS_ZERO, RGB, PALETTE, CMYK = 0, 1, 2, 3, 5
COLOURS = {WHITE_IS_ZERO: 1, BLACK_IS_ZERO: 1, RGB: 3, PALETTE: 1, CMYK: 4}
"""Photometric interpretations, with their samples per pixel."""
UNSIGNED = 1
ASSOCIATED, UNASSOCIATED = 1, 2
"""Kinds of alpha: colours are multiplied by it already, or not."""
ORIENTATION = 274


def read_tiff(content: bytes, notes: list[str]) -> Raster | None:
    """The first page; none if Pillow reads the file correctly, or gives a better reason for rejecting it.

    Raises:
        SeriesRejected: it is of a kind that is not read, is cut short, or claims too many pixels.
        Exception: nearly any, where it is damaged.
    """
    logging.getLogger("tifffile").disabled = True  # its log shows paths, which may name patients
    with TiffFile(BytesIO(content)) as file:
        page = file.pages.first
        assert isinstance(page, TiffPage)
        if not _needs_care(page):
            return None
        _check(page, len(content))
        say_pages(len(file.pages), notes)
        orientation = say_turned(page.tags.valueof(ORIENTATION), notes)
        pixels = np.asarray(page.asarray())
    samples = page.samplesperpixel
    shape = page.imagelength, page.imagewidth
    pixels = np.moveaxis(pixels.reshape(samples, *shape), 0, 2) if page.planarconfig == 2 else pixels
    return _raster(page, turned(pixels.reshape(*shape, samples), orientation), orientation, notes=notes)


def _needs_care(page: TiffPage) -> bool:
    deep_palette = page.photometric == PALETTE and page.colormap is not None and not _of_8_bits(page.colormap)
    return page.bitspersample > 8 or page.sampleformat != UNSIGNED or deep_palette


def _of_8_bits(colormap: np.ndarray) -> bool:
    """Whether a colour map holds colours of 8 bit in the upper half of its entries, which have 16 bit by the standard.

    Some files have 8 bit in the lower half, and images of 12 or 14 bit have maps of 12 or 14 bit.
    """
    scaled_up = not (colormap % 256).any() or not (colormap % 257).any()
    return bool(colormap.max() >= 1 << 14 or (scaled_up and colormap.max() > 255))


def _check(page: TiffPage, size: int) -> None:
    check_size(page.imagewidth, page.imagelength)
    tile = page.tilewidth * page.tilelength * page.tiledepth if page.is_tiled else 0
    if page.imagedepth != 1 or max(tile * page.samplesperpixel, page.nbytes // 16) > MAX_PIXELS:
        detail = f"a TIFF of {page.imagedepth} planes and {page.nbytes // 1_000_000} MB"
        raise SeriesRejected(Reason.UNREADABLE, detail)
    if page.photometric not in COLOURS:
        raise SeriesRejected(Reason.UNREADABLE, f"a deep TIFF of photometric interpretation {int(page.photometric)}")
    if page.compression not in COMPRESSIONS:
        known = ", ".join(dict.fromkeys(COMPRESSIONS.values()))
        detail = f"a deep TIFF of compression {int(page.compression)}: save it with one of {known}"
        raise SeriesRejected(Reason.UNREADABLE, detail)
    if page.dtype is None or page.dtype.kind not in "buif":
        raise SeriesRejected(Reason.UNREADABLE, "a TIFF of pixels that are no real numbers")
    parts = list(zip(page.dataoffsets, page.databytecounts, strict=True))
    if len(parts) < int(np.prod(page.chunked)) or any(not n or at + n > size for at, n in parts):
        raise SeriesRejected(Reason.UNREADABLE, "damaged: a TIFF that is cut short")


def _raster(page: TiffPage, pixels: np.ndarray, orientation: int, *, notes: list[str]) -> Raster:
    """`pixels` are Y×X×samples."""
    count = COLOURS[page.photometric]
    if pixels.shape[2] < count:
        raise SeriesRejected(Reason.UNREADABLE, f"damaged: {pixels.shape[2]} of {count} samples")
    colours = pixels[..., :count]
    extra = int(page.extrasamples[0]) if page.extrasamples else 0
    has_alpha = pixels.shape[2] > count and extra in (ASSOCIATED, UNASSOCIATED)
    opacity = opacity_of(pixels[..., count] if has_alpha else None, notes)
    if opacity is not None and extra == ASSOCIATED:
        colours = colours / np.maximum(opacity, 1e-6)[..., None]
    deep = True
    if page.photometric == PALETTE:
        colours, deep = _coloured(page, colours[..., 0])
    elif page.photometric == CMYK:
        top = float(np.iinfo(pixels.dtype).max) if pixels.dtype.kind in "ui" else 1.0
        colours = (1 - colours[..., :3] / top) * (1 - colours[..., 3:] / top) * top
    elif page.photometric == WHITE_IS_ZERO:
        colours = colours.max() - (colours.astype(np.int64) if colours.dtype.kind in "ui" else colours)
    return Raster(flat(colours), opacity, deep, orientation)


def _coloured(page: TiffPage, indices: np.ndarray) -> tuple[np.ndarray, bool]:
    """The colours of a palette, Y×X×3, and whether they have more than 8 bit."""
    colormap = page.colormap
    if colormap is None or int(indices.max()) >= colormap.shape[1]:
        raise SeriesRejected(Reason.UNREADABLE, "damaged: a palette without all of its colours")
    colours = np.moveaxis(colormap[:, indices], 0, 2)
    if _of_8_bits(colormap):
        return (colours >> 8).astype(np.uint8), False
    return (colours.astype(np.uint8), False) if colormap.max() <= 255 else (colours, True)
