"""The schedule at its joints, what real slices look like on the way, WGAN-GP to the number, and runs that grow."""

import dataclasses
import json
import math
from itertools import pairwise

import numpy as np
import pytest
import torch
from lightning_fabric import Fabric
from PIL import Image
from pydantic import ValidationError
from torch import nn

from lungsynth.errors import LungsynthError
from lungsynth.generators.dcgan import DcganConfig
from lungsynth.generators.pggan import PgganConfig
from lungsynth.training import Slices, TrainingConfig, TrainingRun, output, train_generator
from lungsynth.training.adversarial import Adversarial
from lungsynth.training.config import TrainingSections, with_recipe
from lungsynth.training.draws import Draws
from lungsynth.training.growth import GrowthConfig
from lungsynth.training.inputs import Inputs
from lungsynth.training.losses import slope_penalty
from lungsynth.training.resolution import grow, shrink
from lungsynth.training.state import TrainingState

PUBLISHED = GrowthConfig()
SMALL = PgganConfig(size=16, nz=8, width=8, fmap_base=256)
CPU = torch.device("cpu")
FAST = {"stable_kimg": 0.04, "fade_kimg": 0.04, "batches": {16: 4}}
BRIEF = TrainingConfig.model_validate(
    with_recipe(SMALL, {"kimg": 0.24, "batch": 8, "growth": FAST, "snapshot_kimg": 0.05, "checkpoint_kimg": 0.05})
    | {"device": "cpu"}
)


@pytest.mark.parametrize(
    ("kimg", "level"),
    [(0, 2), (600, 2), (900, 2.5), (1200, 3), (1800, 3), (1950, 3.25), (2400, 4), (8100, 8.5), (8400, 9), (12000, 9)],
)
def test_level_of_the_published_schedule(kimg, level):
    assert PUBLISHED.level(512, kimg * 1000) == level


def test_joints_are_exact_to_the_slice():
    assert PUBLISHED.level(512, 600_001) == 2 + 1 / 600_000
    assert PUBLISHED.level(512, 1_199_999) == pytest.approx(3 - 1 / 600_000, abs=1e-12)
    tenths = GrowthConfig(stable_kimg=0.1, fade_kimg=0.2)
    assert [tenths.level(64, shown) for shown in (100, 300, 400, 600, 1200)] == [2, 3, 3, 4, 6]


def test_kimg_to_full_size():
    assert PUBLISHED.grown_kimg(512) == 8400
    assert PUBLISHED.level(512, 8_399_999) < 9
    assert GrowthConfig(start=32, fade_kimg=5, stable_kimg=3).grown_kimg(128) == 16


def test_batch_and_rate_follow_the_resolution():
    growth = GrowthConfig(batches={256: 12, 512: 4}, rates={128: 1.5, 512: 3})
    levels = [2, 6.5, 7, 7.001, 8, 8.001, 9]
    assert [growth.batch(level, 16) for level in levels] == [16, 16, 16, 12, 12, 4, 4]
    assert [growth.rate(level) for level in levels] == [1, 1.5, 1.5, 1.5, 1.5, 3, 3]


def test_real_slices_are_shrunk_by_averaging():
    real = torch.arange(64.0).view(1, 1, 8, 8)
    assert torch.equal(shrink(real, 3), real)
    quarters = shrink(real, 2)
    assert quarters.shape == (1, 1, 4, 4)
    assert quarters[0, 0, 0, 0] == (0 + 1 + 8 + 9) / 4
    assert quarters[0, 0, 3, 1] == (50 + 51 + 58 + 59) / 4


