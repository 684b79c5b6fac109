"""All 64 bits of a seed count, and those below 2³² give what they always gave."""

import numpy as np
import pytest
import torch
from pydantic import ValidationError
from tiny_families import tiny_package

from lungsynth.errors import LungsynthError
from lungsynth.evaluation.extractor import ExtractorConfig
from lungsynth.evaluation.fidelity.measure import FidelityConfig
from lungsynth.evaluation.privacy.checks import PrivacyConfig
from lungsynth.generators.latents import latents_of
from lungsynth.lungs.unet_training import LungTrainingConfig
from lungsynth.training import TrainingConfig

FIRST = {
    "dcgan": (
        [124, 129, 128, 134, 126, 131, 120, 131, 126, 123, 133, 128, 137, 125, 132, 121, 133, 128],
        [120, 133, 128, 142, 117, 131, 123, 131, 126, 122, 132, 127, 137, 126, 132, 121, 129, 125],
    ),
    "dcgan per class": (
        [128, 127, 128, 123, 120, 124, 134, 127, 124, 129, 139, 123, 143, 126, 141, 129, 134, 123],
        [130, 131, 127, 122, 121, 124, 134, 124, 124, 118, 143, 123, 149, 121, 140, 127, 134, 124],
    ),
    "pggan": (
        [90, 0, 0, 4, 47, 0, 0, 160, 0, 22, 0, 84, 0, 65, 0, 0, 126, 0],
        [45, 0, 0, 0, 20, 0, 0, 112, 0, 134, 0, 0, 74, 82, 0, 230, 167, 0],
    ),
    "r3gan": (
        [102, 132, 142, 121, 84, 136, 108, 137, 147, 109, 221, 110, 159, 111, 92, 141, 203, 71],
        [255, 130, 0, 115, 89, 184, 60, 243, 255, 255, 199, 152, 134, 80, 133, 0, 169, 145],
    ),
    "stylegan2": (
        [119, 10, 157, 132, 177, 53, 174, 203, 58, 148, 80, 123, 230, 255, 96, 255, 255, 95],
        [208, 0, 125, 134, 255, 207, 201, 222, 140, 207, 137, 129, 222, 255, 171, 255, 255, 104],
    ),
    "edm": (
        [255, 255, 0, 0, 0, 0, 0, 255, 255, 0, 255, 0, 255, 0, 0, 0, 255, 255],
        [255, 255, 255, 0, 0, 0, 0, 255, 0, 0, 0, 0, 0, 0, 0, 0, 255, 255],
    ),
}
"""Every 13th pixel of slices of the seeds 3 and 2³² - 1, drawn before seeds of more than 32 bits were."""


@pytest.mark.parametrize("name", FIRST)
def test_slices_of_seeds_below_2_to_the_32_stay_as_they_were(name, tmp_path):
    package = tiny_package(name, tmp_path)
    for seed, first in zip((3, 2**32 - 1), FIRST[name], strict=True):
        drawn = package.sample(np.array([1, 0, 1]), seed)[:, 3::13, 5::13].ravel()[: len(first)]
        assert np.abs(drawn.astype(int) - first).max() <= 2  # processors round differently


@pytest.mark.parametrize("seed", [0, 3, 2**31, 2**32 - 1])
def test_latents_of_seeds_below_2_to_the_32_are_torchs(seed):
    assert torch.equal(latents_of(seed, 5, 7), torch.randn(5, 7, generator=torch.Generator().manual_seed(seed)))


def test_every_bit_of_a_seed_counts():
    seeds = [3, *(3 ^ (1 << bit) for bit in range(64)), 2**64 - 1, 2**32, 3 << 32, 3 << 32 | 3]
    drawn = {latents_of(seed, 2, 3).numpy().tobytes() for seed in seeds}
    assert len(drawn) == len(seeds)


def test_slices_of_seeds_that_share_their_lower_bits_differ(tmp_path):
    package, labels = tiny_package("pggan", tmp_path), np.array([0, 1])
    drawn = {package.sample(labels, seed).tobytes() for seed in (3, 2**32 + 3, 2**63 + 3, np.uint64(2**33 + 3))}
    assert len(drawn) == 4


@pytest.mark.parametrize("seed", [2**32, 2**64 - 1])
def test_latents_of_long_seeds_are_standard_normal_and_begin_alike(seed):
    many = latents_of(seed, 1000, 100)
    assert many.dtype == torch.float32
    assert (many.mean().abs(), many.std()) == (pytest.approx(0, abs=0.02), pytest.approx(1, abs=0.02))
    for count in (1, 3, 999):
        assert torch.equal(latents_of(seed, count, 100), many[:count])


@pytest.mark.parametrize(
    ("seed", "says"),
    [
        (None, "of the type NoneType"),
        ("3", "of the type str"),
        (3.0, "of the type float"),
        (True, "of the type bool"),
        (np.True_, "of the type bool"),
        (np.arange(2), "of the type ndarray"),
        (-1, "negative"),
        (np.int64(-(2**63)), "negative"),
        (2**64, "2⁶⁴ or more"),
        pytest.param(10**5000, "2⁶⁴ or more", id="more digits than Python prints"),
    ],
)
def test_what_is_no_seed_is_one_line(seed, says):
    with pytest.raises(LungsynthError, match=f"^seed is {says}; give a whole number from 0 to 2⁶⁴ - 1, 1844674"):
        latents_of(seed, 1, 4)


@pytest.mark.parametrize("config", [TrainingConfig, ExtractorConfig, FidelityConfig, PrivacyConfig, LungTrainingConfig])
def test_configured_seeds_end_where_their_generators_do(config):
    assert config(seed=2**32 - 1).seed == 2**32 - 1
    with pytest.raises(ValidationError, match="less than or equal to 4294967295"):
        config(seed=2**32)
