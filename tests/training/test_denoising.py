"""EDM's loss by hand, its random numbers, and runs of a tiny diffusion model."""

import json

import numpy as np
import pytest
import torch

from lungsynth.errors import LungsynthError
from lungsynth.generators.dcgan import DcganConfig
from lungsynth.generators.edm import EdmConfig, Generator, preconditioning
from lungsynth.generators.family import GeneratorNetwork
from lungsynth.training import Slices, TrainingConfig, TrainingRun, output, train_generator
from lungsynth.training.config import with_recipe
from lungsynth.training.denoising import Denoising, loss_weight
from lungsynth.training.devices import launch
from lungsynth.training.draws import Draws
from lungsynth.training.inputs import Inputs
from lungsynth.training.losses import DenoisingLoss
from lungsynth.training.monitor import MonitorConfig
from lungsynth.training.state import TrainingState

CPU = torch.device("cpu")
TINY = EdmConfig(size=32, patch=2, width=16, multipliers=(1, 1), blocks=1, attention=(), dropout=0, steps=6)
CONFIG = TrainingConfig(
    kimg=1.3,
    batch=8,
    loss=DenoisingLoss(),
    augment={"translate": 0},
    generator_lr=4e-3,
    beta1=0.9,
    beta2=0.99,
    ema_kimg=0.1,
    snapshot_kimg=0.5,
    checkpoint_kimg=0.5,
    monitor=MonitorConfig(images=16),
    device="cpu",
)


class Constant(GeneratorNetwork):
    """Finds the same grey behind every image, and keeps what it was shown."""

    def __init__(self, sigma_data):
        super().__init__()
        self.sigma_data = sigma_data
        self.grey = torch.nn.Parameter(torch.tensor(0.25))
        self.seen = []

    def forward(self, z, labels=None, rng=None):
        return self.grey.expand(len(z), 1, 4, 4)

    def denoise(self, x, sigma, labels, rng=None):
        self.seen.append((x, sigma, labels))
        return self.grey.expand_as(x)


def state_of(network, rate=0.0):
    return TrainingState(network, None, network, torch.optim.SGD(network.parameters(), lr=rate), None, {})


def step(state, real, labels, config=CONFIG, rank=0, world=1):
    draws = Draws(3, 0, CPU, rank=rank, world=world)
    statistics = Denoising(config.loss).step(state, Inputs(real, labels, draws, config, launch(config)))
    assert [*statistics] == ["loss"]
    return statistics["loss"]


def reals(count, side=32):
    return torch.randn(count, 1, side, side, generator=torch.Generator().manual_seed(1)) * 0.5, torch.arange(count) % 2


def test_weight_makes_up_for_c_out():
    sigma = torch.tensor([0.002, 0.1, 0.5, 3.0, 80.0])
    torch.testing.assert_close(loss_weight(sigma, 0.5) * preconditioning(sigma, 0.5)[1].square(), torch.ones(5))
    assert loss_weight(torch.tensor(0.5), 0.5).item() == pytest.approx(8)  # (1/4 + 1/4) / (1/16)


def test_noise_and_loss_are_those_of_the_paper():
    network = Constant(sigma_data=0.3)
    real, labels = reals(8000, side=4)
    loss = step(state_of(network, rate=1.0), real, labels)
    ((x, sigma, seen_labels),) = network.seen
    assert torch.equal(seen_labels, labels)
    assert sigma.log().mean().item() == pytest.approx(-1.2, abs=0.05)
    assert sigma.log().std().item() == pytest.approx(1.2, abs=0.05)
    noise = (x - real) / sigma[:, None, None, None]
    assert noise.mean().item() == pytest.approx(0, abs=0.01)
    assert noise.std().item() == pytest.approx(1, abs=0.01)
    assert abs(torch.corrcoef(torch.stack([noise[:, 0, 0, 0], sigma.log()]))[0, 1].item()) < 0.05

    weight = (sigma**2 + 0.3**2) / (sigma * 0.3) ** 2
    error = 0.25 - real
    assert loss.shape == ()
    assert loss.item() == pytest.approx((weight * error.square().mean(dim=(1, 2, 3))).mean().item(), rel=1e-4)
    gradient = (weight * 2 * error.mean(dim=(1, 2, 3))).mean().item()
    assert network.grey.item() == pytest.approx(0.25 - gradient, rel=1e-4)


def test_noise_levels_are_configured():
    network = Constant(sigma_data=0.5)
    loss = DenoisingLoss(log_noise_mean=1.0, log_noise_std=0.1)
    step(state_of(network), *reals(2000, side=4), CONFIG.model_copy(update={"loss": loss}))
    log_sigma = network.seen[0][1].log()
    assert (log_sigma.mean().item(), log_sigma.std().item()) == pytest.approx((1.0, 0.1), abs=0.02)


