from dataclasses import replace

import numpy as np
import pytest
import torch

from lungsynth.dataset.store import SliceDataset
from lungsynth.dataset.vocabulary import CLASSES
from lungsynth.errors import LungsynthError
from lungsynth.evaluation.utility.classifier import ClassicalConfig, augment, build_classifier, mix
from lungsynth.evaluation.utility.measure import UtilityConfig, _pool, _synthetic, arms, measure_utility
from lungsynth.evaluation.utility.predictions import Predictions
from lungsynth.evaluation.utility.tasks import Classification

QUICK = UtilityConfig(seeds=2, steps=4, batch=8, ratios=(1.0,), workers=1)


@pytest.fixture(scope="module")
def predictions(toy, fresh_sampler, noise_sampler):
    samplers = {"synthetic": fresh_sampler, "champion": noise_sampler}
    return measure_utility(toy, samplers, QUICK.model_copy(update={"ratios": (0.5, 1.0)}))


def test_every_arm_scores_every_held_out_slice_with_every_seed(toy, predictions):
    base = "real+classical"
    assert predictions.arms_of("baseline") == ("real", "real+balanced", base, f"{base}+mix")
    assert predictions.arms_of("candidate") == (f"{base}+synthetic@0.5", f"{base}+synthetic@1")
    assert predictions.arms_of("champion") == (f"{base}+champion@0.5", f"{base}+champion@1")
    assert predictions.arms_of("control") == (f"{base}+shuffled@1", "synthetic+classical")
    assert len(predictions.arms) == 10
    held_out = {*toy.rows("val"), *toy.rows("test")}
    for _, part in predictions.table.groupby(["arm", "seed"]):
        assert set(part["row"]) == held_out
    scores, labels, patients = predictions.of("real", "test")
    assert scores.shape == (2, 128)
    assert (labels == toy.labels[toy.rows("test")]).all()
    assert len(np.unique(patients)) == 16


def test_scores_are_the_same_again_and_side_by_side(toy, predictions, fresh_sampler):
    again = measure_utility(toy, {"synthetic": fresh_sampler}, QUICK.model_copy(update={"workers": 2}))
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
    config = UtilityConfig(seeds=1, steps=80, batch=16, baselines=("real",), workers=1)
    scores, labels, _ = measure_utility(toy, {}, config).of("real", "test")
    assert np.mean(scores[0][labels == 1][:, None] > scores[0][labels == 0]) > 0.75


def test_a_split_without_a_class_is_named(toy, tmp_path):
    table = toy.table.copy()
    table.loc[table["split"] == "val", "label"] = "non-cancer"
    lacking = SliceDataset.write(tmp_path / "lacking", toy.images[:], table, meta=toy.meta)
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
    three = SliceDataset.write(tmp_path / "three", toy.images[:], toy.table, meta=meta)
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


def test_slices_and_their_targets_are_mixed_alike():
    images = torch.arange(8.0)[:, None, None, None].expand(8, 1, 32, 32) / 4 - 1
    targets = torch.arange(8.0)
    for seed in range(20):
        mixed, soft = mix(images, targets, ClassicalConfig(), rng=np.random.default_rng(seed))
        torch.testing.assert_close((mixed.mean((1, 2, 3)) + 1) * 4, soft)
    assert not images.ne(torch.arange(8.0)[:, None, None, None] / 4 - 1).any()


def test_shuffled_labels_keep_their_counts(toy, fresh_sampler):
    pool = _pool(Classification(toy, QUICK), fresh_sampler, 101, seed=0)
    arm = arms(QUICK, ["synthetic"])[-2]
    shuffled = _synthetic(arm, {"synthetic": pool}, 101, seed=0)
    assert (arm.name, arm.role) == ("real+classical+shuffled@1", "control")
    assert shuffled.labels.sum() == 51
    assert 20 < (shuffled.labels != pool.labels).sum() < 80


@pytest.mark.parametrize("architecture", ["vgg-small", "resnet18"])
def test_classifiers_take_one_channel_and_give_one_logit(architecture):
    assert build_classifier(architecture)(torch.zeros(2, 1, 64, 64)).shape == (2, 1)
