"""Segmenters: what Dice says, that pairs stay pairs, and that results depend on the seed alone."""

import numpy as np
import pytest
import torch

from lungsynth.evaluation.utility.classifier import BatchPlan, ClassicalConfig, ClassifierConfig, Pool, augment, move
from lungsynth.evaluation.utility.segmenter import dice, new_segmenter, train_segmenter

CONFIG = ClassifierConfig(steps=3, batch=4, unet_width=4)


class Threshold(torch.nn.Module):
    """Finds what is brighter than mid-grey."""

    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.ones(()))

    def forward(self, images):
        return images * self.weight


def squares(*sides):
    """Bright squares at the upper left of dark slices, N×32×32."""
    found = np.zeros((len(sides), 32, 32), np.uint8)
    for slice_, side in zip(found, sides, strict=True):
        slice_[:side, :side] = 1
    return found


def test_dice_of_each_slice():
    found, truth = squares(4, 4, 0, 0, 8), squares(4, 0, 4, 0, 4)
    expected = [1, 0, 0, 1, 2 * 16 / (64 + 16)]  # where nothing is to be found and nothing is, that is right
    assert dice(Threshold(), 255 * found, truth).tolist() == pytest.approx(expected)


def test_a_diverged_model_has_no_dice():
    model = Threshold()
    torch.nn.init.constant_(model.weight, torch.nan)
    assert np.isnan(dice(model, squares(4), squares(4))).all()


def test_the_mask_moves_with_its_slice():
    pairs = torch.from_numpy(squares(*range(8, 24))).float()[:, None].expand(-1, 2, -1, -1) * 2 - 1
    moved = move(pairs, ClassicalConfig(), torch.Generator().manual_seed(0))
    assert torch.equal(moved[:, 0], moved[:, 1])
    assert (moved - pairs).abs().mean() > 0.05
    noised = augment(pairs[:, :1], ClassicalConfig(), torch.Generator().manual_seed(0))
    assert 0 < (noised - moved[:, :1]).abs().mean() < 0.05


def trained(seed, synthetic=None, share=0.0):
    rng = np.random.default_rng(0)
    real = Pool(rng.integers(0, 256, (6, 32, 32), np.uint8), squares(*range(4, 10)))
    model = new_segmenter(CONFIG, 32, seed, device="cpu")
    return train_segmenter(
        model, real, synthetic, plan=BatchPlan(synthetic=share), seed=seed, config=CONFIG
    ).state_dict()["head.weight"]


def test_weights_follow_from_the_seed():
    before = torch.random.get_rng_state()
    assert torch.equal(trained(0), trained(0))
    assert not torch.equal(trained(0), trained(1))
    assert torch.equal(before, torch.random.get_rng_state())


def test_the_share_of_synthetic_slices_is_the_recipe_s():
    synthetic = Pool(np.zeros((2, 32, 32), np.uint8), squares(9, 9))
    assert torch.equal(trained(0), trained(0, synthetic))
    assert not torch.equal(trained(0), trained(0, synthetic, 0.5))


def test_slices_that_cannot_be_told_apart_from_their_masks_are_learnt():
    masks = squares(*range(4, 28))
    config = CONFIG.model_copy(update={"steps": 40, "lr": 0.02})
    model = train_segmenter(
        new_segmenter(config, 32, 0, device="cpu"),
        Pool(200 * masks, masks),
        None,
        plan=BatchPlan(),
        seed=0,
        config=config,
    )
    assert dice(model, 200 * masks, masks).mean() > 0.8
