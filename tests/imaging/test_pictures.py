"""Radiographs in every form that files come in; all pictures here are synthetic."""

import io
import re
import struct
import zlib
from dataclasses import replace
from pathlib import Path

import imagecodecs
import numpy as np
import pandas as pd
import pydicom
import pytest
from PIL import Image
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.encaps import encapsulate
from pydicom.uid import (
    ExplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGLosslessSV1,
    JPEGLSLossless,
    RLELossless,
    generate_uid,
)

from lungsynth.cohort.cohort import no_slice_labels
from lungsynth.cohort.pictures import PictureCohortConfig, select_pictures
from lungsynth.cohort.splits import SplitConfig
from lungsynth.errors import LungsynthError
from lungsynth.hashing import file_sha256
from lungsynth.imaging.lungs.unet import lungs_of_picture
from lungsynth.imaging.lungs.unet_training import LungTrainingConfig, train_unet
from lungsynth.imaging.pictures import slices_of_image
from lungsynth.imaging.read_picture import picture_uid
from lungsynth.imaging.rejection import Reason, SeriesRejected
from lungsynth.imaging.slices import SeriesJob, SeriesSlices, SliceConfig

CLASSES = ("NORMAL", "PNEUMONIA")
WHOLE = SliceConfig(size=64, view="whole")
DX, SECONDARY_CAPTURE = "1.2.840.10008.5.1.4.1.1.1.1", "1.2.840.10008.5.1.4.1.1.7"


