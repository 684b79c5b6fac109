"""A step against a discriminator: the same in one pass as in several."""

import sys
from pathlib import Path

import pytest
import torch
from lightning_fabric import Fabric

from lungsynth import generators
from lungsynth.generators.dcgan import DcganConfig, Discriminator
from lungsynth.generators.family import GeneratorConfig
from lungsynth.training import TrainingConfig
from lungsynth.training.adversarial import Adversarial
from lungsynth.training.draws import Draws
from lungsynth.training.inputs import Inputs
from lungsynth.training.state import TrainingState

CPU = torch.device("cpu")
BATCH = 20


@pytest.fixture
def state_of(monkeypatch):
    """A new state, with the toy generator, which has no batch norm, against a convolutional discriminator."""
    monkeypatch.setattr(generators, "__path__", [*generators.__path__, str(Path(__file__).parents[1] / "families")])

    def make(training):
        state = TrainingState.new(GeneratorConfig.model_validate({"family": "toy", "size": 32}), training, CPU)
        with torch.random.fork_rng():
            torch.manual_seed(1)
            state.discriminator = Discriminator(DcganConfig(size=32, ndf=4))
        state.discriminator_optimizer = torch.optim.SGD(state.discriminator.parameters(), lr=0.1)
        state.generator_optimizer = torch.optim.SGD(state.generator.parameters(), lr=0.1)
        return state

    yield make
    sys.modules.pop(f"{generators.__name__}.toy", None)


def step(state, training):
    rng = torch.Generator().manual_seed(0)
    real, labels = torch.randn(BATCH, 1, 32, 32, generator=rng), torch.arange(BATCH) % 2
    draws, fabric = Draws(0, state.step, CPU), Fabric(accelerator="cpu", devices=1)
    return Adversarial(training.loss).step(state, Inputs(real, labels, draws, training, fabric))


def configuration(**changes):
    return TrainingConfig.model_validate({"batch": BATCH, "device": "cpu", "augment": {"p": 0.5}} | changes)


@pytest.mark.parametrize(
    "loss",
    [
        {"kind": "logistic", "r1_gamma": 1},
        {"kind": "relativistic", "r1_gamma": 1, "r2_gamma": 2},
        {"kind": "wasserstein", "r1_gamma": 0, "slope": 10, "drift": 0.1},
    ],
)
@pytest.mark.parametrize("micro_batch", [4, 8])  # the latter leaves a smaller rest
def test_several_passes_are_one(state_of, loss, micro_batch):
    whole, parts = (configuration(loss=loss, micro_batch=size) for size in (None, micro_batch))
    one, several = state_of(whole), state_of(parts)
    torch.testing.assert_close(step(one, whole), step(several, parts), rtol=1e-5, atol=1e-6)
    for name in ("generator", "discriminator"):
        for key, parameter in getattr(one, name).named_parameters():
            other = dict(getattr(several, name).named_parameters())[key]
            torch.testing.assert_close(parameter.grad, other.grad, rtol=1e-4, atol=1e-6, msg=f"{name}.{key}")
            assert parameter.grad.abs().sum() > 0


def test_several_passes_keep_no_graph_of_each_other(state_of):
    parts = configuration(micro_batch=4)
    state = state_of(parts)
    graphs = []
    draw = state.generator.forward
    state.generator.forward = lambda *inputs: graphs.append(draw(*inputs)) or graphs[-1]
    step(state, parts)
    # First the discriminator's turn, in which nothing of the generator is to be kept, then its own.
    assert [images.requires_grad for images in graphs] == [False] * 5 + [True] * 5


def test_a_penalty_comes_every_few_steps_and_makes_up_for_it(state_of):
    def gradient(number, **loss):
        training = configuration(loss={"kind": "wasserstein", "penalty_every": 4, **loss})
        state = state_of(training)
        state.step = number
        step(state, training)
        return torch.cat([parameter.grad.flatten() for parameter in state.discriminator.parameters()])

    without, penalty = gradient(4, r1_gamma=0), gradient(4, r1_gamma=3e3, penalty_every=1)
    torch.testing.assert_close(gradient(4, r1_gamma=3e3) - without, 4 * (penalty - without), rtol=1e-3, atol=1e-5)
    assert (penalty - without).abs().max() > 1e-3
    assert torch.equal(gradient(5, r1_gamma=3e3), gradient(5, r1_gamma=0))
