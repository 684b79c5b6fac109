"""Image files of every kind, and damaged ones; all pictures here are synthetic."""

import re
import struct
import zlib

import numpy as np
import pytest
from PIL import Image
from radiograph_files import CLASSES, DEEP, WHOLE, chest, cut, dicom, difference, encoded, lungs, picture_job, rejection

from lungsynth.cohort.cohort import picture_uid
from lungsynth.dataset.rejection import Reason, SeriesRejected
from lungsynth.slicing.radiographs import slices_of_image


@pytest.mark.parametrize(
    ("mode", "name"),
    [
        ("L", "a.jpg"),
        ("L", "a.tif"),
        ("LA", "a.png"),
        ("P", "a.png"),
        ("PA", "a.png"),
        ("RGB", "a.png"),
        ("RGB", "a.jpg"),
        ("RGBA", "a.tif"),
        ("CMYK", "a.jpg"),
        ("CMYK", "a.tif"),
        ("YCbCr", "a.tif"),
    ],
)
def test_every_mode_of_8_bits_gives_the_same_grey(tmp_path, plain, mode, name):
    grey = Image.fromarray(chest())
    if mode == "PA":
        picture = grey.convert("P")
        picture.info["transparency"] = 255  # a value that the chest has not
    else:
        picture = grey.convert("RGB").convert(mode) if mode in ("CMYK", "YCbCr") else grey.convert(mode)
    picture.save(tmp_path / name, quality=97) if name.endswith("jpg") else picture.save(tmp_path / name)
    slices = cut(tmp_path / name)
    assert difference(slices, plain) < 2
    assert slices.notes == ()


def test_colours_become_grey_with_a_note(tmp_path, plain):
    rgb = np.stack([chest()] * 3, 2)
    rgb[:10, :10] = (255, 0, 0)
    Image.fromarray(rgb).save(tmp_path / "a.png")
    slices = cut(tmp_path / "a.png")
    assert slices.notes == ("colours became grey",)
    assert slices.images[0, 1, 8] == 76  # red by BT.601


def test_one_bit_is_black_and_white(tmp_path):
    Image.fromarray(lungs()).save(tmp_path / "a.tif", compression="group4")
    (image,) = cut(tmp_path / "a.tif").images
    assert {0, 255} <= set(np.unique(image))


def test_what_transparency_hides_stays_hidden(tmp_path):
    alpha = np.full((160, 128), 255, np.uint8)
    alpha[:40] = 0
    Image.merge("LA", (Image.fromarray(chest()), Image.fromarray(alpha))).save(tmp_path / "a.png")
    slices = cut(tmp_path / "a.png")
    assert (slices.images[0, :15] == 0).all()
    assert slices.notes == ("transparent pixels were laid on black",)


@pytest.mark.parametrize("name", ["a.png", "a.tif"])
def test_12_bits_in_16_fill_the_range_whatever_a_marker_says(tmp_path, plain, name):
    deep = chest().astype(np.uint16) * 16
    deep[0, 0] = 65535
    Image.fromarray(deep).save(tmp_path / name)
    slices = cut(tmp_path / name)
    low, high = np.percentile(deep, (0.5, 99.5)) / 16
    expected = np.clip((chest() - low) * 255 / (high - low), 0, 255).astype(np.uint8)
    Image.fromarray(expected).save(tmp_path / "expected.png")
    assert difference(slices, cut(tmp_path / "expected.png").images[0]) < 1
    assert "became 0 to 255" in slices.notes[0]


def test_deep_tiffs_of_other_kinds_are_scaled_alike(tmp_path):
    kinds = {"big.tif": ">u2", "long.tif": "<i4", "float.tif": "<f4"}
    for name, kind in kinds.items():
        picture = Image.fromarray(chest().astype(np.uint16) * 16) if name == "big.tif" else None
        if picture is None:
            picture = Image.fromarray((chest().astype(np.int32) * 16).astype(kind))
        picture.save(tmp_path / name)
    slices = [cut(tmp_path / name).images for name in kinds]
    np.testing.assert_array_equal(slices[0], slices[1])
    np.testing.assert_array_equal(slices[0], slices[2])


