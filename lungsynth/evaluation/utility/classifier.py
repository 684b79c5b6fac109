"""The classifier whose test scores tell what an arm's slices are worth, and its training."""

import math
from typing import Literal, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
import torchvision
from pydantic import Field
from torch import Tensor, nn

from lungsynth.config import Config

Architecture = Literal["vgg-small", "resnet18"]


class ClassicalConfig(Config):
    """Classical augmentation that keeps HU, situs and upright anatomy: no flips, no inversion, no contrast change."""

    rotation: float = Field(
        7, ge=0, le=30, description="degrees; greatest rotation [chosen here: patients lie that askew]"
    )
    translation: float = Field(0.06, ge=0, le=0.5, description="share of the width; greatest shift [chosen here: mild]")
    scale: float = Field(
        0.1, ge=0, lt=1, description="share of the size; greatest change [chosen here: mild; patients differ by more]"
    )
    noise: float = Field(
        0.02, ge=0, le=0.5, description="share of the window; greatest SD of added noise [chosen here: about 30 HU]"
    )
    mixup: float = Field(
        0.2, gt=0, description="parameter of MixUp's beta distribution, no unit [Zhang, arXiv 1710.09412]"
    )
    cutmix: float = Field(
        1.0,
        gt=0,
        description="parameter of CutMix's beta distribution, no unit; arms with +mix take both [Yun, arXiv "
        "1905.04899]",
    )


class ClassifierConfig(Config):
    """Training of one classifier."""

    steps: int = Field(
        300,
        ge=1,
        description="optimiser steps, the same in every arm [chosen here: a run trains dozens of classifiers]",
    )
    batch: int = Field(32, ge=2, multiple_of=2, description="slices in a step [chosen here: fits any machine]")
    lr: float = Field(
        6e-3,
        gt=0,
        description="learning rate of AdamW at its peak (one cycle) [chosen here: high, for few steps; arXiv "
        "1708.07120]",
    )
    weight_decay: float = Field(
        0.05,
        ge=0,
        description="rate of AdamW's weight decay [chosen here: usual with AdamW, as in ConvNeXt, arXiv 2201.03545]",
    )
    architecture: Architecture = "vgg-small"
    """`vgg-small` (61,000 weights, 5 layers) for CPUs; `resnet18` (11 M) for GPUs and larger slices."""
    unet_width: int = Field(
        8,
        ge=4,
        le=128,
        description="channels of the first level of the U-Net that is trained where masks are learnt [chosen here: "
        "half of slices.lungs' U-Net, since a run trains dozens]",
    )
    classical: ClassicalConfig = ClassicalConfig()


class Pool(NamedTuple):
    """Slices to draw batches from: uint8 N×H×W, with class codes N of 0 and 1, or masks uint8 N×H×W of 0 and 1."""

    images: np.ndarray
    labels: np.ndarray


class Recipe(NamedTuple):
    """What a batch is made of; `synthetic` is the share of synthetic slices, 0 to 1."""

    balanced: bool = True
    classical: bool = True
    mixed: bool = False
    synthetic: float = 0.0


def new_classifier(config: ClassifierConfig, seed: int, device: str) -> nn.Module:
    """An untrained classifier, whose weights follow from `seed`."""
    with torch.random.fork_rng():  # weights can only be drawn from torch's global generator
        torch.manual_seed(seed)
        model = build_classifier(config.architecture)
    return model.to(device).to(memory_format=torch.channels_last)


def train_classifier(
    model: nn.Module, real: Pool, synthetic: Pool | None, recipe: Recipe, seed: int, config: ClassifierConfig
) -> nn.Module:
    """Train `model` on batches of `recipe`, in the number of threads that torch has; ready for evaluation.

    With one `seed`, the classifiers of all recipes share real slices and augmentation.
    """
    device = next(model.parameters()).device
    optimiser = torch.optim.AdamW(model.parameters(), lr=config.lr, weight_decay=config.weight_decay)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, config.lr, config.steps + 1)
    # One stream for each choice: arms with synthetic slices then see the same real ones and augmentation as the others.
    choose_real, choose_synthetic, change = (torch.Generator().manual_seed(3 * seed + i) for i in range(3))
    mixing = np.random.default_rng(seed)
    sources = [_on(pool, device) for pool in (real, synthetic) if pool is not None]
    draw = _balanced if recipe.balanced else _at_random
    for _ in range(config.steps):
        images, targets = draw(sources[0], config.batch, choose_real)
        if recipe.synthetic:
            swap = torch.rand(config.batch, generator=choose_synthetic).to(device) < recipe.synthetic
            others, their_targets = draw(sources[1], config.batch, choose_synthetic)
            images = torch.where(swap[:, None, None], others, images)
            targets = torch.where(swap, their_targets, targets)
        inputs = normalise(images)
        if recipe.classical:
            inputs = augment(inputs, config.classical, change)
        if recipe.mixed:
            inputs, targets = mix(inputs, targets, config.classical, mixing)
        loss = F.binary_cross_entropy_with_logits(model(inputs)[:, 0], targets)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        schedule.step()
    return model.eval()


