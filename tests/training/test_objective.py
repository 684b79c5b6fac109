"""Both objectives: they report what they name, and train what has the networks they need."""

import pytest
import torch
from tiny_families import TINY

from lungsynth.errors import LungsynthError
from lungsynth.generators.family import GeneratorConfig
from lungsynth.training.config import TrainingSections
from lungsynth.training.devices import launch
from lungsynth.training.draws import Draws
from lungsynth.training.inputs import Inputs
from lungsynth.training.losses import AdversarialLoss, DenoisingLoss
from lungsynth.training.objective import objective_of
from lungsynth.training.state import TrainingState

CPU = torch.device("cpu")


@pytest.mark.parametrize("family", ["dcgan", "edm"])
def test_a_step_reports_the_statistics_by_name_and_trains(family: str) -> None:
    training = {"batch": 4, "device": "cpu"} | ({"micro_batch": 4} if family == "edm" else {})
    sections = TrainingSections.model_validate({"generator": {"size": 32} | TINY[family], "training": training})
    state = TrainingState.new(sections.generator, sections.training, CPU)
    before = [torch.cat([p.detach().flatten() for p in network.parameters()]) for network in state.networks]
    objective = objective_of(sections.training.loss)
    objective.check(sections.generator)
    real, labels, config = torch.rand(4, 1, 32, 32), torch.tensor([0, 1, 0, 1]), sections.training
    draws, fabric = Draws(0, 0, CPU), launch(config)
    found = objective.step(state, Inputs(real, labels, draws, config, fabric))
    assert tuple(found) == objective.statistics
    assert all(value.shape == () and value.isfinite() and not value.requires_grad for value in found.values())
    for network, weights in zip(state.networks, before, strict=True):
        assert not torch.equal(weights, torch.cat([p.detach().flatten() for p in network.parameters()]))


@pytest.mark.parametrize(("loss", "family"), [(DenoisingLoss(), "dcgan"), (AdversarialLoss(), "edm")])
def test_a_family_with_other_networks_is_refused(loss: AdversarialLoss | DenoisingLoss, family: str) -> None:
    with pytest.raises(LungsynthError, match=rf"training\.loss\.kind is {loss.kind}, which does not train {family}"):
        objective_of(loss).check(GeneratorConfig.model_validate({"size": 32} | TINY[family]))
