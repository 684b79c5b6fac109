"""Radiographs and ready slices: views, masks, lungs and labels; all pictures here are synthetic."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from radiograph_files import CLASSES, WHOLE, chest, cut, encoded, lungs, rejection
from raster_files import png, tiff

from lungsynth.cohort.pictures import PictureCohortConfig, select_pictures
from lungsynth.cohort.splits import SplitConfig
from lungsynth.dataset.rejection import Reason, SeriesRejected
from lungsynth.errors import LungsynthError
from lungsynth.lungs.unet import lungs_of_image
from lungsynth.lungs.unet_training import LungTrainingConfig, train_unet
from lungsynth.slicing.series import SliceConfig


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
        assert rejected.preview.std() > 0
    assert "cannot be opened" in rejection(radiograph, MASKS, mask_file=radiograph.with_name("none.png")).detail
    assert rejection(radiograph, MASKS).reason == Reason.NO_MASK


def stored_turned(array: np.ndarray, orientation: int) -> Image.Image:
    """What a camera that lay so would have stored of it."""
    undone = {2: 0, 3: 3, 4: 1, 5: 5, 6: 2, 7: 6, 8: 4}
    return Image.fromarray(array).transpose(Image.Transpose(undone[orientation]))


def exif(orientation: int) -> Image.Exif:
    tags = Image.Exif()
    tags[0x0112] = orientation
    return tags


@pytest.mark.parametrize("kind", ["jpg", "png", "tif"])
@pytest.mark.parametrize("orientation", range(2, 9))
def test_masks_lie_on_images_that_exif_turns_or_are_refused(tmp_path, orientation, kind):
    image, mask = tmp_path / f"image.{kind}", tmp_path / "mask.png"
    Image.fromarray(chest()).save(tmp_path / "upright.png")
    Image.fromarray(lungs()).save(tmp_path / "lungs.png")
    expected = cut(tmp_path / "upright.png", MASKS, mask_file=tmp_path / "lungs.png").masks
    stored_turned(chest(), orientation).save(image, exif=exif(orientation), quality=97)
    stored_turned(lungs(), orientation).save(mask, exif=exif(orientation))  # it says so itself
    assert np.array_equal(cut(image, MASKS, mask_file=mask).masks, expected)
    stored_turned(lungs(), orientation).save(mask)  # drawn on the pixels as they are stored, and silent
    if orientation >= 5:  # the sides tell
        slices = cut(image, MASKS, mask_file=mask)
        assert np.array_equal(slices.masks, expected)
        assert slices.notes == ("turned upright by its EXIF orientation", "its mask was turned with it")
        Image.fromarray(lungs()).save(mask)  # drawn on what is seen
        assert np.array_equal(cut(image, MASKS, mask_file=mask).masks, expected)
        return
    for silent in (stored_turned(lungs(), orientation), Image.fromarray(lungs())):
        silent.save(mask)
        rejected = rejection(image, MASKS, mask_file=mask)
        assert rejected.reason == Reason.NO_MASK
        assert "nothing says whether its mask has to be: save both upright" in rejected.detail
    Image.fromarray(np.ones((80, 64), bool)).save(mask)  # the same either way
    assert cut(image, MASKS, mask_file=mask).masks.any()


def test_square_images_that_exif_turns_are_never_guessed(tmp_path):
    square, other = chest(128, 128), np.eye(128, dtype=bool)
    stored_turned(square, 6).save(tmp_path / "image.jpg", exif=exif(6))
    Image.fromarray(lungs(64, 64)).save(tmp_path / "mask.png")
    assert "nothing says" in rejection(tmp_path / "image.jpg", MASKS, mask_file=tmp_path / "mask.png").detail
    Image.fromarray(square).save(tmp_path / "upright.png")  # of these two only the mask is turned
    Image.fromarray(other).rotate(-90).save(tmp_path / "mask.png", exif=exif(8))
    Image.fromarray(other).save(tmp_path / "plain.png")
    turned, plain = (
        cut(tmp_path / "upright.png", MASKS, mask_file=tmp_path / name).masks for name in ("mask.png", "plain.png")
    )
    assert np.array_equal(turned, plain)


@pytest.mark.parametrize("top", [1, 255, 4095, 65535])
@pytest.mark.parametrize("colours", [None, 2, 3, 4])
def test_deep_masks_count_where_they_are_not_black(radiograph, top, colours):
    truth = lungs()
    stored = (truth * top).astype(np.uint64)[..., None].repeat(colours or 1, axis=2)
    if colours in (2, 4):
        stored[..., -1] = 65535
    path = radiograph.with_name("deep.png")
    path.write_bytes(png(stored, 16))
    expected = cut(radiograph, MASKS, mask_file=mask_file(radiograph.with_name("m.png"), truth)).masks
    assert np.array_equal(cut(radiograph, MASKS, mask_file=path).masks, expected)
    if colours is None:
        path.write_bytes(tiff(top - stored.astype(np.uint16), 16, photometric=0))  # white is zero
        assert np.array_equal(cut(radiograph, MASKS, mask_file=path).masks, expected)


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
    train_unet(
        many, masks, LungTrainingConfig(unet={"size": 32, "width": 4}, steps=10, batch=4), folder=tmp_path / "unet"
    )
    config = SliceConfig(size=64, view="lungs", masks=True, lungs={"backend": "unet", "weights": tmp_path / "unet"})
    found = cut(radiograph, config)
    same = mask_file(tmp_path / "m.png", lungs_of_image(chest(), tmp_path / "unet"))
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