def test_real_slices_fade_in_like_synthetic_ones():
    real = torch.arange(256.0).view(1, 1, 16, 16)
    faded = shrink(real, 2.25)
    fine, coarse = shrink(real, 3), shrink(real, 2)
    assert faded.shape == (1, 1, 8, 8)
    for row, column in ((0, 0), (5, 2), (7, 7)):
        expected = 0.25 * fine[0, 0, row, column] + 0.75 * coarse[0, 0, row // 2, column // 2]
        assert faded[0, 0, row, column].item() == pytest.approx(expected.item())


def test_networks_rates_and_moments_follow_the_level():
    growth = GrowthConfig(stable_kimg=0.1, fade_kimg=0.1, batches={8: 12}, rates={8: 3.0})
    config = BRIEF.model_copy(update={"growth": growth, "generator_lr": 2e-3, "discriminator_lr": 1e-3})
    state = TrainingState.new(SMALL, config, CPU)
    optimizers = [state.generator_optimizer, state.discriminator_optimizer]
    # slices shown, resolution, batch, factor, and whether the moments were forgotten
    for shown, side, batch, rate, forgot in [
        (0, 4, 8, 1, False),
        (96, 4, 8, 1, False),
        (104, 8, 12, 3, True),
        (152, 8, 12, 3, False),
        (200, 8, 12, 3, True),
        (296, 8, 12, 3, False),
        (301, 16, 12, 3, True),
        (400, 16, 12, 3, True),
        (500, 16, 12, 3, False),
    ]:
        for optimizer in optimizers:
            optimizer.state["moments"] = {}
        state.shown = shown
        now = grow(state, config, growth)
        for network in (state.generator, state.average):
            assert network(torch.zeros(4, 8), torch.tensor([0, 1, 0, 1])).shape[-1] == side
        assert state.discriminator(torch.zeros(4, 1, side, side), torch.zeros(4, dtype=torch.int64)).shape == (4,)
        assert (now.batch, now.generator_lr, now.discriminator_lr) == (batch, rate * 2e-3, rate * 1e-3)
        assert [not optimizer.state for optimizer in optimizers] == ([True] * 2 if forgot or not shown else [False] * 2)


class Sum(nn.Module):
    """Scores an image by `w` times the sum of its values; keeps what it was shown."""

    def __init__(self) -> None:
        super().__init__()
        self.w = nn.Parameter(torch.tensor(0.5))
        self.shown: list[torch.Tensor] = []

    def forward(self, images, labels):
        self.shown.append(images.detach())
        return self.w * images.sum(dim=(1, 2, 3))


def test_discriminator_descends_the_published_loss():
    training = TrainingConfig.model_validate(with_recipe(SMALL, {"growth": None}))
    state = TrainingState.new(SMALL.model_copy(update={"size": 4}), training, CPU)
    judge = Sum()
    state = dataclasses.replace(
        state, discriminator=judge, discriminator_optimizer=torch.optim.SGD(judge.parameters(), 1)
    )
    real = torch.rand(8, 1, 4, 4)
    draws, fabric = Draws(0, 0, CPU), Fabric(accelerator="cpu", devices=1)
    labels, objective = torch.arange(8) % 2, Adversarial(training.loss)
    statistics = objective.step(state, Inputs(real, labels, draws, training, fabric))

    sums = judge.shown[0].sum(dim=(1, 2, 3))
    real_sums, fake_sums = sums[:8], sums[8:]
    torch.testing.assert_close(real_sums, real.sum(dim=(1, 2, 3)))
    # L = E[D(fake)] - E[D(real)] + 10 (|∇D| - 1)² + 0.001 E[D(real)²], where |∇D| = 4w on the 16 pixels
    assert statistics["loss_d"].item() == pytest.approx(0.5 * (fake_sums.mean() - real_sums.mean()).item())
    slope = fake_sums.mean() - real_sums.mean() + 2 * 10 * 4 * (4 * 0.5 - 1) + 0.002 * 0.5 * real_sums.square().mean()
    assert judge.w.item() == pytest.approx(0.5 - slope.item(), rel=1e-5)
    # The penalty is taken between the two, the generator then raises D(fake).
    between, share = judge.shown[1], []
    for place in range(8):
        share.append((between[place] - judge.shown[0][8 + place]) / (real[place] - judge.shown[0][8 + place]))
        assert share[-1].std() < 1e-3
    assert len({round(part.mean().item(), 3) for part in share}) == 8
    assert statistics["loss_g"].item() == pytest.approx(-judge.w.item() * fake_sums.mean().item(), rel=1e-4)


def test_a_flat_discriminator_is_pushed_by_no_nan():
    judge, real = Sum(), torch.rand(4, 1, 4, 4)
    nn.init.zeros_(judge.w)
    penalty = slope_penalty(lambda x: judge(x, None), real, -real, mix=torch.rand(4))
    penalty.backward()
    assert (penalty.item(), judge.w.grad.item()) == (1, 0)


@pytest.fixture(scope="module")
def data():
    """Noisy slices with one bright half: the left one in class 0, the right one in class 1."""
    rng = np.random.default_rng(0)
    labels = (np.arange(120) % 2).astype(np.int64)
    bright = (np.arange(16) // 8) == labels[:, None, None]
    noise = rng.normal(0, 10, (120, 1, 1)) + rng.normal(0, 8, (120, 16, 16))
    return Slices.all((np.where(bright, 200, 60) + noise).clip(0, 255).astype(np.uint8), labels)


def train(data, folder, training=BRIEF, generator=SMALL):
    return train_generator(
        TrainingRun(
            data,
            None,
            window_hu=(-1350, 150),
            data_sha256="0" * 64,
            generator=generator,
            training=training,
            folder=folder / "package",
            checkpoints=folder / "checkpoints",
        )
    )


@pytest.fixture(scope="module")
def finished(data, tmp_path_factory):
    """A run from 4 to 16 px that nothing disturbed."""
    return train(data, tmp_path_factory.mktemp("finished"))


def test_a_run_grows_to_its_size(finished):
    assert finished.sample(np.array([0, 1]), seed=0).shape == (2, 16, 16)
    assert finished.card.training["growth"]["batches"]["16"] == 4
    with Image.open(finished.folder / "progress.gif") as film:
        assert film.size == (8 * 16, 4 * 16)
        first = np.asarray(film.convert("L"))
        assert film.n_frames == 5
    blocks = first.reshape(16, 4, 32, 4).transpose(0, 2, 1, 3).reshape(-1, 16)
    assert len(blocks) == 16 * 32
    quarters = first.reshape(32, 2, 64, 2)  # 8 px are faded in
    assert (np.ptp(quarters, axis=(1, 3)) == 0).all()
    last = finished.sample(np.array([0]), seed=0)[0].reshape(8, 2, 8, 2)
    assert np.ptp(last, axis=(1, 3)).any()


def test_the_batch_follows_the_level(data, tmp_path, monkeypatch):
    batches, sides = [], []

    def watched(self, state, inputs):
        batches.append((state.shown, len(inputs.real)))
        sides.append(inputs.real.shape[-1])
        return step(self, state, inputs)

    step = Adversarial.step
    monkeypatch.setattr(Adversarial, "step", watched)
    train(data, tmp_path)
    assert all(later[0] - earlier[0] == earlier[1] for earlier, later in pairwise(batches))
    assert {size for shown, size in batches if shown <= 120} == {8}
    assert {size for shown, size in batches if shown > 120} == {4}
    assert [sides.count(side) for side in (4, 8, 16)] == [6, 10, (240 - 128) // 4]


@pytest.mark.parametrize("frame", [2, 4])  # while 8 px, then 16 px, are faded in
def test_an_interrupted_run_ends_as_if_it_had_not_been(data, finished, tmp_path, monkeypatch, frame):
    calls = 0

    def killed(*arguments):
        nonlocal calls
        calls += 1
        if calls == frame:
            raise KeyboardInterrupt
        return snapshot(*arguments)

    snapshot = output.snapshot
    monkeypatch.setattr(output, "snapshot", killed)
    with pytest.raises(KeyboardInterrupt):
        train(data, tmp_path)
    monkeypatch.undo()
    (run,) = (tmp_path / "checkpoints").iterdir()
    assert (run / "state.pt").exists()
    resumed = train(data, tmp_path)
    assert resumed.sha256 == finished.sha256
    assert (resumed.folder / "progress.gif").read_bytes() == (finished.folder / "progress.gif").read_bytes()


def test_learns_which_half_is_bright(data, tmp_path):
    growth = GrowthConfig(stable_kimg=0.15, fade_kimg=0.15)
    fast = {"kimg": 3, "batch": 16, "growth": growth, "ema_kimg": 0.2, "generator_lr": 3e-3, "discriminator_lr": 3e-3}
    package = train(data, tmp_path, BRIEF.model_copy(update=fast), SMALL.model_copy(update={"width": 16}))
    slices = package.sample(np.repeat([0, 1], 32), seed=5)
    left, right = slices[:, :, :8].mean(axis=(1, 2)), slices[:, :, 8:].mean(axis=(1, 2))
    assert left[:32].mean() > left[32:].mean() + 50
    assert right[32:].mean() > right[:32].mean() + 50


def test_full_size_at_once(data, tmp_path):
    package = train(data, tmp_path, BRIEF.model_copy(update={"growth": None, "kimg": 0.05}))
    assert len(json.loads((package.folder / "generator.json").read_text())["training"]) > 0


@pytest.mark.parametrize(
    ("generator", "growth", "message"),
    [
        (SMALL, {"stable_kimg": 1, "fade_kimg": 2}, r"kimg is 0\.24, but growing from 4 to 16 px alone takes 6"),
        (SMALL, {"stable_kimg": 0.05, "fade_kimg": 0.07}, r"takes 0\.24"),
        (SMALL, {"start": 16}, "start is 16 px, the generator's size 16"),
        (
            DcganConfig(size=32, nz=8, ngf=4, ndf=4),
            {"start": 16, "stable_kimg": 0.1, "fade_kimg": 0.1},
            "dcgan does not grow",
        ),
    ],
)
def test_growth_that_cannot_be(data, tmp_path, generator, growth, message):
    if generator.size == 32:
        data = Slices.all(data.images.repeat(2, axis=1).repeat(2, axis=2), data.labels)
    training = BRIEF.model_copy(update={"growth": GrowthConfig(**growth)})
    with pytest.raises(LungsynthError, match=message):
        train(data, tmp_path, training, generator)


@pytest.mark.parametrize(
    ("wrong", "where"),
    [
        ({"start": 2}, "start"),
        ({"start": 6}, "power of two from 4 pixels on, not 6"),
        ({"batches": {64: 6}}, "batches"),
        ({"batches": {48: 8}}, "not 48"),
        ({"rates": {64: 0}}, "rates"),
        ({"fade_kimg": 0}, "fade_kimg"),
        ({"stable_kimg": -1}, "stable_kimg"),
        ({"fade": 3}, "fade"),
    ],
)
def test_wrong_configuration(wrong, where):
    with pytest.raises(ValidationError, match=where):
        GrowthConfig(**wrong)


def test_recipe_is_the_papers():
    training = TrainingConfig.model_validate(with_recipe(PgganConfig(size=512), {}))
    training.growth.check(512, training.kimg)
    assert (training.beta1, training.beta2, training.generator_lr, training.batch) == (0, 0.99, 1e-3, 16)
    assert [training.growth.batch(level, training.batch) for level in (7, 8, 9)] == [16, 12, 4]
    # 0.999 a step, at 16 slices a step
    assert 0.5 ** (0.016 / training.ema_kimg) == pytest.approx(0.999, abs=1e-5)
    assert math.isclose(training.loss.slope, 10)
    own = TrainingConfig.model_validate(with_recipe(PgganConfig(size=512), {"growth": {"batches": {512: 8}}}))
    assert own.growth.batches == {256: 12, 512: 8}


def test_a_run_file_that_cannot_grow_is_refused_before_anything_runs():
    sections = {"generator": {"family": "pggan", "size": 512}, "training": {"kimg": 4000}}
    with pytest.raises(ValidationError, match="growing from 4 to 512 px alone takes 8400"):
        TrainingSections.model_validate(sections)
    assert TrainingSections.model_validate(sections | {"training": {}}).training.growth
    assert not TrainingSections.model_validate(sections | {"training": {"growth": None}}).training.growth
