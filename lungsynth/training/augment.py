"""Differentiable augmentation of what the discriminator sees, real and generated alike (DiffAugment, arXiv 2006.10738).

Only what leaves a slice a possible slice: no flips, which break situs, no scaling of contrast, which breaks HU.
"""

import torch
from pydantic import Field
from torch import Tensor
from torch.nn import functional as F

from lungsynth.config import Config
from lungsynth.training.draws import Draws


class AugmentConfig(Config):
    """The changes, and how often one happens."""

    translate: float = Field(default=0.0625, ge=0, le=0.5, description="largest shift, share of the side; DiffAugment")


def draw_changes(count: int, p: Tensor, config: AugmentConfig, draws: Draws) -> Tensor:
    """How each of `count` images is changed, with probability `p` (a scalar): `count`×2, shifts in x and y."""
    shift = (draws.uniform(count, 2) * 2 - 1) * 2 * config.translate
    return torch.where(draws.uniform(count, 1) < p, shift, 0.0)


def augment(images: Tensor, changes: Tensor) -> Tensor:
    """`images` B×C×H×W in [-1, 1], changed as `changes` says; the border is repeated outwards."""
    identity = torch.eye(2, device=images.device).expand(len(images), 2, 2)
    theta = torch.cat([identity, changes[:, :, None]], dim=2)
    grid = F.affine_grid(theta, list(images.shape), align_corners=False)
    return F.grid_sample(images, grid.to(images.dtype), padding_mode="border", align_corners=False)
