"""The parts of training, each against numbers worked out by hand."""

import math

import numpy as np
import pytest
import torch
from PIL import Image
from pydantic import ValidationError
from torch import nn

from lungsynth.errors import LungsynthError
from lungsynth.generators.dcgan import DcganConfig, Generator
from lungsynth.training import TrainingConfig, ema
from lungsynth.training.augment import augment, cut_out, shift_grey, translate
from lungsynth.training.checkpoint import TrainingState, run_key
from lungsynth.training.losses import discriminator_loss, generator_loss, r1_penalty
from lungsynth.training.snapshots import COLUMNS, ROWS_PER_CLASS, grid, save_film, snapshot

SMALL = DcganConfig(size=32, nz=8, ngf=4, ndf=4)


def rng():
    return torch.Generator().manual_seed(0)


def test_losses():
    real, fake = torch.tensor([2.0, 0.5]), torch.tensor([-2.0, 0.0])
    truth = torch.tensor([1.0, 1, 0, 0])
    both = nn.functional.binary_cross_entropy_with_logits(torch.cat([real, fake]), truth)
    assert discriminator_loss(real, fake) == pytest.approx(2 * both.item())
    assert generator_loss(fake) == pytest.approx((math.log(1 + math.e**2) + math.log(2)) / 2)


def test_gradient_penalty():
    images = torch.ones(2, 1, 2, 2, requires_grad=True)
    weight = torch.tensor(3.0, requires_grad=True)
    penalty = r1_penalty((weight * images).sum(dim=(1, 2, 3)), images)
    assert penalty.item() == 4 * 3**2 / 2
    penalty.backward()
    assert weight.grad == 4 * 3


def test_average_forgets_half_in_one_half_life():
    one, two = nn.BatchNorm1d(3), nn.BatchNorm1d(3)
    nn.init.constant_(two.weight, 5.0)
    nn.init.constant_(two.running_mean, 4.0)
    two.num_batches_tracked += 9
    average = ema.average_of(one)
    for _ in range(50):
        ema.update(average, two, ema.decay(0.5, shown_kimg=100, step_kimg=0.01))
    assert average.weight.tolist() == pytest.approx([3, 3, 3], abs=1e-4)
    assert average.running_mean.tolist() == pytest.approx([2, 2, 2], abs=1e-4)
    assert average.num_batches_tracked == 9
    assert not average.training
    assert not average.weight.requires_grad


def test_average_warms_up():
    assert ema.decay(1.0, shown_kimg=0.05, step_kimg=0.01) == pytest.approx(0.5)
    assert ema.decay(1.0, shown_kimg=50, step_kimg=0.01) == pytest.approx(0.5**0.01)


def test_translation_moves_whole_pixels_and_repeats_the_border():
    ramp = torch.arange(32.0).expand(1, 1, 32, 32) / 32
    moved = translate(ramp.repeat(200, 1, 1, 1), 0.125, rng())
    shifts = {round((image[0, 0, 16] - 0.5).item() * 32) for image in moved}
    assert shifts == set(range(-4, 5))
    for image in moved:
        shift = round((image[0, 0, 16] - 0.5).item() * 32)
        assert torch.equal(image[0, 7], (torch.arange(32) + shift).clamp(0, 31) / 32)


def test_cutout_blanks_one_square():
    blank = (cut_out(torch.ones(200, 1, 32, 32), 0.25, rng()) == 0).sum(dim=(1, 2, 3))
    assert blank.max() <= 64
    assert blank.float().mean() > 35
    assert blank.min() > 0


def test_brightness_adds_one_value_per_slice():
    change = shift_grey(torch.zeros(200, 1, 4, 4), 0.1, rng())
    assert change.std(dim=(1, 2, 3)).max() == 0
    assert 0.08 < change.abs().max() <= 0.1


def test_augmentation_passes_gradients_and_follows_its_seed():
    config = TrainingConfig(translate=0.125, cutout=0.25, brightness=0.02)
    images = torch.rand(8, 1, 32, 32, requires_grad=True)
    first = augment(images, config, rng())
    first.sum().backward()
    assert images.grad.abs().sum() > 0
    assert torch.equal(first, augment(images, config, rng()))
    untouched = TrainingConfig(translate=0, cutout=0, brightness=0)
    assert augment(images, untouched, rng()) is images


def test_checkpoint_restores_everything(tmp_path):
    training = TrainingConfig(seed=1)
    state = TrainingState.new(SMALL, training, torch.device("cpu"))
    state.step, state.log = 4, [{"kimg": 0.1}]
    torch.rand(3, generator=state.rng)
    state.save(tmp_path / "run" / "state.pt")
    assert [file.name for file in (tmp_path / "run").iterdir()] == ["state.pt"]
    other = TrainingState.new(SMALL, training.model_copy(update={"seed": 2}), torch.device("cpu"))
    other.restore(tmp_path / "run" / "state.pt")
    assert (other.step, other.log) == (4, [{"kimg": 0.1}])
    assert torch.equal(other.rng.get_state(), state.rng.get_state())
    for key, tensor in state.discriminator.state_dict().items():
        assert torch.equal(tensor, other.discriminator.state_dict()[key])


def test_damaged_checkpoint(tmp_path):
    state = TrainingState.new(SMALL, TrainingConfig(), torch.device("cpu"))
    state.save(tmp_path / "state.pt")
    (tmp_path / "state.pt").write_bytes((tmp_path / "state.pt").read_bytes()[:3000])
    with pytest.raises(LungsynthError, match=r"state\.pt: not a usable checkpoint; delete it"):
        state.restore(tmp_path / "state.pt")


def test_run_key_follows_data_and_configuration():
    training = TrainingConfig()
    key = run_key(SMALL, training, "a")
    assert key == run_key(SMALL, TrainingConfig(), "a")
    others = {
        run_key(SMALL, training, "b"),
        run_key(SMALL, TrainingConfig(seed=1), "a"),
        run_key(SMALL.model_copy(update={"ngf": 8}), training, "a"),
    }
    assert len(others | {key}) == 4


def test_grid_reads_like_a_page():
    images = np.arange(2 * COLUMNS, dtype=np.uint8)[:, None, None] * np.ones((1, 4, 5), np.uint8)
    picture = grid(images)
    assert picture.shape == (8, 5 * COLUMNS)
    assert picture[::4, ::5].flatten().tolist() == list(range(2 * COLUMNS))


def test_snapshots_keep_their_latents():
    generator = Generator(SMALL).eval()
    first = snapshot(generator, seed=0)
    assert first.shape == (2 * ROWS_PER_CLASS * 32, COLUMNS * 32)
    assert np.array_equal(first, snapshot(generator, seed=0))


def test_film_shows_its_frames_in_order(tmp_path):
    greys = [0, 120, 240]
    paths = [tmp_path / f"{i}.png" for i in range(3)]
    for path, grey in zip(paths, greys, strict=True):
        Image.fromarray(np.full((8, 8), grey, np.uint8)).save(path)
    save_film(paths, tmp_path / "film.gif")
    with Image.open(tmp_path / "film.gif") as film:
        assert film.n_frames == 3
        assert film.info["loop"] == 0
        for i, grey in enumerate(greys):
            film.seek(i)
            assert abs(film.convert("L").getpixel((3, 3)) - grey) <= 2


@pytest.mark.parametrize("wrong", [{"batch": 30}, {"kimg": 0}, {"kimgs": 3}, {"r1_gamma": -1}, {"device": "tpu"}])
def test_wrong_configuration(wrong):
    with pytest.raises(ValidationError, match=next(iter(wrong))):
        TrainingConfig(**wrong)
