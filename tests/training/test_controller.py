"""The adaptive controller of augmentation."""

import numpy as np
import pytest
import torch
from lightning_fabric import Fabric

from lungsynth.generators.dcgan import DcganConfig
from lungsynth.training import Slices, TrainingConfig, loop
from lungsynth.training.adversarial import Adversarial
from lungsynth.training.augment import AugmentConfig
from lungsynth.training.controller import adjust, mean_signs, new_scalars
from lungsynth.training.data import Source
from lungsynth.training.losses import AdversarialLoss
from lungsynth.training.schedule import Ramp
from lungsynth.training.state import TrainingState

CPU = torch.device("cpu")
P = Adversarial.statistics.index("p")
ONE = Fabric(accelerator="cpu", devices=1)
SMALL = DcganConfig(size=32, nz=8, ngf=4, ndf=4)
ADAPTIVE = TrainingConfig(
    batch=8, augment=AugmentConfig(translate=0.1, brightness=0.02, target=0.6, adjust_kimg=0.5, every=4)
)


@pytest.fixture(scope="module")
def source():
    rng = np.random.default_rng(0)
    slices = Slices.all(rng.integers(0, 256, (40, 32, 32), dtype=np.uint8), np.arange(40) % 2)
    return Source(slices, balanced=True, seed=0, device=CPU, resident=True)


def trained(source, config, steps, state=None):
    """The state after so many more steps, and p of each."""
    state = state or TrainingState.new(SMALL, config, CPU)
    return state, [loop._step(state, source, config, fabric=ONE)[P].item() for _ in range(steps)]


def test_p_moves_by_the_share_that_was_shown_and_only_when_it_is_due():
    scalars, config = new_scalars(CPU), AugmentConfig(target=0.6, adjust_kimg=4, every=4, limit=0.2)
    seen = []
    for step in range(24):
        adjust(scalars, torch.tensor(1.0 if step < 12 else 0.0), config, batch=100, step=step, fabric=ONE)
        seen.append(scalars["p"].item())
    up, top, down = 0.1, 0.2, 0.1  # 4 steps of 100 slices, of 4000 from 0 to 1
    expected = [0] * 3 + [up] * 4 + [top] * 8 + [down] * 4 + [0] * 5
    assert seen == pytest.approx(expected, abs=1e-6)


def test_the_mean_since_the_last_adjustment_decides():
    config = AugmentConfig(target=0.6, adjust_kimg=1, every=4)
    for signs, rises in (((1, 1, 1, -0.5), True), ((-1, 1, 1, 1), False), ((0.6, 0.6, 0.7, 0.6), True)):
        scalars = new_scalars(CPU)
        scalars["p"].fill_(0.5)
        for step, sign in enumerate(signs):
            adjust(scalars, torch.tensor(float(sign)), config, batch=10, step=step, fabric=ONE)
        assert (scalars["p"] > 0.5) == rises
        assert scalars["sum"] == 0


@pytest.mark.parametrize("start", [0.0, 0.8])
def test_p_finds_where_the_statistic_meets_the_target(start):
    scalars, config = new_scalars(CPU), AugmentConfig(target=0.6, adjust_kimg=50)
    scalars["p"].fill_(start)
    rng = torch.Generator().manual_seed(0)
    tail = []
    for step in range(4000):  # 0.9 - 0.6 p: 0.6 at one half
        r_t = 0.9 - 0.6 * scalars["p"] + 0.1 * torch.randn((), generator=rng)
        adjust(scalars, r_t, config, batch=32, step=step, fabric=ONE)
        tail.append(scalars["p"].item())
    assert np.mean(tail[2000:]) == pytest.approx(0.5, abs=0.03)


def test_p_stays_at_its_limit_where_the_target_is_out_of_reach():
    scalars, config = new_scalars(CPU), AugmentConfig(target=0.6, adjust_kimg=1)
    for step in range(400):
        adjust(scalars, torch.tensor(1.0), config, batch=32, step=step, fabric=ONE)
    assert scalars["p"].item() == pytest.approx(0.8)


def test_signs_of_the_logistic_loss_are_those_of_the_scores():
    real, fake = torch.tensor([3.0, 1, -1, 2]), torch.tensor([-1.0, -1, 0, 2])
    assert mean_signs(real, fake, "logistic").tolist() == [0.5, -0.25]


@pytest.mark.parametrize("kind", ["relativistic", "wasserstein"])
def test_signs_of_losses_without_a_zero_compare_neighbours(kind):
    real, fake = torch.tensor([3.0, 1, -1, 2]), torch.tensor([-1.0, 2, -2, 2])
    for constant in (0, -100):  # two pairs in order, one not, one tied
        assert mean_signs(real + constant, fake + constant, kind).tolist() == [0.25, -0.25]


def test_pairs_are_the_stricter_measure_by_as_much_as_documented():
    rng = torch.Generator().manual_seed(0)
    real, fake = torch.randn(2, 200_000, generator=rng) + torch.tensor([[0.8416], [-0.8416]])
    assert mean_signs(real, fake, "logistic")[0] == pytest.approx(0.6, abs=0.01)
    assert mean_signs(real, fake, "relativistic")[0] == pytest.approx(0.77, abs=0.01)


@pytest.mark.parametrize("kind", ["logistic", "relativistic", "wasserstein"])
def test_training_adapts_p(source, kind):
    config = ADAPTIVE.model_copy(update={"loss": AdversarialLoss(kind=kind)})
    _, p = trained(source, config, 25)
    amount = 8 * 4 / 500
    jumps = np.abs(np.diff([*p]))
    assert p[:4] == [0] * 4
    assert np.isclose(jumps[3::4], amount).sum() + np.isclose(jumps[3::4], 0).sum() == 6
    assert np.isclose(jumps, amount).sum() >= 2
    assert jumps[[i for i in range(24) if i % 4 != 3]].max() == 0


def test_scheduled_p_follows_its_ramp(source):
    ramp = Ramp(start=0, end=0.4, until_kimg=0.08)
    _, p = trained(source, ADAPTIVE.model_copy(update={"augment": AugmentConfig(p=ramp)}), 12)
    assert p[0] == 0
    assert p[5] == pytest.approx(0.2)  # after 40 of 80 slices: the middle of half a cosine
    assert p[10:] == pytest.approx([0.4, 0.4])


def test_resumed_run_adapts_as_if_it_had_not_stopped(source, tmp_path):
    whole, p = trained(source, ADAPTIVE, 18)
    state, first = trained(source, ADAPTIVE, 10)  # between two adjustments: the sum counts
    assert state.scalars["sum"] != 0
    state.save(tmp_path / "state.pt")
    again = TrainingState.new(SMALL, ADAPTIVE, CPU)
    again.restore(tmp_path / "state.pt")
    resumed, second = trained(source, ADAPTIVE, 8, again)
    assert first + second == p
    for name in ("p", "sum"):
        assert torch.equal(resumed.scalars[name], whole.scalars[name])
    for one, other in zip(whole.generator.parameters(), resumed.generator.parameters(), strict=True):
        assert torch.equal(one, other)
