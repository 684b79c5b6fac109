"""Bit depth × colour × format: the grey values of files whose every byte is known."""

import hashlib
import re
import struct
from pathlib import Path

import numpy as np
import pytest
from radiograph_files import chest
from raster_files import PALETTE, chunk, packed, png, tiff

from lungsynth.cohort.cohort import picture_uid
from lungsynth.dataset.rejection import Reason, SeriesRejected
from lungsynth.radiographs.grey import LUMA, PERCENTILES, Picture
from lungsynth.radiographs.read_picture import read_picture

ROWS, COLUMNS = 21, 13
WHITE_IS_ZERO, BLACK_IS_ZERO, RGB, CMYK = 0, 1, 2, 5
ALPHA = 2


def samples(bits: int, count: int, dtype: str = "u8") -> np.ndarray:
    """Y×X×S of values of all these bits."""
    top = (1 << bits) - 1
    return np.random.default_rng(bits * 10 + count).integers(0, top + 1, (ROWS, COLUMNS, count)).astype(dtype)


def read(tmp_path: Path, content: bytes) -> Picture:
    (tmp_path / "a").write_bytes(content)
    return read_picture(tmp_path / "a", picture_uid(hashlib.sha256(content).hexdigest()))


def shown(values: np.ndarray, counted: np.ndarray | None = None) -> np.ndarray:
    """Deep values by percentiles."""
    low, high = np.percentile(values if counted is None else values[counted], PERCENTILES)
    return ((values - low) / (high - low) * 255).clip(0, 255)


def close(picture: Picture, expected: np.ndarray, within: float = 0.01) -> bool:
    assert picture.grey.shape == expected.shape
    return bool(np.abs(picture.grey - expected).max() <= within)


@pytest.mark.parametrize("interlaced", [False, True])
@pytest.mark.parametrize("bits", [1, 2, 4, 8, 16])
def test_png_grey(tmp_path, bits, interlaced):
    values = samples(bits, 1)
    picture = read(tmp_path, png(values, bits, interlaced=interlaced))
    grey = values[..., 0].astype(float)
    assert close(picture, grey * 255 / (2**bits - 1) if bits <= 8 else shown(grey))
    assert len(picture.notes) == (bits > 8)


@pytest.mark.parametrize("top", [4095, 16383, 65535])
@pytest.mark.parametrize("count", [1, 2, 3, 4])
def test_png_of_16_bit_keeps_them_in_every_colour(tmp_path, count, top):
    """12 bit in 16, grey stored as colour among it; opaque by 65535 or by the 12 bits' own greatest value."""
    grey = (chest(40, 30).astype(float) * (top / 255)).round().astype(np.uint64)
    colours = [grey] * (3 if count > 2 else 1)
    for opaque in (65535, top):
        stored = np.stack(colours + [np.full_like(grey, opaque)] * (count in (2, 4)), axis=2)
        picture = read(tmp_path, png(stored, 16))
        assert close(picture, shown(grey))
        assert np.ptp(picture.grey) == 255
        assert len(picture.notes) == 1
        assert "became 0 to 255" in picture.notes[0]


@pytest.mark.parametrize("kind", ["png", "tiff"])
def test_deep_colours_become_grey_by_their_luminance(tmp_path, kind):
    values = samples(12, 3)
    picture = read(tmp_path, png(values, 16) if kind == "png" else tiff(values.astype("u2"), 16, RGB))
    assert close(picture, shown(values @ np.array(LUMA)))
    assert picture.notes[0] == "colours became grey"


@pytest.mark.parametrize("kind", ["png", "tiff", "premultiplied"])
@pytest.mark.parametrize("count", [2, 4])
def test_deep_transparency_is_laid_on_black_and_sets_no_scale(tmp_path, kind, count):
    values = np.repeat(1000 + samples(11, 1), count, axis=2)
    values[..., -1] = 65535
    values[:5, ..., :-1], values[:5, ..., -1] = 65000, 0  # what nobody sees may be anything
    values[5:7, ..., -1] = 32768
    grey, opacity = values[..., 0].astype(float), values[..., -1] / 65535
    if kind == "premultiplied":
        values[..., :-1] = (values[..., :-1] * opacity[..., None]).round()
    photometric = BLACK_IS_ZERO if count == 2 else RGB
    content = (
        png(values, 16)
        if kind == "png"
        else tiff(values.astype("u2"), 16, photometric, extra=(1 if kind == "premultiplied" else ALPHA,))
    )
    picture = read(tmp_path, content)
    assert close(picture, shown(grey, opacity > 0) * opacity, within=0.2)
    assert (picture.grey[:5] == 0).all()
    assert picture.notes[0] == "transparent pixels were laid on black"


