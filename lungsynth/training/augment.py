"""Differentiable augmentation of the discriminator's input, real and synthetic (DiffAugment, arXiv 2006.10738).

Augmented slices stay anatomically possible: there are no flips, which break situs, and no scaling of contrast, which
breaks HU. Each kind of change is applied to each image independently with probability p. While p < 1, the generator
does not learn the augmentation: of all distributions, only the true one looks like the real slices after it (ADA, arXiv
2006.06676, section 2.2). In practice augmentation leaks into generated slices above p = 0.8.
"""

import math

import torch
from pydantic import Field, field_validator
from torch import Tensor
from torch.nn import functional as F

from lungsynth.config import Config
from lungsynth.training.draws import Draws
from lungsynth.training.schedule import Ramp, Scheduled


class AugmentConfig(Config):
    """How far each kind of change goes, and how often it happens; a kind that is 0 costs no time."""

    translate: float = Field(
        default=0.0625,
        ge=0,
        le=0.5,
        description="share of the side; largest shift [chosen here: half of DiffAugment's]",
    )
    scale: float = Field(
        default=0,
        ge=0,
        le=0.2,
        description="share of the size; largest zoom in or out; patients differ by more [chosen here: off]",
    )
    rotate_degrees: float = Field(
        default=0,
        ge=0,
        le=30,
        description="degrees; largest turn; patients often lie askew by a few [chosen here: off]",
    )
    brightness: float = Field(
        default=0,
        ge=0,
        le=0.1,
        description="share of the window's width; largest shift of HU; 0.01 of 1500 HU are 15 [chosen here: off]",
    )
    cutout: float = Field(
        default=0,
        ge=0,
        lt=1,
        description="share of the side; side of the blanked square [chosen here: off; DiffAugment: 0.5]",
    )
    p: Scheduled = Field(
        default=1.0, description="probability of each change, unless there is a `target` [DiffAugment]"
    )
    target: float | None = Field(
        default=None,
        gt=0,
        lt=1,
        description="mean sign r_t, no unit, see `controller.mean_signs`, at which p is held by adapting it; ADA: 0.6",
    )
    adjust_kimg: float = Field(default=500, gt=0, description="kimg in which an adaptive p can go from 0 to 1 [ADA]")
    every: int = Field(default=4, ge=1, description="steps from one adjustment of p to the next [ADA]")
    limit: float = Field(default=0.8, gt=0, le=1, description="probability; largest adaptive p [ADA, section 2.2]")

    @property
    def kinds(self) -> list[str]:
        """The kinds of change that are on."""
        return [
            name for name in ("translate", "scale", "rotate_degrees", "brightness", "cutout") if getattr(self, name)
        ]

    @field_validator("p")
    @classmethod
    def _probability(cls, p: Scheduled) -> Scheduled:
        largest = max(p.start, p.end) if isinstance(p, Ramp) else p
        if not 0 <= largest <= 1:
            raise ValueError("must be a probability, from 0 to 1")
        return p


def draw_changes(count: int, p: Tensor, config: AugmentConfig, *, draws: Draws) -> Tensor:
    """Random changes of `count` images; each kind of change happens with probability `p`, a scalar.

    `count`×8: shift to the right and down, logarithm of the zoom, turn (radians, clockwise), shift of grey (values are
    in [-1, 1]), side of the blanked square, and its centre from the left and from the top. Lengths are fractions of the
    image's side.
    """
    shift, zoom, turn, grey, blank = (draws.uniform(count, 5) < p).float().split(1, dim=1)
    shifts, zooms, turns, greys = (draws.uniform(count, 5) * 2 - 1).split([2, 1, 1, 1], dim=1)
    return torch.cat(
        [
            shift * shifts * config.translate,
            zoom * zooms * math.log1p(config.scale),
            turn * turns * math.radians(config.rotate_degrees),
            grey * greys * 2 * config.brightness,
            blank * config.cutout,
            draws.uniform(count, 2),
        ],
        dim=1,
    )


def augment(images: Tensor, changes: Tensor, config: AugmentConfig, *, masks: bool = False) -> Tensor:
    """`images` B×C×H×H in [-1, 1] after `changes` B×8; the border is repeated outwards.

    With `masks` the last channel is a mask: it moves with the others, but keeps its brightness.
    """
    if config.translate:
        images = _shift(images, changes[:, 0], changes[:, 1])
    if config.scale or config.rotate_degrees:
        images = _zoom_and_turn(images, changes[:, 2], changes[:, 3])
    if config.brightness:
        grey = changes[:, 4, None, None, None]
        images = torch.cat([images[:, :-1] + grey, images[:, -1:]], dim=1) if masks else images + grey
    if config.cutout:
        images = _cut_out(images, *changes[:, 5:].T)
    return images


def _shift(images: Tensor, right: Tensor, down: Tensor) -> Tensor:
    # Whole pixels, by index: interpolation would smooth noise, and a gather takes a tenth of grid_sample's time.
    count, channels, side, _ = images.shape
    places = torch.arange(side, device=images.device)
    rows, columns = ((places - (by * side).round().long()[:, None]).clamp(0, side - 1) for by in (down, right))
    order = (rows[:, :, None] * side + columns[:, None, :]).view(count, 1, -1)
    return images.flatten(2).gather(2, order.expand(-1, channels, -1)).view_as(images)


def _zoom_and_turn(images: Tensor, log_zoom: Tensor, turn: Tensor) -> Tensor:
    # About the centre. `grid` holds for each new pixel its old place. affine_grid is not used, since its matrix product
    # is coarse in bfloat16 and TF32.
    side = images.shape[-1]
    places = (torch.arange(side, device=images.device) + 0.5) * 2 / side - 1
    cos, sin = (part(turn)[:, None, None] / log_zoom.exp()[:, None, None] for part in (torch.cos, torch.sin))
    x, y = places[None, None, :], places[None, :, None]
    grid = torch.stack([cos * x + sin * y, cos * y - sin * x], dim=-1)
    changed = F.grid_sample(images.float(), grid, padding_mode="border", align_corners=False)
    still = (log_zoom == 0) & (turn == 0)
    return torch.where(still[:, None, None, None], images, changed)


def _cut_out(images: Tensor, square: Tensor, x: Tensor, y: Tensor) -> Tensor:
    # To mid-grey, as in DiffAugment.
    side = images.shape[-1]
    centres = (torch.arange(side, device=images.device) + 0.5) / side
    columns, rows = ((centres - place[:, None]).abs() * 2 < square[:, None] for place in (x, y))
    return images.masked_fill((rows[:, :, None] & columns[:, None, :])[:, None], 0.0)
