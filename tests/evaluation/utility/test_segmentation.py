"""Segmentation as the task: pairs of image and mask in every arm, each held-out slice scored by its Dice."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from scipy.ndimage import gaussian_filter

from lungsynth.dataset.store import COLUMNS, SliceDataset, SliceMeta
from lungsynth.errors import LungsynthError
from lungsynth.evaluation.utility.measure import UtilityConfig, measure_utility
from lungsynth.evaluation.utility.predictions import Predictions
from lungsynth.generators.package import Pairs

SIZE = 32
QUICK = UtilityConfig(task="segmentation", seeds=2, steps=3, batch=4, ratios=(1.0,), unet_width=4, workers=1)


def draw_discs(rng: np.random.Generator, count: int) -> Pairs:
    """Discs, darker or brighter than the rough field that they lie on, and where they are."""
    y, x = np.mgrid[:SIZE, :SIZE]
    images, masks = np.empty((2, count, SIZE, SIZE), np.uint8)
    for image, mask in zip(images, masks, strict=True):
        down, right, radius = *rng.uniform(8, 24, 2), rng.uniform(4, 8)
        mask[:] = np.hypot(y - down, x - right) < radius
        field = gaussian_filter(rng.normal(size=mask.shape), 2)
        grey = 128 + 15 * field / field.std() + rng.choice([-1, 1]) * rng.uniform(20, 50) * mask
        image[:] = np.clip(grey + rng.normal(0, 8, mask.shape), 0, 255)
    return Pairs(images, masks)


def oracle(labels: np.ndarray, seed: int) -> Pairs:
    """Discs that no patient has, with their masks."""
    return draw_discs(np.random.default_rng((seed, 9)), len(labels))


@pytest.fixture(scope="module")
def discs(tmp_path_factory):
    """4 training, 8 validation and 24 test patients of two slices, all of one class."""
    splits = np.repeat(["train", "val", "test"], [8, 16, 48])
    rows = [(f"p{n // 2}", f"1.{n // 2}", f"1.{n}", float(n), "normal", split) for n, split in enumerate(splits)]
    table = pd.DataFrame(rows, columns=["patient", "series_uid", "sop_uid", "position_mm", "label", "split"])
    pairs = draw_discs(np.random.default_rng(0), len(splits))
    return SliceDataset.write(
        tmp_path_factory.mktemp("discs") / "slices",
        pairs.images,
        table.reindex(columns=list(COLUMNS)),
        meta=SliceMeta(SIZE, None, "discs", classes=("normal",)),
        masks=pairs.masks,
    )


@pytest.fixture(scope="module")
def predictions(discs):
    return measure_utility(discs, {"synthetic": oracle, "champion": oracle}, QUICK)


def test_arms_are_those_of_classification_that_mean_something(discs, predictions):
    assert predictions.arms_of("baseline") == ("real", "real+classical")
    assert predictions.arms_of("candidate") == ("real+classical+synthetic@1",)
    assert predictions.arms_of("champion") == ("real+classical+champion@1",)
    assert predictions.arms_of("control") == ("real+classical+shuffled@1", "synthetic+classical")
    assert predictions.measure == "Dice"
    scores, _, patients = predictions.of("real", "test")
    assert scores.shape == (2, 48)
    assert len(np.unique(patients)) == 24
    assert (scores >= 0).all()
    assert (scores <= 1).all()


def test_dice_is_the_same_again_and_side_by_side(discs, predictions):
    again = measure_utility(discs, {"synthetic": oracle}, QUICK.model_copy(update={"workers": 2}))
    for arm in again.arms:
        np.testing.assert_array_equal(again.of(arm, "test").scores, predictions.of(arm, "test").scores)


def test_the_record_keeps_what_it_holds(predictions, tmp_path):
    noted = replace(predictions, notes=("The champion draws no masks.",))
    noted.save(tmp_path / "predictions.parquet")
    again = Predictions.load(tmp_path / "predictions.parquet")
    assert (again.measure, again.notes, again.sha256) == ("Dice", noted.notes, noted.sha256)
    assert noted.sha256 != predictions.sha256 != replace(predictions, measure="AUROC").sha256


@pytest.mark.slow
def test_pairs_help_where_patients_are_few_and_masks_of_others_do_not(discs):
    config = UtilityConfig(
        task="segmentation",
        seeds=3,
        steps=120,
        batch=8,
        lr=1e-2,
        unet_width=4,
        ratios=(4.0,),
        baselines=("real+classical",),
        controls=("shuffled",),
    )
    found = measure_utility(discs, {"synthetic": oracle}, config)
    real, oracles, shuffled = (
        found.of(f"real+classical{more}", "test").scores.mean() for more in ("", "+synthetic@4", "+shuffled@1")
    )
    assert oracles > real + 0.1
    assert shuffled < real + 0.05


def test_a_dataset_without_masks_is_named(toy):
    with pytest.raises(LungsynthError, match=r"needs masks: build the slices with slices\.masks: true"):
        measure_utility(toy, {}, QUICK)


def test_masks_of_another_size_are_named(discs):
    def half(labels, seed):
        pairs = oracle(labels, seed)
        return Pairs(pairs.images, pairs.masks[:, ::2, ::2])

    with pytest.raises(LungsynthError, match=r"uint8 \(8, 16, 16\) where the slice dataset asks for uint8 \(8, 32, 32"):
        measure_utility(discs, {"synthetic": half}, QUICK)


def test_a_baseline_of_classes_has_nothing_to_compare():
    with pytest.raises(ValueError, match=r"segmentation has real, real\+classical"):
        UtilityConfig(task="segmentation", baselines=("real+balanced",))
