"""The section `training`, and what a family's recipe adds to it."""

import pytest
from pydantic import ValidationError

from lungsynth.generators.dcgan import DcganConfig
from lungsynth.training import TrainingConfig
from lungsynth.training.config import with_recipe

GENERATOR = DcganConfig(size=32)


@pytest.mark.parametrize(
    "wrong",
    [
        {"batch": 30},
        {"micro_batch": 6},
        {"kimg": 0},
        {"kimgs": 3},
        {"loss": {"kind": "logistic", "r1_gamma": -1}},
        {"loss": {"kind": "hinge"}},
        {"generator_lr": {"start": 1e-3, "end": 0}},
        {"device": "tpu"},
        {"augment": {"scale": 0.1}, "loss": {"kind": "denoising"}},
    ],
)
def test_wrong_configuration(wrong):
    with pytest.raises(ValidationError, match=next(iter(wrong))):
        TrainingConfig.model_validate(wrong)


def test_the_recipe_fills_what_is_left_out():
    own = with_recipe(GENERATOR, {"batch": 16, "loss": {"r1_gamma": 2}})
    config = TrainingConfig.model_validate(own)
    assert (config.batch, config.generator_lr, config.beta2) == (16, 2e-4, 0.999)
    assert (config.loss.r1_gamma, config.loss.kind, config.loss.penalty_every) == (2, "logistic", 16)


def test_of_another_loss_the_recipe_knows_nothing():
    own = with_recipe(GENERATOR, {"loss": {"kind": "wasserstein", "slope": 10}})
    assert own["loss"] == {"kind": "wasserstein", "slope": 10}


def test_a_recipe_is_not_changed_by_its_use():
    before = with_recipe(GENERATOR, {})
    with_recipe(GENERATOR, {"loss": {"r1_gamma": 2}})["batch"] = 4
    assert with_recipe(GENERATOR, {}) == before
