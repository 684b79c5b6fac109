"""Augmentation: each kind of change against numbers worked out by hand, and how often it happens."""

import math

import pytest
import torch
from pydantic import ValidationError

from lungsynth.training.augment import AugmentConfig, augment, draw_changes
from lungsynth.training.draws import Draws
from lungsynth.training.schedule import Ramp

NOTHING = AugmentConfig(translate=0)
ALL = AugmentConfig(translate=0.125, scale=0.1, rotate_degrees=10, brightness=0.02, cutout=0.25)
KINDS = {"translate": [0, 1], "scale": [2], "rotate_degrees": [3], "brightness": [4], "cutout": [5]}


def draws(step=0, rank=0, world=1):
    return Draws(0, step, torch.device("cpu"), rank=rank, world=world)


def drawn(count, config=ALL, p=1.0):
    return draw_changes(count, torch.tensor(p), config, draws=draws())


def changed(images, config, **columns):
    """`images` after one and the same change of each."""
    changes = torch.zeros(len(images), 8)
    for name, value in columns.items():
        changes[:, ("right", "down", "log_zoom", "turn", "grey", "square", "x", "y").index(name)] = value
    return augment(images, changes, config)


def noise(count=4, side=16, channels=1):
    return torch.rand(count, channels, side, side, generator=torch.Generator().manual_seed(1)) * 2 - 1


def test_shift_moves_whole_pixels_and_repeats_the_border():
    image = torch.arange(16.0).view(1, 1, 4, 4)
    moved = changed(image, ALL, right=0.25, down=-0.5)  # by 1 and by -2 of 4 pixels
    assert moved[0, 0].tolist() == [[8, 8, 9, 10], [12, 12, 13, 14], [12, 12, 13, 14], [12, 12, 13, 14]]
    assert torch.equal(changed(image, ALL, right=0.12), image)  # less than half a pixel
    colour = noise(channels=3)
    assert torch.equal(changed(colour, ALL, right=-0.125)[..., :-2], colour[..., 2:])


def test_shifts_are_drawn_up_to_the_limit_on_both_sides():
    shifts = (drawn(1000)[:, :2] * 32).round()
    for axis in shifts.T:
        assert set(axis.tolist()) == set(range(-4, 5))


def test_a_quarter_turn_clockwise():
    image = noise(side=8)
    turned = changed(image, ALL, turn=math.pi / 2)
    torch.testing.assert_close(turned, image.rot90(-1, dims=(2, 3)), atol=1e-5, rtol=0)


def test_zoom_by_two_shows_the_middle():
    rows = torch.arange(8.0).view(1, 1, 8, 1).expand(1, 1, 8, 8)
    zoomed = changed(rows, ALL, log_zoom=math.log(2))
    # The new pixel i, centre i + 1/2, lies at 4 + (i - 3.5) / 2 in the old image, whose pixel of value j has its centre
    # at j + 1/2.
    expected = 3.5 + (torch.arange(8.0) - 3.5) / 2
    torch.testing.assert_close(zoomed[0, 0], expected[:, None].expand(8, 8))
    torch.testing.assert_close(
        changed(rows, ALL, log_zoom=-math.log(2))[0, 0, :, 3], torch.tensor([0, 0, 0.5, 2.5, 4.5, 6.5, 7, 7])
    )


def test_brightness_adds_one_value_and_thus_keeps_differences_of_hu():
    images = noise(200)
    bright = AugmentConfig(translate=0, brightness=0.02)
    shift = augment(images, drawn(200, bright), bright) - images
    assert shift.std(dim=(1, 2, 3)).max() < 1e-6
    assert 0.035 < shift.abs().max() <= 2 * 0.02 + 1e-6  # 2 % of the window, which is 2 wide in grey values
    assert abs(shift.mean()) < 0.01


def test_cutout_blanks_the_square_around_its_centre():
    blank = changed(torch.ones(1, 1, 8, 8), ALL, square=0.5, x=0.25, y=0.5)[0, 0] == 0
    assert blank.sum() == 16
    assert blank[2:6, 0:4].all()
    at_the_corner = changed(torch.ones(1, 1, 8, 8), ALL, square=0.5, x=0.0, y=0.0)[0, 0] == 0
    assert at_the_corner.sum() == 4
    assert at_the_corner[:2, :2].all()


def test_what_is_off_or_does_not_happen_changes_no_bit():
    images = noise()
    assert augment(images, drawn(4, NOTHING), NOTHING) is images
    assert torch.equal(augment(images, drawn(4, p=0.0), ALL), images)


