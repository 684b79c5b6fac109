"""Losses and penalties, each against numbers worked out by hand or torch's own."""

import math

import pytest
import torch
from torch.nn.functional import binary_cross_entropy_with_logits

from lungsynth.training.losses import (
    DISCRIMINATOR_LOSSES,
    GENERATOR_LOSSES,
    relativistic_generator,
    slope_penalty,
    zero_centred_penalty,
)

REAL, FAKE = torch.tensor([2.0, 0.5]), torch.tensor([-2.0, 0.0])


def test_logistic_loss_is_binary_cross_entropy():
    discriminator, generator = DISCRIMINATOR_LOSSES["logistic"], GENERATOR_LOSSES["logistic"]
    truth = torch.tensor([1.0, 1, 0, 0])
    both = binary_cross_entropy_with_logits(torch.cat([REAL, FAKE]), truth)
    assert discriminator(REAL, FAKE) == pytest.approx(2 * both.item())
    assert generator(FAKE) == pytest.approx((math.log(1 + math.e**2) + math.log(2)) / 2)


def test_relativistic_loss_compares_each_pair():
    discriminator, generator = DISCRIMINATOR_LOSSES["relativistic"], relativistic_generator
    assert discriminator(REAL, FAKE) == pytest.approx((math.log(1 + math.e**-4) + math.log(1 + math.e**-0.5)) / 2)
    assert generator(REAL, FAKE) == pytest.approx((math.log(1 + math.e**4) + math.log(1 + math.e**0.5)) / 2)


def test_wasserstein_loss_is_a_distance_of_means():
    discriminator, generator = DISCRIMINATOR_LOSSES["wasserstein"], GENERATOR_LOSSES["wasserstein"]
    assert discriminator(REAL, FAKE) == -1 - 1.25
    assert generator(FAKE) == 1


def test_zero_centred_penalty():
    images = torch.ones(2, 1, 2, 2, requires_grad=True)
    weight = torch.tensor(3.0, requires_grad=True)
    penalty = zero_centred_penalty((weight * images).sum(dim=(1, 2, 3)), images)
    assert penalty.item() == 4 * 3**2 / 2
    penalty.backward()
    assert weight.grad == 4 * 3


def test_slope_penalty_measures_between_the_slices():
    real, fake = torch.full((2, 1, 2, 2), 4.0), torch.zeros(2, 1, 2, 2)
    mix = torch.tensor([0.25, 0.5])
    # x²/2 summed over four pixels slopes by x in each: 2·x along its gradient, at x = 1 and x = 2.
    penalty = slope_penalty(lambda x: x.square().sum(dim=(1, 2, 3)) / 2, real, fake, mix=mix)
    assert penalty.item() == pytest.approx(((2 - 1) ** 2 + (4 - 1) ** 2) / 2)
