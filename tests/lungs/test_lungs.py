"""The default lungs, by threshold, on drawn chests, simulated patients and real ones; and what is no lungs."""

import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
from pydantic import ValidationError
from scipy import ndimage

from lungsynth.dataset.rejection import Reason, SeriesRejected
from lungsynth.dicom.read import Volume, read_series
from lungsynth.errors import LungsynthError
from lungsynth.lungs.config import LungConfig, QualityConfig
from lungsynth.lungs.find import find_lungs
from lungsynth.lungs.grid import cell_means
from lungsynth.lungs.mask import LungMask
from lungsynth.lungs.threshold import lungs
from lungsynth.phantom import draw_patient, lung_mask, volume_hu

SPACING, STEP, THRESHOLD = (2.8, 2.8), 6.0, -400
CONFIG = LungConfig()


def dice(one: np.ndarray, other: np.ndarray) -> float:
    return 2 * (one & other).sum() / (one.sum() + other.sum())


def pixels(hu: np.ndarray, spacing: tuple[float, float] = SPACING, step: float = STEP) -> np.ndarray:
    return lungs(hu, spacing, step, THRESHOLD).pixels(hu.shape)


@pytest.fixture
def chest(chest_hu, write_ct) -> Volume:
    volume = read_series(write_ct((chest_hu + 1024).clip(0).astype(np.int16), spacing_mm=SPACING, step_mm=STEP))
    assert np.array_equal(volume.hu, chest_hu)
    return volume


def test_mask_holds_both_lungs_with_vessels_and_the_nodule_on_the_wall(chest_hu):
    mask = pixels(chest_hu)
    assert (mask.shape, mask.dtype) == (chest_hu.shape, bool)
    assert mask[chest_hu == -850].mean() > 0.99
    assert mask[5:-5][chest_hu[5:-5] == 30].mean() > 0.99
    assert mask[chest_hu == 20].mean() > 0.6  # a third of it bulges out of the lung
    assert not mask[chest_hu == -1000].any()
    assert not mask[chest_hu == 200].any()
    assert mask.sum() < 1.25 * np.isin(chest_hu, (-850, 30, 20)).sum()


@pytest.mark.parametrize("factor", [2, 3, 5])
def test_finer_pixels_give_the_same_lungs(chest_hu, factor):
    fine = chest_hu.repeat(factor, axis=1).repeat(factor, axis=2)[:, :-1, :-1]  # a size that no cell divides
    coarse = pixels(chest_hu).repeat(factor, axis=1).repeat(factor, axis=2)[:, :-1, :-1]
    assert np.mean(coarse == pixels(fine, (SPACING[0] / factor, SPACING[1] / factor))) > 0.995


def test_cells_are_means_even_beside_metal():
    hu = np.random.default_rng(0).integers(-1024, 3072, (3, 23, 31), dtype=np.int16)
    blocks = hu[:, :20, :30].reshape(3, 5, 4, 5, 6).mean(axis=(2, 4))
    assert np.abs(cell_means(hu, (4, 6)) - blocks).max() <= 3
    assert (cell_means(np.full((1, 10, 10), 32767, np.int16), (5, 5)) > 1000).all()  # no wrap to air


def test_noise_of_a_low_dose_scan_changes_little(chest_hu):
    noisy = (chest_hu + np.random.default_rng(0).normal(0, 60, chest_hu.shape)).clip(-1024).astype(np.int16)
    assert dice(pixels(chest_hu), pixels(noisy)) > 0.98


def test_bowel_gas_is_not_the_second_lung(chest_hu):
    one_lung = chest_hu.copy()
    one_lung[:, :, :64][one_lung[:, :, :64] == -850] = 40
    gas = one_lung.copy()
    gas[:14, 40:90, 30:60] = -1000
    assert np.array_equal(pixels(gas), pixels(one_lung))


def test_the_foam_of_a_table_is_no_lung(chest_hu):
    table = chest_hu.copy()
    table[:, 100:116, 10:118] = 200  # a closed shell, unlike most
    table[:, 102:114, 12:116] = -900
    assert np.array_equal(pixels(table), pixels(chest_hu))


def test_the_trachea_is_no_lung(chest_hu):
    windpipe = chest_hu.copy()
    windpipe[15:, 60:67, 61:68] = -1000
    mask = pixels(windpipe)
    assert not mask[windpipe == -1000].any()
    assert dice(mask, pixels(chest_hu)) > 0.999


@pytest.mark.parametrize(("index", "matrix"), [(0, 256), (1, 256), (2, 256), (5, 256), (7, 256), (3, 512)])
def test_simulated_lungs_agree_with_the_truth(index, matrix):
    patient = draw_patient(
        0, index, with_nodule=index % 2 == 1, matrix=matrix, slices=(24, 26), nodule_diameter_mm=(6.0, 40.0)
    )
    hu, lesion = volume_hu(patient)
    spacing, step = (patient.pixel_spacing_mm,) * 2, patient.slice_spacing_mm
    found, truth = pixels(hu.clip(-1024), spacing, step), lung_mask(patient)
    assert dice(found, truth) >= 0.97
    assert not lesion.any() or found[lesion].mean() > 0.95