def scores(model: nn.Module, images: np.ndarray) -> np.ndarray:
    """Probabilities float64 N of the positive class, of uint8 slices N×H×W."""
    with torch.inference_mode():
        device = next(model.parameters()).device
        pieces = torch.from_numpy(images).split(256)
        found = [torch.sigmoid(model(normalise(piece.to(device)))[:, 0]).cpu() for piece in pieces]
    return torch.cat(found).double().numpy()


def build_classifier(architecture: Architecture) -> nn.Module:
    """A torchvision classifier of one-channel slices N×1×H×W; one logit N×1, higher for the positive class.

    `vgg-small` ends in a global maximum: a nodule covers few pixels, and a mean over the slice would drown it.
    """
    if architecture == "resnet18":
        resnet = torchvision.models.resnet18(num_classes=1)
        resnet.conv1 = nn.Conv2d(1, 64, 7, 2, 3, bias=False)
        return resnet
    features = torchvision.models.vgg.make_layers([16, "M", 32, "M", 64, "M", 64], batch_norm=True)
    features[0] = nn.Conv2d(1, 16, 3, padding=1)
    return nn.Sequential(features, nn.AdaptiveMaxPool2d(1), nn.Flatten(), nn.Linear(64, 1))


def normalise(images: Tensor) -> Tensor:
    """uint8 N×H×W to float32 N×1×H×W in -1 to 1."""
    return (images[:, None].float() / 127.5 - 1).contiguous(memory_format=torch.channels_last)


def augment(images: Tensor, config: ClassicalConfig, rng: torch.Generator) -> Tensor:
    """Rotated, shifted, scaled and noised slices, N×1×H×W in -1 to 1; air fills what comes in from outside."""
    return add_noise(move(images, config, rng), config, rng)


def move(images: Tensor, config: ClassicalConfig, rng: torch.Generator) -> Tensor:
    """Rotated, shifted and scaled slices, N×C×H×W in -1 to 1, all channels of one alike; -1 comes in from outside."""
    count = len(images)
    angle, right, down, growth = (2 * torch.rand(4, count, generator=rng) - 1).unbind()
    angle, zoom = angle * math.radians(config.rotation), 1 + growth * config.scale
    cos, sin = torch.cos(angle) * zoom, torch.sin(angle) * zoom
    shift = 2 * config.translation
    affine = torch.stack([cos, -sin, shift * right, sin, cos, shift * down], dim=1).view(count, 2, 3).to(images.device)
    grid = F.affine_grid(affine, list(images.shape), align_corners=False)
    return F.grid_sample(images + 1, grid, align_corners=False) - 1


def add_noise(images: Tensor, config: ClassicalConfig, rng: torch.Generator) -> Tensor:
    """Slices N×1×H×W in -1 to 1, each with noise of its own strength."""
    strength = 2 * config.noise * torch.rand(len(images), 1, 1, 1, generator=rng)
    return images + (strength * torch.randn(images.shape, generator=rng)).to(images.device)


def mix(images: Tensor, targets: Tensor, config: ClassicalConfig, rng: np.random.Generator) -> tuple[Tensor, Tensor]:
    """Slices N×1×H×W of -1 to 1 and targets N, each mixed with another of the batch: all by MixUp, or all by CutMix."""
    order = torch.from_numpy(rng.permutation(len(images))).to(images.device)
    if rng.random() < 0.5:
        share = float(rng.beta(config.mixup, config.mixup))
        images = share * images + (1 - share) * images[order]
    else:
        height, width = images.shape[2:]
        side = math.sqrt(1 - rng.beta(config.cutmix, config.cutmix))
        y, x = rng.integers(height), rng.integers(width)
        rows = slice(max(0, round(y - side * height / 2)), min(height, round(y + side * height / 2)))
        columns = slice(max(0, round(x - side * width / 2)), min(width, round(x + side * width / 2)))
        pasted = images[order, :, rows, columns]
        share = 1 - pasted[0].numel() / images[0].numel()
        images = images.clone()
        images[:, :, rows, columns] = pasted
    return images, share * targets + (1 - share) * targets[order]


class _Source(NamedTuple):
    """A pool on the device, and the indices of each class on the CPU."""

    images: Tensor
    labels: Tensor
    members: tuple[Tensor, Tensor]


def _on(pool: Pool, device: torch.device) -> _Source:
    labels = torch.from_numpy(pool.labels)
    negative, positive = ((labels == code).nonzero()[:, 0] for code in range(2))
    images = torch.from_numpy(pool.images).to(device)
    return _Source(images, labels.float().to(device), (negative, positive))


def _balanced(source: _Source, batch: int, rng: torch.Generator) -> tuple[Tensor, Tensor]:
    """Slices of the classes 0, 1, 0, 1, …, drawn with replacement, and their classes."""
    draws = torch.rand(batch, generator=rng)
    picks = [members[int(d * len(members))] for d, members in zip(draws, source.members * (batch // 2), strict=True)]
    chosen = torch.stack(picks)
    return source.images[chosen], source.labels[chosen]


def _at_random(source: _Source, batch: int, rng: torch.Generator) -> tuple[Tensor, Tensor]:
    """Slices in the mix of classes that the pool has, drawn with replacement, and their classes."""
    chosen = torch.randint(len(source.images), (batch,), generator=rng)
    return source.images[chosen], source.labels[chosen]