def chest(rows: int = 160, columns: int = 128) -> np.ndarray:
    """A synthetic radiograph, uint8 Y×X, that no rotation or flip leaves alone: two lungs, a heart, a bright marker."""
    y, x = np.mgrid[:rows, :columns] / [[[rows]], [[columns]]]
    body = 150 + 60 * y
    for centre, width in ((0.3, 0.13), (0.72, 0.16)):
        body -= 100 * np.exp(-(((x - centre) / width) ** 2) - ((y - 0.45) / 0.3) ** 2)
    body += 40 * np.exp(-(((x - 0.6) / 0.12) ** 2) - ((y - 0.62) / 0.12) ** 2)
    body[rows // 16 : rows // 8, columns // 16 : columns // 8] = 250
    return body.clip(0, 255).astype(np.uint8)


def lungs(rows: int = 160, columns: int = 128) -> np.ndarray:
    y, x = np.mgrid[:rows, :columns] / [[[rows]], [[columns]]]
    found = [((x - centre) / width) ** 2 + ((y - 0.45) / 0.3) ** 2 < 1 for centre, width in ((0.3, 0.13), (0.72, 0.16))]
    return found[0] | found[1]


def cut(path: Path, config: SliceConfig = WHOLE, **fields: object) -> SeriesSlices:
    """What becomes of one image file."""
    job = SeriesJob(
        series_uid=picture_uid(file_sha256(path)),
        patient_key="P-1",
        label="NORMAL",
        evidence="folder",
        split="train",
        manufacturer="",
        folder=path,
        lesion_folders=(),
        lung_folders=(),
        mask_file=None,
        slice_labels=no_slice_labels(),
    )
    return slices_of_image(replace(job, **fields), config, CLASSES)


def rejection(path: Path, config: SliceConfig = WHOLE, **fields: object) -> SeriesRejected:
    with pytest.raises(SeriesRejected) as caught:
        cut(path, config, **fields)
    assert str(path.parent) not in caught.value.detail
    assert "\n" not in caught.value.detail
    return caught.value


@pytest.fixture
def plain(tmp_path: Path) -> np.ndarray:
    """The slice that the chest gives as an 8-bit PNG."""
    Image.fromarray(chest()).save(tmp_path / "plain.png")
    return cut(tmp_path / "plain.png").images[0].astype(int)


def difference(slices: SeriesSlices, expected: np.ndarray) -> float:
    return float(np.abs(slices.images[0].astype(int) - expected).mean())


def test_whole_view_pads_to_a_square_with_black_and_averages(tmp_path):
    Image.fromarray(np.tile(np.array([[0, 200], [200, 0]], np.uint8), (128, 64))).save(tmp_path / "a.png")
    slices = cut(tmp_path / "a.png")
    (image,) = slices.images
    assert image.shape == (64, 64)
    assert image.dtype == np.uint8
    assert (image[:, :15] == 0).all()
    assert (image[:, 49:] == 0).all()
    assert (np.abs(image[:, 17:47].astype(int) - 100) <= 2).all()  # not antialiased it would be 0 or 200
    assert slices.masks is None
    row = slices.table.iloc[0]
    assert (row["label"], row["split"], row["patient"], row["evidence"]) == ("NORMAL", "train", "P-1", "folder")
    assert row[["position_mm", "spacing_mm", "pixel_mm", "thickness_mm", "lung_fraction"]].isna().all()
    assert slices.hu_histogram.sum() == 0


def test_larger_output_is_interpolated_without_overshoot(tmp_path):
    Image.fromarray(np.repeat(np.array([[50], [200]], np.uint8), 16, 0).repeat(32, 1)).save(tmp_path / "a.png")
    (image,) = cut(tmp_path / "a.png", WHOLE.model_copy(update={"size": 128})).images
    assert (image.min(), image.max()) == (50, 200)


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


def encoded(kind: str, picture: np.ndarray | None = None) -> bytes:
    content = io.BytesIO()
    Image.fromarray(chest() if picture is None else picture).save(content, kind)
    return content.getvalue()


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
        slices_of_image(SeriesJobOf(path), WHOLE, CLASSES)


def SeriesJobOf(path: Path) -> SeriesJob:  # noqa: N802
    return SeriesJob("image-0", "P-1", "NORMAL", "folder", "train", "", path, (), (), None, no_slice_labels())


def dicom(path: Path, stored: np.ndarray, **fields: object) -> Path:
    """A synthetic DX file with 12 of 16 bits stored; `fields` overrule, None removes."""
    meta = FileMetaDataset()
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset = Dataset()
    dataset.SOPClassUID, dataset.SOPInstanceUID, dataset.Modality = DX, generate_uid(), "DX"
    dataset.Rows, dataset.Columns, dataset.SamplesPerPixel = *stored.shape[:2], 1
    dataset.PhotometricInterpretation, dataset.PixelRepresentation = "MONOCHROME2", 0
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit = 16, 12, 11
    dataset.ImagerPixelSpacing = [0.2, 0.2]
    dataset.PixelData = stored.tobytes()
    for name, value in fields.items():
        if value is None:
            delattr(dataset, name)
        else:
            setattr(dataset, name, value)
    meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID = dataset.SOPClassUID, dataset.SOPInstanceUID
    dataset.file_meta = meta
    dataset.save_as(path, enforce_file_format=True)
    return path


DEEP = chest().astype(np.uint16) * 16  # 0 to 4080 of 4095


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"PhotometricInterpretation": "MONOCHROME1", "PixelData": (4080 - DEEP).tobytes()},
        {"WindowCenter": 2048, "WindowWidth": 4096},
        {"WindowCenter": [2040, 100], "WindowWidth": [4080, 50], "VOILUTFunction": "LINEAR_EXACT"},
        {"WindowCenter": -1000 + 1020, "WindowWidth": 2040, "RescaleSlope": 0.5, "RescaleIntercept": -1000},
        {"RescaleSlope": 2, "RescaleIntercept": -7, "RescaleType": "US"},
        {"PixelRepresentation": 1, "PixelData": (DEEP.astype(np.int16) - 2048).tobytes()},
        {"SOPClassUID": SECONDARY_CAPTURE, "BurnedInAnnotation": "NO", "Modality": "CR"},
    ],
)
def test_dicom_shows_its_window_or_all_stored_bits(tmp_path, plain, fields):
    slices = cut(dicom(tmp_path / "a.dcm", DEEP, **fields))
    assert difference(slices, plain) < 1
    row = slices.table.iloc[0]
    assert row["pixel_mm"] == 0.2
    assert row["spacing_mm"] == pytest.approx(0.2 * 160 / 64)
    assert row["sop_uid"] == pydicom.dcmread(tmp_path / "a.dcm").SOPInstanceUID