@pytest.mark.parametrize("name", ["a.jpg", "a.png", "a.tif"])
@pytest.mark.parametrize("orientation", range(2, 9))
def test_exif_orientation_is_undone(tmp_path, plain, name, orientation):
    undone = {2: 0, 3: 3, 4: 1, 5: 5, 6: 2, 7: 6, 8: 4}  # Pillow's transposition that the camera would have applied
    stored = Image.fromarray(chest()).transpose(Image.Transpose(undone[orientation]))
    exif = Image.Exif()
    exif[0x0112] = orientation
    stored.save(tmp_path / name, exif=exif, **({"quality": 97} if name == "a.jpg" else {}))
    slices = cut(tmp_path / name)
    assert difference(slices, plain) < 2
    assert slices.notes == ("turned upright by its EXIF orientation",)


@pytest.mark.parametrize("name", ["a.tif", "a.png"])
def test_the_first_page_or_frame_is_taken_with_a_note(tmp_path, plain, name):
    first, other = Image.fromarray(chest()), Image.fromarray(255 - chest())
    first.save(tmp_path / name, save_all=True, append_images=[other, other])
    slices = cut(tmp_path / name)
    assert difference(slices, plain) == 0
    assert slices.notes == ("the first of 3 pages or frames",)


def png(rows: int, columns: int) -> bytes:
    """A PNG of a few bytes that claims to have so many pixels."""
    chunks = [(b"IHDR", struct.pack(">IIBBBBB", columns, rows, 8, 0, 0, 0, 0)), (b"IDAT", zlib.compress(b"\0" * 99))]
    parts = [
        struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
        for kind, body in [*chunks, (b"IEND", b"")]
    ]
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


@pytest.mark.parametrize(
    ("content", "detail"),
    [
        (b"", "empty"),
        (b"PatientName,label\n", "neither PNG, JPEG, TIFF nor DICOM"),
        (encoded("GIF"), "neither PNG, JPEG, TIFF nor DICOM"),
        (encoded("PNG")[:2000], "damaged"),
        (encoded("JPEG")[:-500], "damaged"),
        (encoded("TIFF")[:9000], "neither|damaged"),
        (encoded("PNG")[:300] + b"\xff" * 40 + encoded("PNG")[340:], "damaged"),
        (png(160, 128), "damaged"),
        (png(60_000, 60_000), "exceeds limit"),
        (png(9_000, 9_000), "claims 9000×9000 pixels"),
        (encoded("PNG", np.full((40, 40), 7, np.uint8)), "blank"),
        (encoded("TIFF", np.array([[np.nan, 1], [2, 3]], np.float32)), "not finite"),
    ],
)
def test_damaged_files_are_rejected(tmp_path, content, detail):
    (tmp_path / "a.png").write_bytes(content)
    rejected = rejection(tmp_path / "a.png")
    assert rejected.reason == Reason.UNREADABLE
    assert re.search(detail, rejected.detail)


def test_a_file_that_changed_or_went_away_is_rejected(tmp_path):
    path = tmp_path / "a.png"
    Image.fromarray(chest()).save(path)
    assert "has changed" in rejection(path, series_uid=picture_uid("0" * 64)).detail
    path.rename(tmp_path / "b.png")
    with pytest.raises(SeriesRejected, match="cannot be opened: No such file"):
        slices_of_image(picture_job(path, "image-0"), WHOLE, CLASSES)


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "TIFF", "DICOM"])
def test_whatever_is_cut_off_or_flipped_is_read_or_rejected(tmp_path, kind):
    path = tmp_path / "a"
    whole = dicom(path, DEEP).read_bytes() if kind == "DICOM" else encoded(kind)
    rng = np.random.default_rng(0)
    rejected = 0
    for trial in range(60):
        content = bytearray(whole)
        if trial % 2:
            content = content[: rng.integers(len(whole))]
        else:
            for place in rng.integers(min(len(whole), 1500), size=4):
                content[place] = rng.integers(256)
        path.write_bytes(content)
        try:
            assert cut(path).images.shape == (1, 64, 64)
        except SeriesRejected:
            rejected += 1
    assert rejected >= 20
