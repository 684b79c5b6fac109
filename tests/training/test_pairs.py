"""Generators of image and mask: both are learnt together, moved together, and only the image is watched and shown."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from brief_run import BRIEF, halves
from PIL import Image
from tiny_families import TINY

from lungsynth.errors import LungsynthError
from lungsynth.generators.dcgan import DcganConfig
from lungsynth.generators.family import families
from lungsynth.generators.package import GeneratorPackage
from lungsynth.training import Slices, TrainingConfig, TrainingRun, train_generator
from lungsynth.training.augment import AugmentConfig, augment, draw_changes
from lungsynth.training.config import TrainingSections
from lungsynth.training.data import source_of
from lungsynth.training.draws import Draws
from lungsynth.training.read import read

PAIRS = DcganConfig(size=32, nz=8, ngf=8, ndf=8, masks=True)
CPU = torch.device("cpu")


def discs(count=200):
    """Noisy slices with a bright disc, left in class 0 and right in class 1, whose masks are the discs."""
    rng = np.random.default_rng(0)
    labels = np.arange(count) % 2
    y, x = np.mgrid[:32, :32]
    centres, radii = rng.uniform(12, 20, (count, 1, 1)), rng.uniform(5, 8, (count, 1, 1))
    masks = np.hypot(y - centres, x - 10 - 12 * labels[:, None, None]) < radii
    noise = rng.normal(0, 10, (count, 1, 1)) + rng.normal(0, 8, masks.shape)
    images = (np.where(masks, 200, 60) + noise).clip(0, 255).astype(np.uint8)
    return Slices(images, labels, np.arange(count), masks.astype(np.uint8))


def train(folder, slices, generator=PAIRS, training=BRIEF):
    return train_generator(
        TrainingRun(
            slices,
            replace(slices, rows=slices.rows[:40]),
            window_hu=None,
            data_sha256="0" * 64,
            generator=generator,
            training=training,
            folder=folder / "package",
            checkpoints=folder / "checkpoints",
        )
    )


def with_changes(**changes):
    return TrainingConfig.model_validate(BRIEF.model_dump() | changes)


@pytest.fixture(scope="module")
def package(tmp_path_factory):
    # A mask's sharp edge gives synthetic pairs away: the discriminator has to be held back.
    loss = {"kind": "logistic", "r1_gamma": 1, "penalty_every": 4}
    changes = {"kimg": 4, "generator_lr": 2e-3, "discriminator_lr": 5e-4, "loss": loss, "augment": {"translate": 0}}
    return train(tmp_path_factory.mktemp("pairs"), discs(), training=with_changes(**changes))


def test_masks_fit_the_slices_that_they_were_drawn_with(package):
    labels = np.arange(100) % 2
    images, masks = GeneratorPackage(package.folder).sample_pairs(labels, seed=1)
    assert (images.shape, images.dtype, masks.dtype) == (masks.shape, np.uint8, np.uint8)
    assert set(np.unique(masks)) == {0, 1}
    bright = images > 130
    overlap = 2 * (bright & (masks == 1)).sum() / (bright.sum() + masks.sum())
    others = 2 * (bright & (np.roll(masks, 2, axis=0) == 1)).sum() / (bright.sum() + masks.sum())  # of the same class
    assert overlap > max(0.8, others + 0.05)
    left, right = (masks[labels == code].mean(axis=(0, 1)).argmax() for code in (0, 1))
    assert left < 16 < right


def test_the_image_alone_is_sampled_and_shown(package):
    labels = np.arange(6) % 2
    assert np.array_equal(package.sample(labels, seed=2), package.sample_pairs(labels, seed=2).images)
    with Image.open(package.folder / "samples.png") as picture:
        assert (picture.mode, picture.size) == ("L", (8 * 32, 4 * 32))
    assert package.sample_pairs(labels[:0], seed=2).masks.shape == (0, 32, 32)


def test_networks_of_each_class_draw_pairs(tmp_path):
    package = train(tmp_path, discs(), PAIRS.model_copy(update={"per_class": True}), with_changes(kimg=0.1))
    assert package.sample_pairs(np.array([0, 1, 1]), seed=0).masks.shape == (3, 32, 32)


def test_batches_hold_the_mask_as_last_channel():
    slices = replace(discs(), rows=np.arange(50, 150))
    with source_of(slices, balanced=True, seed=0, device=CPU) as source:
        pairs, _ = source.batch(0, 32)
    assert pairs.shape == (32, 2, 32, 32)
    assert pairs[:, 1].unique().tolist() == [-1, 1]
    assert (pairs[:, 0][pairs[:, 1] == 1].mean() - pairs[:, 0][pairs[:, 1] == -1].mean()) > 0.9
    assert slices.take(np.arange(3)).shape == (3, 1, 32, 32)


def test_augmentation_moves_both_and_brightens_the_image_alone():
    config = AugmentConfig(translate=0.125, scale=0.1, rotate_degrees=10, brightness=0.05, cutout=0.25)
    mask = torch.from_numpy(discs(64).masks).float()[:, None] * 2 - 1
    changes = draw_changes(64, torch.tensor(1.0), config, draws=Draws(0, 0, CPU))
    moved = augment(torch.cat([mask, mask], dim=1), changes, config, masks=True)
    still = config.model_copy(update={"brightness": 0.0})
    assert torch.equal(moved[:, 1:], augment(mask, changes, still))
    assert torch.equal(moved[:, :1], augment(mask, changes, config))
    assert not torch.equal(moved[:, 0], moved[:, 1])


def test_masks_that_are_missing_or_do_not_fit_are_named_before_training(tmp_path):
    whole = discs(40)
    for slices, generator, line in (
        (replace(whole, masks=None), PAIRS, "the slices have no masks; build them with slices.masks: true"),
        (replace(whole, masks=whole.masks[:, ::2]), PAIRS, "a mask of 0 and 1 for each slice, of its size; got 40×16"),
        (whole, PAIRS.model_copy(update={"masks": False}), "but generator.masks is false"),
    ):
        with pytest.raises(LungsynthError, match=line) as caught:
            train(tmp_path, slices, generator)
        assert "\n" not in str(caught.value)
    assert not (tmp_path / "checkpoints").exists()


def test_a_generator_without_masks_says_so(tmp_path):
    plain = train(tmp_path, Slices.all(*halves()), PAIRS.model_copy(update={"masks": False}), with_changes(kimg=0.016))
    with pytest.raises(LungsynthError, match=r"draws no masks; train a generator with generator\.masks: true"):
        plain.sample_pairs(np.array([0]), seed=0)


def test_arrays_with_masks_are_read(tmp_path):
    slices = discs(20)
    arrays = {"images": slices.images, "labels": slices.labels}
    np.savez(tmp_path / "plain.npz", **arrays)
    np.savez(tmp_path / "pairs.npz", **arrays, masks=slices.masks)
    plain, pairs = read(tmp_path / "plain.npz"), read(tmp_path / "pairs.npz")
    assert np.array_equal(pairs.of("train", masks=True).masks, slices.masks)
    assert pairs.of("train").masks is None
    assert plain.of("train", masks=True).masks is None
    assert plain.sha256 != pairs.sha256


@pytest.mark.parametrize("name", families())
def test_every_family_learns_pairs(name, tmp_path):
    generator = {"size": 32, "masks": True, **TINY[name]}
    training = {"kimg": 0.032, "batch": 8, "device": "cpu", "growth": None, "monitor": {"images": 10}}
    sections = TrainingSections.model_validate({"generator": generator, "training": training})
    package = train(tmp_path, discs(60), sections.generator, sections.training)
    assert package.sample_pairs(np.array([0, 1]), seed=0).masks.shape == (2, 32, 32)
