"""From a series on disk to its slices: views, choice, previews, rejections, and the real series."""

import dataclasses
from pathlib import Path

import numpy as np
import pandas as pd
import pydicom
import pytest

from lungsynth.cohort.cohort import SLICE_LABEL_COLUMNS, no_slice_labels
from lungsynth.cohort.phantom import PhantomCohortConfig, patient_of, select_phantoms
from lungsynth.cohort.splits import SplitConfig
from lungsynth.dataset.rejection import Reason, SeriesRejected
from lungsynth.dataset.store import COLUMNS
from lungsynth.phantom import write_ct as write_ct_phantom
from lungsynth.phantom import write_seg as write_seg_phantom
from lungsynth.slicing.series import PREVIEW, SeriesJob, SliceConfig
from lungsynth.slicing.slices import slices_of_series, within_patient_cap

CONFIG = SliceConfig(size=32)
CLASSES = ("non-cancer", "cancer")
SPACING = (2.8, 2.8)
QIN = "821ab8ed-73e4-480c-8073-8ed671e601d6"


@pytest.fixture
def chest_folder(write_ct, chest_hu) -> Path:
    return write_ct((chest_hu + 1024).astype(np.uint16), spacing_mm=SPACING, step_mm=6.0)


def job(folder: Path, **changes: object) -> SeriesJob:
    uid = pydicom.dcmread(next(folder.iterdir()), stop_before_pixels=True).SeriesInstanceUID
    made = SeriesJob(
        str(uid), "key", "non-cancer", "clinical", "train", "", folder, (), (), None, slice_labels=no_slice_labels()
    )
    return dataclasses.replace(made, **changes)


def named(labels: pd.Series) -> pd.DataFrame:
    """A slice-label table from labels by SOP Instance UID."""
    rows = pd.DataFrame({"sop_uid": labels.index, "label": labels.to_numpy()})
    return rows.assign(series_uid="", instance_number=pd.NA, evidence="slice_labels", lesion_mm=pd.NA).astype(
        SLICE_LABEL_COLUMNS
    )


