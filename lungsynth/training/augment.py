"""Differentiable augmentation of what the discriminator sees, real and generated alike (DiffAugment, arXiv 2006.10738).

Only what leaves a slice a possible slice: no flips, which break situs, no scaling of contrast, which breaks HU.
"""

import torch
from torch import Tensor
from torch.nn.functional import pad

from lungsynth.training.config import TrainingConfig


def augment(images: Tensor, config: TrainingConfig, rng: torch.Generator) -> Tensor:
    """`images` B×1×H×W in [-1, 1], each changed on its own; `rng` is a CPU generator, whatever the device."""
    if config.brightness:
        images = shift_grey(images, 2 * config.brightness, rng)
    if config.translate:
        images = translate(images, config.translate, rng)
    if config.cutout:
        images = cut_out(images, config.cutout, rng)
    return images


def shift_grey(images: Tensor, limit: float, rng: torch.Generator) -> Tensor:
    """Add one value from ±`limit` to each image."""
    return images + (torch.rand(len(images), 1, 1, 1, generator=rng) * 2 - 1).to(images.device) * limit


def translate(images: Tensor, share: float, rng: torch.Generator) -> Tensor:
    """Shift by whole pixels, up to `share` of the side each way; the border is repeated outwards."""
    count, _, height, width = images.shape
    limit = round(share * width)
    dy, dx = torch.randint(0, 2 * limit + 1, (2, count, 1), generator=rng)
    rows = (torch.arange(height) + dy)[:, :, None].to(images.device)
    columns = (torch.arange(width) + dx)[:, None, :].to(images.device)
    padded = pad(images, [limit] * 4, mode="replicate")[:, 0]
    return padded[torch.arange(count, device=images.device)[:, None, None], rows, columns][:, None]


def cut_out(images: Tensor, share: float, rng: torch.Generator) -> Tensor:
    """Blank to mid-grey a square of `share` of the side, centred anywhere."""
    count, _, height, width = images.shape
    cy = torch.randint(0, height, (count, 1), generator=rng)
    cx = torch.randint(0, width, (count, 1), generator=rng)
    rows = (torch.arange(height) - cy).abs() * 2 < share * height
    columns = (torch.arange(width) - cx).abs() * 2 < share * width
    square = rows[:, None, :, None] & columns[:, None, None, :]
    return images.masked_fill(square.to(images.device), 0.0)