def test_dicom_window_clips_and_sigmoid_does_not(tmp_path):
    window = {"WindowCenter": 3000, "WindowWidth": 400}
    shown = cut(dicom(tmp_path / "a.dcm", DEEP, **window)).images[0][:, 8:56]
    assert {0, 255} <= set(np.unique(shown))
    soft = cut(dicom(tmp_path / "b.dcm", DEEP, **window, VOILUTFunction="SIGMOID")).images[0][:, 8:56].astype(int)
    steep = np.abs(shown.astype(int) - 128) < 20
    assert np.abs(soft - shown)[steep].max() < 20


def test_dicom_voi_lut_is_applied(tmp_path, plain):
    lut = Dataset()
    lut.LUTDescriptor, lut.LUTData = [4096, 0, 12], (4095 - np.arange(4096)).astype(np.uint16).tobytes()
    lut["LUTDescriptor"].VR, lut["LUTData"].VR = "US", "OW"
    slices = cut(dicom(tmp_path / "a.dcm", DEEP, VOILUTSequence=[lut], RescaleSlope=1, RescaleIntercept=0))
    assert difference(slices, np.where(plain > 0, 255 - plain, 0)) < 4  # but for the padding and its edge


def test_dicom_in_colour_of_several_frames_or_compressed_is_read(tmp_path, plain):
    rgb = np.stack([chest()] * 3, 2)
    colour = {"SamplesPerPixel": 3, "PhotometricInterpretation": "RGB", "PlanarConfiguration": 0}
    bits = {"BitsAllocated": 8, "BitsStored": 8, "HighBit": 7}
    slices = cut(dicom(tmp_path / "a.dcm", rgb, **colour, **bits))
    assert difference(slices, plain) == 0
    frames = np.stack([DEEP, 4080 - DEEP])
    slices = cut(dicom(tmp_path / "b.dcm", DEEP, NumberOfFrames=2, PixelData=frames.tobytes()))
    assert difference(slices, plain) < 1
    assert slices.notes == ("the first of 2 frames",)
    codes = {
        JPEGLosslessSV1: imagecodecs.ljpeg_encode(DEEP, bitspersample=12),
        JPEG2000Lossless: imagecodecs.jpeg2k_encode(DEEP, reversible=True, codecformat="j2k"),
        JPEGLSLossless: imagecodecs.jpegls_encode(DEEP),
    }
    for syntax, code in codes.items():
        dataset = pydicom.dcmread(dicom(tmp_path / "c.dcm", DEEP))
        dataset.file_meta.TransferSyntaxUID = syntax
        dataset.PixelData = encapsulate([code])
        dataset["PixelData"].is_undefined_length = True
        dataset.save_as(tmp_path / "c.dcm")
        assert difference(cut(tmp_path / "c.dcm"), plain) < 1


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"BurnedInAnnotation": "YES"}, Reason.BURNED_IN_ANNOTATION),
        ({"SOPClassUID": SECONDARY_CAPTURE}, Reason.SECONDARY_CAPTURE),
        ({"SOPClassUID": SECONDARY_CAPTURE, "BurnedInAnnotation": "YES"}, Reason.BURNED_IN_ANNOTATION),
        ({"Modality": "CT"}, Reason.NOT_CT),
        ({"Modality": None}, Reason.NOT_CT),
        ({"PixelData": None}, Reason.NO_PIXEL_DATA),
        ({"PhotometricInterpretation": "PALETTE COLOR"}, Reason.UNREADABLE),
        ({"PixelData": DEEP.tobytes()[:9000]}, Reason.UNREADABLE),
        ({"BitsStored": None}, Reason.UNREADABLE),
        ({"Rows": 40_000, "Columns": 40_000}, Reason.UNREADABLE),
    ],
)
def test_dicom_that_is_no_usable_radiograph_is_rejected(tmp_path, fields, reason):
    assert rejection(dicom(tmp_path / "a.dcm", DEEP, **fields)).reason == reason