def test_png_palette_and_transparent_values(tmp_path):
    colours = np.random.default_rng(0).integers(0, 256, (16, 1)).repeat(3, 1).astype(np.uint8)  # of grey
    indices = samples(4, 1)
    plte = chunk(b"PLTE", colours.tobytes())
    assert close(read(tmp_path, png(indices, 4, PALETTE, plte)), colours[indices[..., 0], 0].astype(float))
    hidden = read(tmp_path, png(indices, 4, PALETTE, plte, chunk(b"tRNS", b"\xff" * 15 + b"\0")))
    assert close(hidden, np.where(indices[..., 0] == 15, 0, colours[indices[..., 0], 0]).astype(float))
    deep = 1 + samples(12, 1)
    deep[0, 0] = 60000
    keyed = read(tmp_path, png(deep, 16, None, chunk(b"tRNS", struct.pack(">H", 60000))))
    counted = deep[..., 0] < 60000
    assert close(keyed, np.where(counted, shown(deep[..., 0].astype(float), counted), 0))


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("photometric", [WHITE_IS_ZERO, BLACK_IS_ZERO])
@pytest.mark.parametrize(
    ("bits", "dtype", "sample_format"),
    [
        *((bits, "u8", 1) for bits in (1, 2, 4, 8, 12)),
        *((bits, f"u{bits // 8}", 1) for bits in (16, 32)),
        *((bits, f"i{bits // 8}", 2) for bits in (8, 16, 32)),
        *((bits, f"f{bits // 8}", 3) for bits in (16, 32, 64)),
    ],
)
def test_tiff_grey_of_every_depth_either_way_round(tmp_path, bits, dtype, sample_format, photometric, order):
    depth = min(bits, 12) if sample_format == 1 else 7 if bits == 8 else 11
    values = samples(depth, 1).astype(dtype)
    if sample_format > 1:
        values = values - np.array(40, dtype)  # below zero too
    if sample_format == 3:
        values = values / np.array(64, dtype)
    if bits == 8 and sample_format == 1:
        values = values.astype("u1")
    picture = read(tmp_path, tiff(values, bits, photometric, sample_format, order=order))
    grey = values[..., 0].astype(float)
    shallow = bits <= 8 and sample_format == 1
    expected = grey * 255 / (2**bits - 1) if shallow else shown(grey)
    assert close(picture, 255 - expected if photometric == WHITE_IS_ZERO else expected)
    assert len(picture.notes) == (not shallow)


@pytest.mark.parametrize(
    "options", [{"planar": True}, {"deflate": True}, {"order": ">"}, {"planar": True, "order": ">"}]
)
@pytest.mark.parametrize("bits", [8, 16])
def test_tiff_colours_however_they_lie(tmp_path, bits, options):
    values = samples(bits, 3).astype(f"u{bits // 8}")
    picture = read(tmp_path, tiff(values, bits, RGB, **options))
    grey = values @ np.array(LUMA)
    assert close(picture, grey if bits == 8 else shown(grey), within=1)


@pytest.mark.parametrize(
    ("scale", "deep"),
    [(257, False), (256, False), (1, False), (16, True), (63, True)],  # of 8 bit; of 8 in the lower half; of 12, 14
)
def test_tiff_palettes_of_8_and_16_bit(tmp_path, scale, deep):
    colours = np.random.default_rng(1).permutation(256).astype(np.uint16)
    indices = samples(8, 1).astype("u1")
    picture = read(tmp_path, tiff(indices, 8, PALETTE, colormap=np.tile(colours * scale, (3, 1))))
    grey = colours[indices[..., 0]].astype(float)
    assert close(picture, shown(grey) if deep else grey)


