"""The path length penalty of linear generators, where it can be worked out; and its place in a run."""

from itertools import pairwise
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from lightning_fabric import Fabric
from torch import nn

from lungsynth.errors import LungsynthError
from lungsynth.generators.dcgan import DcganConfig
from lungsynth.generators.stylegan2 import Stylegan2Config
from lungsynth.training import Slices, TrainingConfig, TrainingRun, loop, train_generator
from lungsynth.training.losses import AdversarialLoss, path_length_penalty, path_lengths
from lungsynth.training.path_length import add_path_length

SMALL = Stylegan2Config(size=32, nz=4, nw=4, mapping_layers=1, channel_base=64, channel_max=4)
BRIEF = TrainingConfig.model_validate(
    {
        "kimg": 0.12,
        "batch": 8,
        "micro_batch": 4,
        "checkpoint_kimg": 0.04,
        "device": "cpu",
        "loss": {"kind": "logistic", "path_length": 2, "path_every": 3, "penalty_every": 4},
    }
)


class Linear(nn.Module):
    """Images 1×2×2 of one layer of three styles: 2·strength·(w0, w1, w2, 0)."""

    def __init__(self, strength):
        super().__init__()
        self.strength = nn.Parameter(torch.tensor(strength))

    def mapping(self, z, labels=None, rng=None):
        return z[:, None].requires_grad_()

    def synthesis(self, styles, rng=None):
        pixels = 2 * self.strength * torch.cat([styles[:, 0], torch.zeros(len(styles), 1)], dim=1)
        return pixels.view(-1, 1, 2, 2)


def test_lengths_by_hand():
    styles = torch.randn(2, 2, 3, requires_grad=True)
    first, second = (torch.tensor([[1.0, 0, 0], [0, 2, 0], [0, 0, 0], [0, 0, 0]]), torch.full((4, 3), 1.0))
    images = (styles[:, 0] @ first.T + styles[:, 1] @ second.T).view(2, 1, 2, 2)
    noise = torch.tensor([[2.0, 4, 6, 8], [0, 0, 0, 4]]).view(2, 1, 2, 2)
    # Aᵀy/√4: (1, 4, 0) and (10, 10, 10) for the first image, (0, 0, 0) and (2, 2, 2) for the second.
    assert path_lengths(images, styles, noise).tolist() == pytest.approx([(317 / 2) ** 0.5, 6**0.5])
    assert path_length_penalty(torch.tensor([1.0, 5.0]), torch.tensor(2.0)).item() == 5


def test_expected_length_is_the_size_of_the_jacobian():
    matrix = torch.randn(64, 5)
    styles = torch.zeros(20000, 1, 5, requires_grad=True)
    images = (styles[:, 0] @ matrix.T).view(-1, 1, 8, 8)
    lengths = path_lengths(images, styles, torch.randn(20000, 1, 8, 8))
    assert lengths.square().mean().item() == pytest.approx(matrix.square().sum().item() / 64, rel=0.02)


@pytest.mark.parametrize(("step", "share"), [(0, 1), (4, 1 / 2), (36, 1 / 10), (800, 0.01)])
@pytest.mark.parametrize("parts", [(8,), (4, 4), (6, 2)])
def test_gradient_and_running_mean_by_hand(step, share, parts):
    state = SimpleNamespace(generator=Linear(3.0), scalars={"path_mean": torch.tensor(1.0)}, step=step)
    passes = [(torch.randn(count, 3), torch.zeros(count, dtype=torch.int64)) for count in parts]
    loss = AdversarialLoss(path_length=2, path_every=4)
    rng, fabric = torch.Generator().manual_seed(0), Fabric(accelerator="cpu", devices=1)
    add_path_length(state, passes, loss, rng=rng, fabric=fabric)

    # Of half of each part: ‖Jᵀy‖ = 2·3·‖(y0, y1, y2)‖/√4, against a mean that is moved towards these lengths first;
    # 4·2·(length - mean)² by the strength, on which the mean is not seen to depend.
    rng = torch.Generator().manual_seed(0)
    drawn = [torch.randn(count // 2, 1, 2, 2, generator=rng).flatten(1)[:, :3].norm(dim=1) for count in parts]
    means = [1 + share * (3 * norms.mean() - 1) for norms in drawn]
    norms, means = torch.cat(drawn), torch.cat([mean.expand(len(own)) for own, mean in zip(drawn, means, strict=True)])
    gradient = (8 * 2 * (3 * norms - means) * norms).mean().item()
    assert state.generator.strength.grad.item() == pytest.approx(gradient, rel=1e-4, abs=1e-4)
    assert state.scalars["path_mean"].item() == pytest.approx(1 + share * (3 * norms.mean().item() - 1), rel=1e-5)


def data():
    rng = np.random.default_rng(0)
    return Slices.all(rng.integers(0, 256, (64, 32, 32), dtype=np.uint8), np.arange(64) % 2)


def train(folder, training=BRIEF, generator=SMALL):
    return train_generator(
        TrainingRun(
            data(),
            None,
            window_hu=(-1350, 150),
            data_sha256="0" * 64,
            generator=generator,
            training=training,
            folder=folder / "package",
            checkpoints=folder / "checkpoints",
        )
    )


def test_interrupted_run_ends_as_if_it_had_not_been(tmp_path, monkeypatch):
    whole = train(tmp_path / "whole")
    means = []

    def killed_at_step_13(state, *arguments):
        if state.step == 13:
            raise KeyboardInterrupt
        means.append(state.scalars["path_mean"].item())
        return step(state, *arguments)

    step = loop._step
    monkeypatch.setattr(loop, "_step", killed_at_step_13)
    with pytest.raises(KeyboardInterrupt):
        train(tmp_path)
    monkeypatch.undo()
    assert [later != earlier for earlier, later in pairwise(means)] == [True, False, False] * 4
    (saved,) = (tmp_path / "checkpoints").glob("*/state.pt")
    assert 0 < torch.load(saved, weights_only=True)["step"] < 13
    assert train(tmp_path).sha256 == whole.sha256


def test_the_penalty_counts(tmp_path):
    brief = BRIEF.model_copy(update={"kimg": 0.02})
    without = brief.model_copy(update={"loss": brief.loss.model_copy(update={"path_length": 0})})
    assert train(tmp_path / "a", brief).sha256 != train(tmp_path / "b", without).sha256


def test_a_generator_without_styles(tmp_path):
    with pytest.raises(LungsynthError, match=r"training\.loss\.path_length: dcgan has no styles; set it to 0"):
        train(tmp_path, generator=DcganConfig(size=32, nz=4, ngf=4, ndf=4))