def test_dicom_of_an_unknown_transfer_syntax_has_no_decoder(tmp_path):
    path = dicom(tmp_path / "a.dcm", DEEP)
    dataset = pydicom.dcmread(path)
    dataset.compress(RLELossless)
    dataset.file_meta.TransferSyntaxUID = "1.2.840.10008.1.2.4.100"  # MPEG-2
    dataset.save_as(path)
    assert rejection(path).reason == Reason.NO_DECODER


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


def mask_file(path: Path, mask: np.ndarray, **options: object) -> Path:
    Image.fromarray(mask).save(path, **options)
    return path


@pytest.fixture
def radiograph(tmp_path: Path) -> Path:
    Image.fromarray(chest()).save(tmp_path / "image.png")
    return tmp_path / "image.png"


MASKS = WHOLE.model_copy(update={"masks": True})
BYTES = lungs().astype(np.uint8)


@pytest.mark.parametrize(
    ("name", "mask", "options"),
    [
        ("m.png", BYTES * 255, {}),
        ("m.png", BYTES, {}),
        ("m.png", lungs(), {}),
        ("m.png", BYTES * (1 + (np.arange(128) > 64)).astype(np.uint8), {}),  # left and right are numbered
        ("m.jpg", BYTES * 255, {"quality": 60}),
        ("m.tif", (BYTES * 40).astype(np.uint16), {}),
        ("m.png", lungs(320, 256), {}),
        ("m.png", lungs(80, 64), {}),
    ],
)
def test_masks_of_every_kind_become_0_and_1_over_the_same_lungs(radiograph, name, mask, options):
    slices = cut(radiograph, MASKS, mask_file=mask_file(radiograph.with_name(name), mask, **options))
    (found,) = slices.masks
    assert found.dtype == np.uint8
    assert set(np.unique(found)) == {0, 1}
    truth = np.zeros((160, 160), bool)
    truth[:, 16:144] = lungs()
    truth = truth[np.ix_(*[((np.arange(64) + 0.5) * 2.5).astype(int)] * 2)]
    overlap = 2 * (found.astype(bool) & truth).sum() / (found.sum() + truth.sum())
    assert overlap > 0.97
    assert slices.previews[0].outline.any()


def test_masks_that_do_not_fit_are_rejected_with_a_picture(radiograph):
    for name, content, detail in (
        ("square.png", encoded("PNG", np.ones((50, 50), np.uint8)), "differ in shape: 50×50 and 128×160"),
        ("text.png", b"text", "the mask is unusable: neither"),
        ("cut.png", encoded("PNG")[:500], "the mask is unusable: damaged"),
    ):
        radiograph.with_name(name).write_bytes(content)
        rejected = rejection(radiograph, MASKS, mask_file=radiograph.with_name(name))
        assert rejected.reason == Reason.NO_MASK
        assert detail in rejected.detail
        assert rejected.picture.std() > 0
    assert "cannot be opened" in rejection(radiograph, MASKS, mask_file=radiograph.with_name("none.png")).detail
    assert rejection(radiograph, MASKS).reason == Reason.NO_MASK