def test_tiff_palette_of_16_bit_indices(tmp_path):
    colours = (np.arange(65536) // 16).astype(np.uint16)  # 12 bit
    indices = samples(16, 1).astype("u2")
    picture = read(tmp_path, tiff(indices, 16, PALETTE, colormap=np.tile(colours, (3, 1))))
    assert close(picture, shown(colours[indices[..., 0]].astype(float)))


def test_deep_cmyk_is_seen_as_its_ink_leaves_it(tmp_path):
    values = samples(16, 4).astype("u2")
    values[..., 1], values[..., 2] = values[..., 0], values[..., 0]
    picture = read(tmp_path, tiff(values, 16, CMYK))
    seen = (1 - values[..., 0] / 65535) * (1 - values[..., 3] / 65535)
    assert close(picture, shown(seen), within=0.1)


@pytest.mark.parametrize("orientation", range(2, 9))
def test_deep_files_are_turned_upright_as_shallow_ones_are(tmp_path, orientation):
    shallow = samples(8, 1).astype("u1")
    deep = shallow.astype("u2") * 16
    exif = b"MM\0*" + struct.pack(">IHHHIHHI", 8, 1, 0x0112, 3, 1, orientation, 0, 0)
    pictures = [
        read(tmp_path, content)
        for content in (
            png(shallow, 8, None, chunk(b"eXIf", exif)),
            png(deep, 16, None, chunk(b"eXIf", exif)),
            tiff(shallow, 8, orientation=orientation),
            tiff(deep, 16, orientation=orientation),
        )
    ]
    for picture in pictures:
        assert picture.orientation == orientation
        assert "turned upright by its EXIF orientation" in picture.notes
    assert np.array_equal(pictures[0].grey, pictures[2].grey)
    assert np.array_equal(pictures[1].grey, pictures[3].grey)
    assert np.allclose(pictures[1].grey, shown(pictures[0].grey), atol=0.01)


GOLDEN = {
    "grey.png": ("019e27d0a3737cc9", lambda: png(samples(8, 1), 8)),
    "rgb.png": ("78d30b5b60a4f9b6", lambda: png(samples(8, 3), 8)),
    "rgba.png": ("93e2da69b17a2ad2", lambda: png(samples(8, 4), 8)),
    "deep.png": ("7355d715d3f850fc", lambda: png(samples(12, 1), 16)),
    "grey.tif": ("019e27d0a3737cc9", lambda: tiff(samples(8, 1).astype("u1"), 8)),
    "white.tif": ("4409bf2ecf41c9e7", lambda: tiff(samples(8, 1).astype("u1"), 8, WHITE_IS_ZERO)),
    "rgb.tif": ("78d30b5b60a4f9b6", lambda: tiff(samples(8, 3).astype("u1"), 8, RGB)),
    "cmyk.tif": ("0f9367f77d4274df", lambda: tiff(samples(8, 4).astype("u1"), 8, CMYK)),
    "float.tif": ("5c6a1510ca82109f", lambda: tiff((samples(12, 1) / 7).astype("f4"), 32, sample_format=3)),
}


@pytest.mark.parametrize("name", GOLDEN)
def test_values_are_to_the_bit_what_they_were(tmp_path, name):
    """The hashes were taken when Pillow read all of these."""
    expected, make = GOLDEN[name]
    grey = read(tmp_path, make()).grey
    assert grey.dtype == np.float32
    assert hashlib.sha256(grey.tobytes()).hexdigest()[:16] == expected


DEEP_TIFF = tiff(samples(12, 1).astype("u2"), 16)


def patched(content: bytes, tag: int, value: int) -> bytes:
    """A little endian TIFF in which a tag of one value has another."""
    at = content.index(struct.pack("<HHI", tag, 3, 1) if tag in (259, 262, 277) else struct.pack("<HHI", tag, 4, 1))
    return content[: at + 8] + struct.pack("<I", value) + content[at + 12 :]


@pytest.mark.parametrize(
    ("content", "detail"),
    [
        (patched(patched(DEEP_TIFF, 256, 60_000), 257, 60_000), "claims 60000×60000 pixels"),
        (patched(DEEP_TIFF, 257, 4000), "damaged|cut short"),
        (patched(DEEP_TIFF, 273, 10_000), "cut short"),
        (patched(DEEP_TIFF, 279, 100_000), "cut short"),
        (patched(DEEP_TIFF, 259, 7), "compression 7: save it with one of none, LZW, Deflate"),
        (patched(DEEP_TIFF, 262, 8), "photometric interpretation 8"),
        (tiff(samples(16, 2).astype("u2"), 16, sample_format=5), "damaged|no real numbers"),
        (DEEP_TIFF[:300], "damaged|neither|cut short"),
        (tiff(np.full((4, 4, 1), np.inf, "f4"), 32, sample_format=3), "not finite"),
        (tiff(samples(16, 1).astype("u2"), 16, PALETTE, colormap=np.zeros((3, 65536), "u2")), "blank"),
        (png(samples(16, 4), 16)[:-30], "damaged"),
        (png(np.full((4, 4, 2), 0), 16), "blank"),
        (b"II*\0" + bytes(60), "damaged|neither"),
        (b"\x08\0\x05\0" + bytes(60), "neither PNG, JPEG, TIFF nor DICOM"),
    ],
)
def test_deep_files_that_are_damaged_or_claim_too_much_are_rejected(tmp_path, content, detail):
    with pytest.raises(SeriesRejected) as caught:
        read(tmp_path, content)
    assert caught.value.reason is Reason.UNREADABLE
    assert re.search(detail, caught.value.detail)
    assert "\n" not in caught.value.detail


@pytest.mark.parametrize(
    "whole", [DEEP_TIFF, tiff(samples(12, 3).astype("u2"), 16, RGB, deflate=True), png(samples(12, 4), 16)]
)
def test_deep_files_with_noise_in_their_bytes_are_read_or_rejected(tmp_path, whole):
    rng = np.random.default_rng(0)
    rejected = 0
    for trial in range(60):
        content = bytearray(whole)
        if trial % 2:
            content = content[: rng.integers(len(whole))]
        else:
            for place in rng.integers(len(whole), size=4):
                content[place] = rng.integers(256)
        try:
            read(tmp_path, bytes(content))
        except SeriesRejected:
            rejected += 1
    assert rejected >= 20


def test_bits_are_packed_as_the_formats_have_them():
    assert packed(np.array([[0xABC, 0x123]]), 12) == b"\xab\xc1\x23"
    assert packed(np.array([[1, 0, 1]]), 1) == b"\xa0"