@pytest.mark.parametrize("kind", KINDS)
def test_one_kind_alone_draws_only_its_own_numbers(kind):
    alone = AugmentConfig(**{"translate": 0, kind: getattr(ALL, kind)})
    moved = (drawn(64, alone)[:, :6] != 0).any(dim=0)
    assert moved.nonzero()[:, 0].tolist() == KINDS[kind]
    assert torch.equal(drawn(64, alone)[:, KINDS[kind]], drawn(64)[:, KINDS[kind]])


def test_each_kind_happens_to_each_image_on_its_own_with_probability_p():
    happened = torch.stack([(drawn(4000, p=0.3)[:, c] != 0).any(dim=1) for c in KINDS.values()]).double()
    assert happened.mean(dim=1).tolist() == pytest.approx([0.3] * 5, abs=0.03)
    assert (torch.corrcoef(happened) - torch.eye(5)).abs().max() < 0.06
    images = noise()
    shifted = AugmentConfig(translate=0.25)
    seen = augment(images[:1].expand(1000, 1, 16, 16), drawn(1000, shifted, p=0.5), shifted)
    assert ((seen != images[0]).any(dim=(1, 2, 3))).double().mean() == pytest.approx(0.5, abs=0.06)


def test_numbers_stay_within_the_limits():
    changes = drawn(2000)
    limits = (0.125, 0.125, math.log(1.1), math.radians(10), 0.04, 0.25)
    for column, limit in zip(changes.T, limits, strict=False):
        assert 0.97 * limit < column.abs().max() <= limit * 1.000001
    for column in changes.T[:5]:
        assert abs(column.mean()) < 0.05 * column.abs().max()


def test_left_stays_left_and_upper_stays_upper():
    strongest = AugmentConfig(translate=0.125, scale=0.2, rotate_degrees=30)
    marks = torch.zeros(1, 3, 32, 32)  # one a channel: on the left, on the right, and below both
    marks[0, 0, 10:14, 8:12], marks[0, 1, 10:14, 20:24], marks[0, 2, 20:24, 14:18] = 1, 1, 1
    seen = augment(marks.expand(500, 3, 32, 32), drawn(500, strongest), strongest)
    places = torch.arange(32.0)
    x = (seen * places).sum(dim=(2, 3)) / seen.sum(dim=(2, 3))
    y = (seen * places[:, None]).sum(dim=(2, 3)) / seen.sum(dim=(2, 3))
    assert (x[:, 0] < x[:, 1]).all()
    assert (y[:, 2] > y[:, :2].amax(dim=1)).all()


def test_gradients_are_those_of_the_linear_map_that_the_geometry_is():
    images = noise().double().requires_grad_()
    geometry = AugmentConfig(translate=0.125, cutout=0.25)
    changes = drawn(4, geometry)
    assert torch.autograd.gradcheck(lambda x: augment(x, changes, geometry), images)
    images = noise().requires_grad_()
    seen = augment(images, drawn(4), ALL)
    weight = torch.rand_like(seen)
    (gradient,) = torch.autograd.grad((seen * weight).sum(), images)
    other = noise(8)[4:]  # a linear map plus a constant: the change of the sum follows from the gradient
    change = ((augment(other, drawn(4), ALL) - seen) * weight).sum()
    assert change.item() == pytest.approx(((other - images) * gradient).sum().item(), rel=1e-4)
    assert gradient.abs().sum() > 0


def test_the_same_draws_give_the_same_result_however_a_batch_is_cut():
    images, changes = noise(16), drawn(16)
    whole = augment(images, changes, ALL)
    assert torch.equal(whole, augment(images, drawn(16), ALL))
    parts = [augment(x, c, ALL) for x, c in zip(images.split(4), changes.split(4), strict=True)]
    assert torch.equal(whole, torch.cat(parts))
    halves = [draw_changes(8, torch.tensor(1.0), ALL, draws=draws(rank=rank, world=2)) for rank in (0, 1)]
    assert torch.equal(torch.cat(halves), changes)
    assert not torch.equal(changes, draw_changes(16, torch.tensor(1.0), ALL, draws=draws(step=1)))


def test_bfloat16_slices_are_turned_in_full_precision():
    images = noise(side=64).bfloat16()
    turn = AugmentConfig(translate=0, rotate_degrees=10)
    with torch.autocast("cpu", torch.bfloat16):
        seen = changed(images, turn, turn=0.1)
    torch.testing.assert_close(seen.float(), changed(images.float(), turn, turn=0.1), atol=1e-6, rtol=0)


@pytest.mark.parametrize(
    "wrong",
    [{"p": 1.5}, {"p": -0.1}, {"p": Ramp(start=0, end=1.2, until_kimg=3)}, {"target": 1.0}, {"flip": 1}, {"limit": 0}],
)
def test_wrong_configuration(wrong):
    with pytest.raises(ValidationError, match=next(iter(wrong))):
        AugmentConfig(**wrong)