def test_a_new_network_has_a_loss_of_one():
    # Of images that have the standard deviation it expects: its target then has unit variance, and it gives zero.
    torch.manual_seed(0)
    assert step(state_of(Generator(TINY)), *reals(256)).item() == pytest.approx(1, abs=0.02)


def test_parts_of_a_batch_teach_what_the_whole_does():
    learnt = []
    for micro_batch in (None, 4, 12):
        torch.manual_seed(0)
        network = Generator(TINY)
        torch.nn.init.normal_(network.network.last.weight, std=0.1)
        loss = step(state_of(network, rate=0.1), *reals(16), CONFIG.model_copy(update={"micro_batch": micro_batch}))
        learnt.append((loss, network.network.first.weight.detach()))
    torch.manual_seed(0)
    assert not torch.equal(learnt[0][1], Generator(TINY).network.first.weight)
    for other in learnt[1:]:
        torch.testing.assert_close(other, learnt[0])


def test_processes_share_a_batch():
    real, labels = reals(16, side=4)
    whole = Constant(0.5)
    loss = step(state_of(whole), real, labels)
    halves = [Constant(0.5), Constant(0.5)]
    losses = [
        step(state_of(half), real.chunk(2)[rank], labels.chunk(2)[rank], rank=rank, world=2)
        for rank, half in enumerate(halves)
    ]
    for mine, theirs in zip(whole.seen[0], zip(*(half.seen[0] for half in halves), strict=True), strict=True):
        assert torch.equal(mine, torch.cat(theirs))
    torch.testing.assert_close(sum(losses) / 2, loss)


@pytest.fixture(scope="module")
def data():
    """Dark slices of class 0 and bright ones of class 1, each of its own shade."""
    rng = np.random.default_rng(0)
    labels = np.arange(200) % 2
    shades = np.where(labels, 200, 60) + rng.normal(0, 10, 200)
    noise = rng.normal(0, 3, (200, 32, 32))
    return (shades[:, None, None] + noise).clip(0, 255).astype(np.uint8), labels


def train(data, folder, generator=TINY, training=CONFIG):
    return train_generator(
        TrainingRun(
            Slices.all(*data),
            None,
            window_hu=None,
            data_sha256="0",
            generator=generator,
            training=training,
            folder=folder / "package",
            checkpoints=folder / "checkpoints",
        )
    )


def log_of(package):
    rows = [json.loads(line) for line in (package.folder / "training_log.jsonl").read_text().splitlines()]
    return [{key: value for key, value in row.items() if key != "img_per_s"} for row in rows]


@pytest.fixture(scope="module")
def finished(data, tmp_path_factory):
    """A brief run that nothing disturbed, with some features dropped."""
    return train(data, tmp_path_factory.mktemp("finished"), TINY.model_copy(update={"dropout": 0.1}))


def test_a_run_learns_and_draws_its_classes(finished):
    log = log_of(finished)
    assert all({"kimg", "loss"} <= row.keys() and "loss_d" not in row for row in log)
    assert log[-1]["loss"] < 0.6 * log[0]["loss"]
    dark, bright = finished.sample(np.repeat([0, 1], 16), seed=0).reshape(2, -1).mean(axis=1)
    assert bright > dark + 50


def test_interrupted_run_ends_as_if_it_had_not_been(data, finished, tmp_path, monkeypatch):
    frames = 0

    def killed_at_the_second_frame(*arguments):
        nonlocal frames
        frames += 1
        if frames == 2:
            raise KeyboardInterrupt
        return snapshot(*arguments)

    snapshot = output.snapshot
    monkeypatch.setattr(output, "snapshot", killed_at_the_second_frame)
    generator = TINY.model_copy(update={"dropout": 0.1})
    with pytest.raises(KeyboardInterrupt):
        train(data, tmp_path, generator)
    monkeypatch.undo()
    assert list((tmp_path / "checkpoints").glob("*/state.pt"))
    before = torch.random.get_rng_state()
    resumed = train(data, tmp_path, generator)
    assert torch.equal(before, torch.random.get_rng_state())
    assert resumed.sha256 == finished.sha256
    assert log_of(resumed) == log_of(finished)


def test_a_loss_that_does_not_train_the_family_is_named(data, tmp_path):
    with pytest.raises(LungsynthError, match=r"training\.loss\.kind is logistic, which does not train edm"):
        train(data, tmp_path, training=TrainingConfig())
    with pytest.raises(LungsynthError, match=r"training\.loss\.kind is denoising, which does not train dcgan"):
        train(data, tmp_path, generator=DcganConfig(size=32))


def test_the_recipe_is_a_denoising_one():
    config = TrainingConfig.model_validate(with_recipe(TINY, {"loss": {"log_noise_std": 1.0}}))
    assert config.loss == DenoisingLoss(log_noise_std=1.0)
    assert (config.beta1, config.beta2, config.ema_kimg, config.ema_warm_up) == (0.9, 0.999, 500, 0.05)