def test_real_lungs(mirror_series):
    for folder in mirror_series.values():
        volume = read_series(folder)
        mask = find_lungs(volume, (), CONFIG).pixels(volume.hu.shape)
        voxel = volume.spacing_mm[0] * volume.spacing_mm[1] * volume.slice_spacing_mm * 1e-6
        assert 2.5 < mask.sum() * voxel < 6.5
        assert -900 < np.median(volume.hu[mask]) < -700
        # Nearly all of it in a left and a right part of like size, or in one part that spans the midline.
        rows, columns = (np.flatnonzero(mask.any(axis=axes)) for axes in ((0, 2), (0, 1)))
        middle = (columns[0] + columns[-1]) // 2
        assert 0.35 < mask[:, :, :middle].sum() / mask.sum() < 0.65
        assert 200 < (columns[-1] - columns[0]) * volume.spacing_mm[1] < 350
        assert 120 < (rows[-1] - rows[0]) * volume.spacing_mm[0] < 270
        labels, count = ndimage.label(mask)
        assert np.sort(np.bincount(labels.ravel())[1:])[::-1][:2].sum() > 0.99 * mask.sum(), count


def test_half_a_chest_is_enough_and_a_leg_is_not(chest, chest_hu):
    upper = replace(chest, hu=chest_hu[20:], positions_mm=chest.positions_mm[20:], sop_uids=chest.sop_uids[20:])
    assert find_lungs(upper, (), CONFIG).cells.any()
    for body in (np.full_like(chest_hu, -1000), np.where(chest_hu == -850, 40, chest_hu).astype(np.int16)):
        with pytest.raises(SeriesRejected) as caught:
            find_lungs(replace(chest, hu=body), (), CONFIG)
        assert caught.value.reason is Reason.NO_LUNGS


def one_lung(hu: np.ndarray) -> None:
    hu[:, :, :64][hu[:, :, :64] == -850] = 40


def one_air_filled_hole(hu: np.ndarray) -> None:
    hu[hu == -850] = 40
    hu[5:35, 40:90, 35:95] = -850


def remnant(hu: np.ndarray) -> None:
    """One lung, and beside it what a few segments that were left in place would hold."""
    one_lung(hu)
    hu[12:20, 60:72, 36:46] = -850


def right_lung(hu: np.ndarray) -> None:
    hu[:, :, 64:][hu[:, :, 64:] == -850] = 40


@pytest.mark.parametrize("change", [one_lung, right_lung, remnant])
def test_a_patient_with_one_lung_is_admitted_where_the_configuration_says_so(chest, chest_hu, change):
    hu = chest_hu.copy()
    change(hu)
    after_surgery = replace(chest, hu=hu)
    with pytest.raises(SeriesRejected, match=r"two lungs|other's volume"):
        find_lungs(after_surgery, (), CONFIG)
    admitted = LungConfig(quality=QualityConfig(min_side_ratio=0))
    found = find_lungs(after_surgery, (), admitted).pixels(hu.shape)
    assert dice(found, pixels(hu)) == 1
    assert 0.4 < found.sum() / pixels(chest_hu).sum() < 0.6
    assert find_lungs(chest, (), admitted).cells.any()
    with pytest.raises(SeriesRejected):  # what else makes a mask implausible still does
        find_lungs(after_surgery, (), LungConfig(quality=QualityConfig(min_side_ratio=0, min_litres=9, max_litres=12)))


@pytest.mark.parametrize(
    ("change", "limits", "detail"),
    [
        (None, {"max_litres": 1.5}, "litres, not 1 to 1.5"),
        (one_lung, {}, "between them|of the other's volume"),
        (one_air_filled_hole, {}, "no two lungs"),
        (None, {"max_mean_hu": -900.0}, "mean -8.. HU"),
    ],
)
def test_implausible_lungs_are_rejected_with_their_numbers(chest, chest_hu, change, limits, detail):
    hu = chest_hu.copy()
    if change:
        change(hu)
    with pytest.raises(SeriesRejected, match=detail) as caught:
        find_lungs(replace(chest, hu=hu), (), LungConfig(quality=QualityConfig(**limits)))
    assert caught.value.reason is Reason.IMPLAUSIBLE_LUNGS


def test_a_mask_that_leaks_out_of_the_body_is_found_out(chest, monkeypatch):
    everything_light = LungMask(chest.hu < THRESHOLD, (1, 1))
    monkeypatch.setattr("lungsynth.lungs.threshold.lungs", lambda *_: everything_light)
    with pytest.raises(SeriesRejected, match="open to the image's border"):
        find_lungs(chest, (), CONFIG)


def test_fallback_is_taken_and_noted_or_not(chest):
    with pytest.raises(SeriesRejected) as caught:
        find_lungs(chest, (), LungConfig(backend="idc-seg"))
    assert caught.value.reason is Reason.NO_LUNG_MASK
    mask = find_lungs(chest, (), LungConfig(backend="idc-seg", fallback="threshold"))
    assert np.array_equal(mask.cells, find_lungs(chest, (), CONFIG).cells)
    assert mask.notes == (
        "lungs by threshold, as idc-seg failed: no_lung_mask: 0 segmentations have no frame of this series' lungs",
    )


def test_a_missing_package_is_said_in_one_line(chest, monkeypatch):
    monkeypatch.setitem(sys.modules, "lungmask", None)
    with pytest.raises(LungsynthError, match="pip install 'lungsynth") as caught:
        find_lungs(chest, (), LungConfig(backend="lungmask", fallback="threshold"))
    assert "\n" not in str(caught.value)


def test_configurations_that_make_no_sense_are_refused(tmp_path):
    for options in ({"backend": "unet"}, {"weights": tmp_path}, {"quality": {"min_litres": 9, "max_litres": 2}}):
        with pytest.raises(ValidationError):
            LungConfig(**options)


def test_threshold_workers_do_not_carry_torch():
    code = "import sys; from lungsynth.lungs.find import find_lungs; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
