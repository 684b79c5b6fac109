"""Lung masks on a drawn chest and on real ones."""

import numpy as np
import pytest
from scipy import ndimage

from lungsynth.imaging.lungs import LungConfig, lung_mask
from lungsynth.imaging.read import Reason, SeriesRejected, read_series

SPACING = (2.8, 2.8)
CONFIG = LungConfig()


def test_mask_holds_both_lungs_with_vessels_and_the_nodule_on_the_wall(chest_hu):
    hu = chest_hu
    mask = lung_mask(hu, SPACING, 6.0, CONFIG)
    assert (mask.shape, mask.dtype) == (hu.shape, bool)
    assert mask[hu == -850].mean() > 0.99
    assert mask[5:-5][hu[5:-5] == 30].mean() > 0.99
    assert mask[hu == 20].mean() > 0.7
    assert not mask[hu == -1000].any()
    assert not mask[hu == 200].any()
    assert mask.sum() < 1.25 * np.isin(hu, (-850, 30, 20)).sum()


@pytest.mark.parametrize("factor", [2, 3])
def test_finer_pixels_give_the_same_lungs(chest_hu, factor):
    fine = chest_hu.repeat(factor, axis=1).repeat(factor, axis=2)[:, :-1, :-1]  # a size that no block divides
    spacing = (SPACING[0] / factor, SPACING[1] / factor)
    coarse = lung_mask(chest_hu, SPACING, 6.0, CONFIG).repeat(factor, axis=1).repeat(factor, axis=2)[:, :-1, :-1]
    assert np.mean(coarse == lung_mask(fine, spacing, 6.0, CONFIG)) > 0.998


def test_noise_of_a_low_dose_scan_changes_little(chest_hu):
    noisy = (chest_hu + np.random.default_rng(0).normal(0, 60, chest_hu.shape)).clip(-1024).astype(np.int16)
    masks = [lung_mask(volume, SPACING, 6.0, CONFIG) for volume in (chest_hu, noisy)]
    assert 2 * (masks[0] & masks[1]).sum() / (masks[0].sum() + masks[1].sum()) > 0.98


def test_bowel_gas_is_not_the_second_lung(chest_hu):
    one_lung = chest_hu.copy()
    one_lung[:, :, :64][one_lung[:, :, :64] == -850] = 40
    gas = one_lung.copy()
    gas[:14, 40:90, 30:60] = -1000
    assert np.array_equal(lung_mask(gas, SPACING, 6.0, CONFIG), lung_mask(one_lung, SPACING, 6.0, CONFIG))


def test_half_a_chest_is_enough_and_a_leg_is_not(chest_hu):
    assert lung_mask(chest_hu[20:], SPACING, 6.0, CONFIG).any()
    for body in (np.full_like(chest_hu, -1000), np.where(chest_hu == -850, 40, chest_hu).astype(np.int16)):
        with pytest.raises(SeriesRejected) as caught:
            lung_mask(body, SPACING, 6.0, CONFIG)
        assert caught.value.reason is Reason.NO_LUNGS
    with pytest.raises(SeriesRejected, match="plausible"):
        lung_mask(chest_hu, SPACING, 6.0, LungConfig(max_litres=1.5))


def test_real_lungs(mirror_series):
    for folder in mirror_series.values():
        volume = read_series(folder)
        mask = lung_mask(volume.hu, volume.spacing_mm, volume.slice_spacing_mm, CONFIG)
        voxel = volume.spacing_mm[0] * volume.spacing_mm[1] * volume.slice_spacing_mm * 1e-6
        assert 2.5 < mask.sum() * voxel < 6.5
        assert -900 < np.median(volume.hu[mask]) < -700
        # Nearly all of it in a left and a right part of like size, or in one part that spans the midline.
        rows, columns = (np.flatnonzero(mask.any(axis=axes)) for axes in ((0, 2), (0, 1)))
        middle = (columns[0] + columns[-1]) // 2
        assert 0.35 < mask[:, :, :middle].sum() / mask.sum() < 0.65
        assert 200 < (columns[-1] - columns[0]) * volume.spacing_mm[1] < 350
        assert 120 < (rows[-1] - rows[0]) * volume.spacing_mm[0] < 270
        assert ndimage.label(mask)[1] < 12