def test_lungs_view_shows_the_lungs_and_little_else(radiograph):
    config = SliceConfig(size=64, view="lungs", masks=True)
    slices = cut(radiograph, config, mask_file=mask_file(radiograph.with_name("m.png"), lungs()))
    (found,) = slices.masks
    rows, columns = (np.flatnonzero(found.any(axis=axis)) for axis in (1, 0))
    assert 2 <= rows[0] <= 4
    assert 60 <= rows[-1] <= 62
    assert columns[0] + columns[-1] == pytest.approx(63, abs=2)
    assert slices.table["lung_fraction"].iloc[0] == pytest.approx(found.mean())
    inside, outside = slices.images[0][found == 1], slices.images[0][found == 0]
    assert inside.mean() < outside.mean() - 30  # the lungs of this chest are dark: mask and image lie on each other
    empty = mask_file(radiograph.with_name("empty.png"), np.zeros((160, 128), np.uint8))
    assert rejection(radiograph, config, mask_file=empty).reason == Reason.NO_LUNGS


def test_the_unet_finds_lungs_where_no_mask_shows_them(radiograph, tmp_path):
    many = np.stack([np.roll(chest(128, 128), shift, 1) for shift in range(-4, 4)])
    masks = np.stack([np.roll(lungs(128, 128), shift, 1) for shift in range(-4, 4)])
    train_unet(many, masks, LungTrainingConfig(unet={"size": 32, "width": 4}, steps=10, batch=4), tmp_path / "unet")
    config = SliceConfig(size=64, view="lungs", masks=True, lungs={"backend": "unet", "weights": tmp_path / "unet"})
    found = cut(radiograph, config)
    same = mask_file(tmp_path / "m.png", lungs_of_picture(chest(), tmp_path / "unet"))
    expected = cut(radiograph, SliceConfig(size=64, view="lungs", masks=True), mask_file=same)
    np.testing.assert_array_equal(found.images, expected.images)
    np.testing.assert_array_equal(found.masks, expected.masks)
    assert found.masks.any()


def test_views_that_pictures_cannot_have_say_what_to_do(radiograph):
    with pytest.raises(LungsynthError, match="masks of the lungs"):
        cut(radiograph, SliceConfig(size=64, view="lungs"))
    with pytest.raises(LungsynthError, match="set it to whole or lungs"):
        cut(radiograph, SliceConfig(size=64, view="lesion"))


def test_an_image_keeps_its_own_label(radiograph):
    own = pd.DataFrame([{"series_uid": "x", "label": "PNEUMONIA"}])
    assert cut(radiograph, slice_labels=own).table["label"].tolist() == ["PNEUMONIA"]
    with pytest.raises(LungsynthError, match="'viral' is none of the dataset's classes NORMAL, PNEUMONIA"):
        cut(radiograph, label="viral")


def test_folder_to_cohort_to_slices(tmp_path):
    """A folder of synthetic radiographs with masks, one of them damaged, all the way to slices."""
    for number in range(6):
        name = f"{CLASSES[number % 2]}/person{number}_{number}.png"
        for place, picture in ((tmp_path / name, np.roll(chest(), number, 1)), (tmp_path / "masks" / name, lungs())):
            place.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(picture).save(place)
    damaged = tmp_path / "NORMAL" / "person0_0.png"
    damaged.write_bytes(damaged.read_bytes()[:3000])
    cohort = select_pictures(
        PictureCohortConfig(folder=tmp_path, patient_pattern=r"(person\d+)_"), SplitConfig(method="ranked")
    )
    masks = cohort.series[cohort.series["role"] == "mask"].set_index("source_series_uid")["url"]
    built, rejected = [], []
    for row in cohort.images.itertuples():
        path, mask = (Path(url.removeprefix("file://")) for url in (row.url, masks[row.series_uid]))
        fields = {"label": row.label, "split": row.split, "patient_key": row.patient_key, "mask_file": mask}
        try:
            built.append(cut(path, MASKS, series_uid=row.series_uid, **fields))
        except SeriesRejected as fate:
            rejected.append(fate.reason)
    assert rejected == [Reason.UNREADABLE]
    table = pd.concat([slices.table for slices in built])
    assert sorted(table["label"]) == ["NORMAL"] * 2 + ["PNEUMONIA"] * 3
    assert set(table["split"]) == {"train", "val", "test"}
    assert all(slices.masks.shape == slices.images.shape == (1, 64, 64) for slices in built)
