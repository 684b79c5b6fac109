"""The slice dataset: crop, window and resampling, the choice of slices, rejected series, splits that lack a class."""

import dataclasses
from pathlib import Path

import numpy as np
import pandas as pd
import pydicom
import pytest

from lungsynth.cohort.cohort import COLUMNS as COHORT_COLUMNS
from lungsynth.cohort.cohort import Cohort
from lungsynth.cohort.phantom import PhantomCohortConfig, patient_of, select_phantoms
from lungsynth.cohort.series_store import SeriesStore
from lungsynth.cohort.splits import SplitConfig
from lungsynth.errors import LungsynthError
from lungsynth.imaging.phantom import write_ct as write_ct_phantom
from lungsynth.imaging.phantom import write_seg as write_seg_phantom
from lungsynth.imaging.read import Reason, SeriesRejected
from lungsynth.imaging.slices import Crop, SeriesJob, SliceConfig, build_slices, render, slices_of_series

CONFIG = SliceConfig(size=32, workers=1)
SPACING = (2.8, 2.8)
SPLITS = ("train", "val", "test")


@pytest.fixture
def chest_folder(write_ct, chest_hu) -> Path:
    return write_ct((chest_hu + 1024).astype(np.uint16), spacing_mm=SPACING, step_mm=6.0)


def job(folder: Path, **changes: object) -> SeriesJob:
    uid = pydicom.dcmread(next(folder.iterdir()), stop_before_pixels=True).SeriesInstanceUID
    made = SeriesJob(str(uid), "key", "non-cancer", "train", folder, (), {})
    return dataclasses.replace(made, **changes)


def test_constant_slices_map_linearly_from_the_window():
    crop = Crop(top_mm=10, left_mm=10, side_mm=50)
    for hu, expected in ((-1350, 0), (150, 255), (-600, 128), (-1000, 60), (2000, 255)):
        image = render(np.full((100, 100), hu, dtype=np.int16), (0.7, 0.7), crop, CONFIG)
        assert (image.shape, image.dtype) == ((32, 32), np.uint8)
        assert (image == expected).all()


def test_pixels_are_square_in_millimetres_whatever_the_spacing():
    """A disc of 20 mm at the centre of the crop, drawn on two grids, comes out the same."""
    images = []
    for spacing in ((0.5, 0.5), (0.5, 1.0)):
        y, x = ((np.arange(round(100 / step)) + 0.5) * step for step in spacing)
        hu = np.where(np.hypot(y[:, None] - 50, x - 50) < 20, 150, -1350).astype(np.int16)
        images.append(render(hu, spacing, Crop(20, 20, 60), CONFIG).astype(float))
    assert np.abs(images[0] - images[1]).mean() < 3
    area = images[0].sum() / 255 * (60 / 32) ** 2
    assert area == pytest.approx(np.pi * 400, rel=0.01)
    assert np.allclose(images[0], images[0].T, atol=1)


def test_crop_beyond_the_image_is_air():
    image = render(np.full((50, 50), 150, dtype=np.int16), (1, 1), Crop(-32, -32, 64), CONFIG)
    air = round((1350 - 1024) / 1500 * 255)
    assert (image[:15] == air).all()
    assert (image[:, :15] == air).all()
    assert (image[17:, 17:] == 255).all()
    shifted = render(np.full((50, 50), 150, dtype=np.int16), (1, 1), Crop(18, 18, 64), CONFIG)
    assert (shifted[:15, :15] == 255).all()
    assert (shifted[17:] == air).all()


def test_crop_is_the_square_around_all_slices_of_the_lungs():
    lungs = np.zeros((3, 40, 60), dtype=bool)
    lungs[0, 10:20, 30], lungs[2, 15, 10:50] = True, True
    crop = Crop.around(lungs, (2.0, 1.0), margin_mm=5)
    assert (crop.top_mm, crop.left_mm, crop.side_mm) == (30 - 25, 30 - 25, 50)
    assert np.allclose(crop.fraction(lungs, (2.0, 1.0)), [20 / 2500, 0, 80 / 2500])