def test_one_series(chest_folder):
    config = SliceConfig(size=32, masks=True)
    made = slices_of_series(job(chest_folder), config, CLASSES)
    table = made.table
    assert list(table.columns) == list(COLUMNS)
    assert (made.images.dtype, made.images.shape) == (np.uint8, (len(table), 32, 32))
    assert 25 < len(table) < 40
    assert table["position_mm"].is_monotonic_increasing
    assert table[["label", "evidence", "split", "patient"]].drop_duplicates().to_numpy().tolist() == [
        ["non-cancer", "clinical", "train", "key"]
    ]
    assert (table["pixel_mm"].iloc[0], table["slice_spacing_mm"].iloc[0]) == pytest.approx((2.8, 6.0))
    # 120 pixels of 2.8 mm across both lungs and the margins; the lungs' own HU are at the middle of each half.
    assert table["spacing_mm"].iloc[0] * 32 == pytest.approx(0.7 * 128 * 2.8 + 10, rel=0.1)
    middle = made.images[len(made.images) // 2]
    assert middle[12, 8] == middle[12, 23] == round((1350 - 850) / 1500 * 255)
    assert middle[16, 16] == round((1350 + 40) / 1500 * 255)
    assert set(np.unique(made.masks)) == {0, 1}
    assert np.abs(made.masks.mean(axis=(1, 2)) - table["lung_fraction"]).max() < 0.03
    assert made.masks[:, 16, 16].sum() == 0
    assert made.hu_histogram.sum() == len(table) * 8 * 8
    assert made.hu_histogram[(-850 + 1024) // 32] > 0
    [preview] = made.previews
    assert preview.image.shape == preview.outline.shape == (PREVIEW, PREVIEW)
    assert 0.005 < preview.outline.mean() < 0.1
    assert preview.caption.splitlines()[0] == "non-cancer, train"


def test_choice_of_slices(chest_folder):
    def chosen(**changes: object) -> pd.DataFrame:
        return slices_of_series(job(chest_folder), SliceConfig(size=32, **changes), CLASSES).table

    everything = chosen()
    for stride in (12, 11, 14):  # the nearest that slices 6 mm apart allow
        assert set(np.diff(chosen(stride_mm=stride)["position_mm"]).round(3)) == {12}
    capped = chosen(max_slices_per_series=4)
    assert len(capped) == 4
    assert capped["position_mm"].mean() == pytest.approx(everything["position_mm"].mean(), abs=6)
    assert 0 < len(chosen(min_lung_fraction=0.2)) < len(everything)


def test_only_labelled_slices_are_taken(chest_folder):
    sops = slices_of_series(job(chest_folder), CONFIG, CLASSES).table["sop_uid"]
    labels = pd.Series({sops[10]: "cancer", sops[11]: "non-cancer", sops[12]: "cancer"})
    found = slices_of_series(job(chest_folder, label="cancer", slice_labels=named(labels)), CONFIG, CLASSES).table
    assert dict(zip(found["sop_uid"], found["label"], strict=True)) == labels.to_dict()
    # A stride of all slices leaves the first of each class.
    strided = SliceConfig(size=32, stride_mm=500)
    found = slices_of_series(job(chest_folder, label="cancer", slice_labels=named(labels)), strided, CLASSES).table
    assert found["label"].tolist() == ["cancer", "non-cancer"]


def test_rejections_have_a_reason_and_a_picture(chest_folder):
    for changes, config, reason in (
        ({"series_uid": "1.2.3"}, CONFIG, Reason.MIXED_SERIES),
        ({"label": "cancer"}, CONFIG, Reason.NO_LESION_EVIDENCE),
        ({}, SliceConfig(size=32, min_lung_fraction=0.9), Reason.NO_SLICES),
    ):
        with pytest.raises(SeriesRejected) as caught:
            slices_of_series(job(chest_folder, **changes), config, CLASSES)
        assert caught.value.reason is reason
        assert (caught.value.preview.dtype, caught.value.preview.shape) == (np.uint8, (PREVIEW, PREVIEW))
        assert np.ptp(caught.value.preview) > 100


def test_a_series_that_cannot_be_placed_still_has_a_picture(write_ct, chest_hu):
    def interleave(z, ct):
        ct.ImagePositionPatient[2] -= 6.0 * (z % 2)

    folder = write_ct((chest_hu[:, 20:] + 1024).astype(np.uint16), interleave, step_mm=6.0)
    with pytest.raises(SeriesRejected) as caught:
        slices_of_series(job(folder), CONFIG, CLASSES)
    assert caught.value.reason is Reason.DUPLICATE_POSITIONS
    assert caught.value.preview.shape == (PREVIEW, PREVIEW)
    assert (caught.value.preview[:15] == 0).all()  # padding of an image that is no square


def test_the_cap_of_a_patient_spans_series_and_is_kept_by_class():
    table = pd.DataFrame({"patient": ["a"] * 10 + ["b"] * 3, "label": ["x"] * 6 + ["y"] * 4 + ["x"] * 3})
    assert within_patient_cap(table, 3).tolist() == [1, 3, 5, 6, 8, 9, 10, 11, 12]
    assert within_patient_cap(table, None).tolist() == list(range(13))


@pytest.fixture(scope="module")
def phantom(tmp_path_factory) -> tuple[Path, Path]:
    """CT and SEG folders of a simulated patient with a large nodule."""
    config = PhantomCohortConfig(patients=4, matrix=128, slices=(30, 30), nodule_diameter_mm=(25, 30))
    cohort = select_phantoms(config, SplitConfig(method="ranked"))
    lesions = cohort.series[cohort.series["role"] == "lesion"]
    uid, source = lesions[["series_uid", "source_series_uid"]].iloc[0]
    folder = tmp_path_factory.mktemp("phantom")
    write_ct_phantom(patient_of(config, source), folder / "ct")
    write_seg_phantom(patient_of(config, uid), folder / "seg")
    return folder / "ct", folder / "seg"


def test_the_lesion_view_centres_on_the_lesion(phantom):
    ct, seg = phantom
    lit = pydicom.dcmread(next(seg.iterdir())).pixel_array.any(axis=(1, 2))
    config = SliceConfig(size=64, view="lesion", patch_mm=64, min_lung_fraction=0)
    made = slices_of_series(job(ct, label="cancer", lesion_folders=(seg,)), config, CLASSES)
    assert len(made.images) == lit.sum() > 2
    assert set(made.table["label"]) == {"cancer"}
    assert made.table["spacing_mm"].to_numpy() == pytest.approx(1.0, rel=0.02)
    middle = made.images[len(made.images) // 2].astype(int)
    assert middle[28:36, 28:36].min() > 190  # soft tissue in the lung
    again = slices_of_series(job(ct, label="cancer", lesion_folders=(seg,)), config, CLASSES)
    assert np.array_equal(made.images, again.images)


def test_a_lesion_is_as_large_as_its_outline_or_as_the_label_says(phantom):
    ct, seg = phantom
    outlined = slices_of_series(job(ct, label="cancer", lesion_folders=(seg,)), CONFIG, CLASSES)
    assert 22 < outlined.lesion_mm < 36  # 25 to 30, but for the ball's bumps
    assert np.isnan(slices_of_series(job(ct), CONFIG, CLASSES).lesion_mm)
    label = named(pd.Series({outlined.table["sop_uid"].iloc[0]: "cancer"}))
    for stated, lesion_mm in ((9.0, 9.0), (pd.NA, np.nan)):
        made = slices_of_series(job(ct, label="cancer", slice_labels=label.assign(lesion_mm=stated)), CONFIG, CLASSES)
        assert made.lesion_mm == pytest.approx(lesion_mm, nan_ok=True)


def test_negative_patches_are_of_lung_and_repeat(phantom):
    config = SliceConfig(size=64, view="lesion", min_lung_fraction=0.4)
    made = slices_of_series(job(phantom[0]), config, CLASSES)
    assert len(made.images) > 10
    assert made.table["lung_fraction"].min() >= 0.4
    again = slices_of_series(job(phantom[0]), config, CLASSES)
    assert np.array_equal(made.images, again.images)


def test_other_views_show_the_same_slices_of_the_lesion(phantom):
    ct, seg = phantom
    for view in ("whole", "lungs"):
        config = SliceConfig(size=32, view=view, min_lung_fraction=0, other_slices_of_cancer="non_cancer")
        table = slices_of_series(job(ct, label="cancer", lesion_folders=(seg,)), config, CLASSES).table
        assert set(table["label"]) == set(CLASSES)
        gaps = (
            table.loc[table["label"] == "cancer", "position_mm"].to_numpy()[:, None]
            - table.loc[table["label"] == "non-cancer", "position_mm"].to_numpy()
        )
        assert np.abs(gaps).min() >= config.lesion_margin_mm


@pytest.mark.parametrize(("view", "size"), [("lungs", 64), ("lungs", 256), ("whole", 128), ("lesion", 128)])
def test_real_series_have_the_published_labels(mirror, mirror_series, mirror_labels, view, size):
    expected = mirror_labels.set_index("sop_uid")["label"]
    config = SliceConfig(size=size, view=view, min_lung_fraction=0.03)
    cancers = 0
    for uid, folder in mirror_series.items():
        mine = mirror_labels[mirror_labels["series_uid"] == uid]
        seg = pydicom.dcmread(next((mirror / "idc-open-data" / QIN).iterdir()), stop_before_pixels=True)
        lesions = (mirror / "idc-open-data" / QIN,) if seg.ReferencedSeriesSequence[0].SeriesInstanceUID == uid else ()
        whole = job(
            folder,
            label="cancer",
            evidence="slice_labels",
            lesion_folders=lesions,
            slice_labels=named(mine.set_index("sop_uid")["label"]),
        )
        made = slices_of_series(whole, config, CLASSES)
        assert made.images.shape[1:] == (size, size)
        assert (made.table["label"] == made.table["sop_uid"].map(expected)).all()
        assert np.ptp(made.images, axis=(1, 2)).min() > 100
        cancers += (made.table["label"] == "cancer").sum()
    assert cancers == (11 if view == "lesion" else 41)  # only one has a segmentation, that says where


def test_a_real_segmentation_alone_gives_the_published_labels(mirror, mirror_series, mirror_labels):
    seg = mirror / "idc-open-data" / QIN
    uid = pydicom.dcmread(next(seg.iterdir()), stop_before_pixels=True).ReferencedSeriesSequence[0].SeriesInstanceUID
    config = SliceConfig(
        size=32, view="whole", min_lung_fraction=0, other_slices_of_cancer="non_cancer", lesion_margin_mm=0
    )
    made = slices_of_series(job(mirror_series[uid], label="cancer", lesion_folders=(seg,)), config, CLASSES)
    expected = mirror_labels[mirror_labels["series_uid"] == uid].set_index("sop_uid")["label"]
    assert made.table.set_index("sop_uid")["label"].to_dict() == expected.to_dict()
    assert (made.table["label"] == "cancer").sum() == 11
