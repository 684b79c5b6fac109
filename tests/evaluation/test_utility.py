from dataclasses import replace

import numpy as np
import pytest
import torch

from lungsynth import CLASSES
from lungsynth.errors import LungsynthError
from lungsynth.evaluation.predictions import Predictions
from lungsynth.evaluation.utility import ClassicalConfig, UtilityConfig, augment, build_classifier, measure_utility
from lungsynth.imaging.store import SliceDataset

QUICK = UtilityConfig(seeds=2, steps=4, batch=8)


@pytest.fixture(scope="module")
def predictions(toy, fresh_sampler, noise_sampler):
    samplers = {"synthetic": fresh_sampler, "champion": noise_sampler}
    return measure_utility(toy, samplers, QUICK.model_copy(update={"ratios": (0.5, 1.0)}))


def test_every_arm_scores_every_held_out_slice_with_every_seed(toy, predictions):
    base = "real+classical"
    names = [base, "real"] + [f"{base}+{name}@{ratio}" for name in ("synthetic", "champion") for ratio in ("0.5", "1")]
    assert predictions.arms == tuple(sorted(names))
    held_out = {*toy.rows("val"), *toy.rows("test")}
    for _, part in predictions.table.groupby(["arm", "seed"]):
        assert set(part["row"]) == held_out
    scores, labels, patients = predictions.of("real", "test")
    assert scores.shape == (2, 128)
    assert (labels == toy.labels[toy.rows("test")]).all()
    assert len(np.unique(patients)) == 16


def test_the_same_configuration_gives_the_same_scores(toy, predictions, fresh_sampler):
    again = measure_utility(toy, {"synthetic": fresh_sampler}, QUICK)
    for arm in again.arms:
        np.testing.assert_array_equal(again.of(arm, "test").scores, predictions.of(arm, "test").scores)


def test_predictions_survive_a_file(predictions, tmp_path):
    predictions.save(tmp_path / "predictions.parquet")
    again = Predictions.load(tmp_path / "predictions.parquet")
    assert (again.sha256, again.classes) == (predictions.sha256, CLASSES)


def test_scores_that_are_not_finite_are_refused(predictions):
    with pytest.raises(LungsynthError, match="real are not finite"):
        Predictions(predictions.table.assign(score=np.where(predictions.table["arm"] == "real", np.nan, 0.5)), CLASSES)


def test_classifiers_learn(toy):
    scores, labels, _ = measure_utility(toy, {}, UtilityConfig(seeds=1, steps=80, batch=16)).of("real", "test")
    assert np.mean(scores[0][labels == 1][:, None] > scores[0][labels == 0]) > 0.75


def test_a_split_without_a_class_is_named(toy, tmp_path):
    table = toy.table.copy()
    table.loc[table["split"] == "val", "label"] = "non-cancer"
    lacking = SliceDataset.write(tmp_path / "lacking", toy.images[:], table, toy.meta)
    with pytest.raises(LungsynthError, match="the val split has no cancer slice"):
        measure_utility(lacking, {}, QUICK)


def test_classes_of_other_names_do_as_well(toy, radiographs):
    predictions = measure_utility(radiographs, {}, QUICK)
    assert predictions.classes == ("NORMAL", "PNEUMONIA")
    np.testing.assert_array_equal(
        predictions.of("real", "test").scores, measure_utility(toy, {}, QUICK).of("real", "test").scores
    )


def test_more_than_two_classes_are_an_error_of_one_line(toy, tmp_path):
    meta = replace(toy.meta, classes=("normal", "viral", "bacterial"))
    three = SliceDataset.write(tmp_path / "three", toy.images[:], toy.table, meta)
    with pytest.raises(LungsynthError, match=r"on two classes, the dataset has 3 \(normal, viral, bacterial\)"):
        measure_utility(three, {}, QUICK)


def test_augmentation_keeps_side_orientation_and_range():
    images = torch.full((64, 1, 32, 32), -1.0)
    images[:, :, 2:8, 2:8] = 1.0  # a mark at the upper left
    moved = augment(images, ClassicalConfig(noise=0), torch.Generator().manual_seed(0))
    assert moved.min() >= -1
    assert moved.max() <= 1
    rows, columns = torch.meshgrid(torch.arange(32.0), torch.arange(32.0), indexing="ij")
    weight = moved[:, 0] + 1
    assert ((weight * rows).sum((1, 2)) / weight.sum((1, 2))).max() < 12
    assert ((weight * columns).sum((1, 2)) / weight.sum((1, 2))).max() < 12
    assert moved.std(0).max() > 0.1


def test_no_augmentation_changes_nothing():
    images = torch.rand(4, 1, 32, 32) * 2 - 1
    still = ClassicalConfig(rotation=0, translation=0, scale=0, noise=0)
    torch.testing.assert_close(augment(images, still, torch.Generator()), images, atol=1e-5, rtol=0)


@pytest.mark.parametrize("architecture", ["vgg-small", "resnet18"])
def test_classifiers_take_one_channel_and_give_one_logit(architecture):
    assert build_classifier(architecture)(torch.zeros(2, 1, 64, 64)).shape == (2, 1)