def test_one_series(chest_folder, chest_hu):
    images, table = slices_of_series(job(chest_folder), CONFIG)
    assert (images.dtype, images.shape) == (np.uint8, (len(table), 32, 32))
    assert 25 < len(table) < 40
    assert table["lung_fraction"].between(0.05, 0.5).all()
    assert table["position_mm"].is_monotonic_increasing
    assert set(table["label"]) == {"non-cancer"}
    assert table["patient"].unique() == ["key"]
    # 120 pixels of 2.8 mm across both lungs and the margins; the lungs' own HU are at the middle of each half.
    assert table["spacing_mm"].iloc[0] * 32 == pytest.approx(0.7 * 128 * 2.8 + 10, rel=0.1)
    middle = images[len(images) // 2]
    assert middle[12, 8] == middle[12, 23] == round((1350 - 850) / 1500 * 255)
    assert middle[16, 16] == round((1350 + 40) / 1500 * 255)


def test_choice_of_slices(chest_folder):
    everything = slices_of_series(job(chest_folder), CONFIG)[1]
    strided = slices_of_series(job(chest_folder), SliceConfig(size=32, stride_mm=12))[1]
    assert set(np.diff(strided["position_mm"]).round(3)) == {12}
    capped = slices_of_series(job(chest_folder), SliceConfig(size=32, max_slices_per_series=4))[1]
    assert len(capped) == 4
    assert capped["position_mm"].mean() == pytest.approx(everything["position_mm"].mean(), abs=6)
    more_lung = slices_of_series(job(chest_folder), SliceConfig(size=32, min_lung_fraction=0.2))[1]
    assert 0 < len(more_lung) < len(everything)
    sops = everything["sop_uid"]
    labels = {sops[10]: "cancer", sops[11]: "non-cancer", sops[12]: "cancer"}
    labelled = slices_of_series(job(chest_folder, label="cancer", labels_by_sop_uid=labels), CONFIG)[1]
    assert dict(zip(labelled["sop_uid"], labelled["label"], strict=True)) == labels
    with pytest.raises(SeriesRejected) as caught:
        slices_of_series(job(chest_folder, label="cancer", labels_by_sop_uid={"1.2.3": "cancer"}), CONFIG)
    assert caught.value.reason is Reason.NO_SLICES


def test_files_of_another_series_are_refused(chest_folder):
    with pytest.raises(SeriesRejected) as caught:
        slices_of_series(job(chest_folder, series_uid="1.2.3"), CONFIG)
    assert caught.value.reason is Reason.MIXED_SERIES


def cohort_of(folders: dict[str, Path], labels: pd.DataFrame, root: Path) -> tuple[Cohort, SeriesStore]:
    """One patient for each series, dealt to the splits in turn."""
    rows = [
        dict.fromkeys(COHORT_COLUMNS, pd.NA)
        | {"patient": f"P{i}", "patient_key": f"key{i}", "series_uid": uid, "modality": "CT"}
        | {"label": "cancer", "evidence": "slice_labels", "split": SPLITS[i % 3]}
        for i, uid in enumerate(folders)
    ]
    cohort = Cohort(pd.DataFrame(rows), labels)
    table = [(uid, str(path.relative_to(root)), "present", "", "") for uid, path in folders.items()]
    return cohort, SeriesStore(root, pd.DataFrame(table, columns=["series_uid", "folder", "state", "reason", "detail"]))


@pytest.fixture
def synthetic(write_ct, chest_hu, tmp_path) -> tuple[Cohort, SeriesStore]:
    """Five series: three whole chests with labels, one that lacks a slice, one that was not fetched."""
    folders, labels = {}, []
    for number in range(4):
        folder = write_ct((chest_hu + 1024).astype(np.uint16), spacing_mm=SPACING, step_mm=6.0)
        headers = [pydicom.dcmread(path, stop_before_pixels=True) for path in folder.iterdir()]
        headers.sort(key=lambda ct: ct.ImagePositionPatient[2])
        uid = str(headers[0].SeriesInstanceUID)
        folders[uid] = folder
        labels += [
            (uid, str(ct.SOPInstanceUID), "cancer" if 18 <= z < 23 else "non-cancer") for z, ct in enumerate(headers)
        ]
        if number == 3:
            next(path for path in folder.iterdir() if pydicom.dcmread(path).ImagePositionPatient[2] == -140).unlink()
    folders["1.2.3"] = tmp_path / "never"
    cohort, store = cohort_of(folders, pd.DataFrame(labels, columns=["series_uid", "sop_uid", "label"]), tmp_path)
    store.table.loc[store.table["series_uid"] == "1.2.3", ["state", "reason"]] = ["rejected", "unreachable"]
    return cohort, store


def test_dataset_is_the_same_with_one_process_and_with_two(synthetic, tmp_path):
    cohort, store = synthetic
    one = build_slices(cohort, store, CONFIG, tmp_path / "one")
    two = build_slices(cohort, store, SliceConfig(size=32, workers=2), tmp_path / "two")
    assert one.sha256 == two.sha256
    assert len(one.images) == len(one.table) > 75
    assert set(one.table["split"]) == set(SPLITS)
    assert (one.table["label"] == "cancer").sum() == 15
    assert one.table["patient"].nunique() == 3
    assert one.meta.cohort_sha256 == cohort.sha256
    assert sorted(one.rejected["reason"]) == ["missing_slices", "not_fetched"]
    assert "gap of 12.00 mm" in " ".join(one.rejected["detail"])
    with pytest.raises(LungsynthError, match="is not empty"):
        build_slices(cohort, store, CONFIG, tmp_path / "one")


def test_a_split_without_a_class_is_an_error_that_says_so(synthetic, tmp_path):
    cohort, store = synthetic
    healthy = cohort.slice_labels.assign(label="non-cancer")
    val = cohort.series.loc[cohort.series["split"] == "val", "series_uid"]
    labels = cohort.slice_labels.where(~cohort.slice_labels["series_uid"].isin(val), healthy)
    with pytest.raises(LungsynthError, match=r"^no cancer slice in val \(non-cancer/cancer slices: train .*val \d+/0"):
        build_slices(Cohort(cohort.series, labels), store, CONFIG, tmp_path / "out")


def test_nothing_left_is_an_error_with_the_reasons(synthetic, tmp_path):
    cohort, store = synthetic
    empty = SeriesStore(store.root, store.table.assign(state="rejected", reason="incomplete"))
    with pytest.raises(LungsynthError, match=r"all 5 CT series were rejected \(not_fetched 5\)"):
        build_slices(cohort, empty, CONFIG, tmp_path / "out")
    assert not list((tmp_path / "out").iterdir())


def test_phantom_with_a_nodule_gives_the_slices_that_its_segmentation_marks(tmp_path):
    config = PhantomCohortConfig(patients=4, matrix=128, slices=(30, 30), nodule_diameter_mm=(25, 30))
    cohort = select_phantoms(config, SplitConfig(method="ranked"))
    uid, source = cohort.seg[["series_uid", "source_series_uid"]].iloc[0]
    write_ct_phantom(patient_of(config, source), tmp_path / "ct")
    write_seg_phantom(patient_of(config, uid), tmp_path / "seg")
    seg = pydicom.dcmread(next((tmp_path / "seg").iterdir()))
    lit = seg.pixel_array.reshape(seg.NumberOfFrames, -1).any(axis=1)
    images, table = slices_of_series(
        job(tmp_path / "ct", label="cancer", lesion_folders=(tmp_path / "seg",)),
        SliceConfig(size=32, min_lung_fraction=0),
    )
    assert len(images) == lit.sum() > 2
    assert set(table["label"]) == {"cancer"}
    healthy = slices_of_series(job(tmp_path / "ct"), CONFIG)[1]
    assert 20 < len(healthy) <= 30
    assert healthy["lung_fraction"].max() > 0.25


def test_real_series(mirror, mirror_series, mirror_labels, tmp_path):
    cohort, store = cohort_of(mirror_series, mirror_labels, mirror / "idc-open-data")
    dataset = build_slices(cohort, store, SliceConfig(size=64, workers=1), tmp_path / "real")
    assert dataset.rejected.empty
    assert dataset.table["patient"].nunique() == 4
    expected = mirror_labels.set_index("sop_uid")["label"]
    assert (dataset.table["label"] == dataset.table["sop_uid"].map(expected)).all()
    assert (dataset.table["label"] == "cancer").sum() == 41  # none is lost
    assert dataset.table.groupby("series_uid")["spacing_mm"].nunique().eq(1).all()
    assert dataset.table["spacing_mm"].between(3.5, 6).all()
