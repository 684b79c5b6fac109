"""The classifier that is trained on each arm's slices, and the training of an arm's models."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Literal, NamedTuple, Self

import numpy as np
import torch
import torch.nn.functional as F
import torchvision
from pydantic import Field
from torch import Tensor, nn

from lungsynth.config import Config
from lungsynth.fit import fit
from lungsynth.intensity import to_network

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


class BatchPlan(NamedTuple):
    """What batches are made of, and how they are augmented; `synthetic` is the fraction of synthetic slices, 0 to 1."""

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
    model: nn.Module, real: Pool, synthetic: Pool | None, *, plan: BatchPlan, seed: int, config: ClassifierConfig
) -> nn.Module:
    """Train `model`, from `new_classifier`, on batches of `plan`; see `train`."""
    mixing = np.random.default_rng(seed)

    def loss(images: Tensor, classes: Tensor, rng: torch.Generator) -> Tensor:
        inputs, targets = to_input(images), classes.float()
        if plan.classical:
            inputs = augment(inputs, config.classical, rng)
        if plan.mixed:
            inputs, targets = mix(inputs, targets, config.classical, rng=mixing)
        return F.binary_cross_entropy_with_logits(model(inputs)[:, 0], targets)

    pick = balanced if plan.balanced else at_random
    return train(model, real, synthetic, plan=plan, seed=seed, config=config, pick=pick, loss=loss)


def train(
    model: nn.Module,
    real: Pool,
    synthetic: Pool | None,
    *,
    plan: BatchPlan,
    seed: int,
    config: ClassifierConfig,
    pick: "Pick",
    loss: Callable[[Tensor, Tensor, torch.Generator], Tensor],
) -> nn.Module:
    """Train `model` in the number of threads that torch has, and return it ready for evaluation.

    With one `seed`, the models of all plans see the same real slices and the same augmentation.

    Args:
        pick: indices of the slices of a batch: `balanced` or `at_random`.
        loss: of uint8 slices B×H×W and their labels, with the random numbers of the augmentation.
    """
    # One stream for each choice, so that a plan with synthetic slices changes neither real ones nor augmentation.
    choose_real, choose_synthetic, change = (torch.Generator().manual_seed(3 * seed + i) for i in range(3))
    device = next(model.parameters()).device
    sources = [Source.of(pool, device) for pool in (real, synthetic) if pool is not None]

    def batch_loss() -> Tensor:
        images, labels = sources[0].at(pick(sources[0], config.batch, choose_real))
        if plan.synthetic:
            swap = torch.rand(config.batch, generator=choose_synthetic).to(device) < plan.synthetic
            others, their_labels = sources[1].at(pick(sources[1], config.batch, choose_synthetic))
            images, labels = _swapped(images, others, swap), _swapped(labels, their_labels, swap)
        return loss(images, labels, change)

    fit(model, batch_loss, steps=config.steps, lr=config.lr, weight_decay=config.weight_decay)
    return model.eval()


def scores(model: nn.Module, images: np.ndarray) -> np.ndarray:
    """Probabilities float64 N of the positive class, of uint8 slices N×H×W."""
    with torch.inference_mode():
        device = next(model.parameters()).device
        pieces = torch.from_numpy(images).split(256)
        probabilities = [torch.sigmoid(model(to_input(piece.to(device)))[:, 0]).cpu() for piece in pieces]
    return torch.cat(probabilities).double().numpy()


def build_classifier(architecture: Architecture) -> nn.Module:
    """A torchvision classifier of one-channel slices N×1×H×W; one logit N×1, higher for the positive class.

    `vgg-small` ends in a global maximum: a nodule covers few pixels and would be lost in a mean over the slice.
    """
    if architecture == "resnet18":
        resnet: nn.Module = torchvision.models.resnet18(num_classes=1)
        resnet.conv1 = nn.Conv2d(1, 64, 7, 2, 3, bias=False)
        return resnet
    features = torchvision.models.vgg.make_layers([16, "M", 32, "M", 64, "M", 64], batch_norm=True)
    features[0] = nn.Conv2d(1, 16, 3, padding=1)
    return nn.Sequential(features, nn.AdaptiveMaxPool2d(1), nn.Flatten(), nn.Linear(64, 1))


def to_input(images: Tensor) -> Tensor:
    """uint8 N×H×W to float32 N×1×H×W in -1 to 1."""
    return to_network(images[:, None]).contiguous(memory_format=torch.channels_last)


def augment(images: Tensor, config: ClassicalConfig, rng: torch.Generator) -> Tensor:
    """Rotated, shifted, scaled and noised slices, N×1×H×W in -1 to 1; air enters from outside."""
    return add_noise(move(images, config, rng), config, rng)


def move(images: Tensor, config: ClassicalConfig, rng: torch.Generator) -> Tensor:
    """Rotated, shifted and scaled slices, N×C×H×W in -1 to 1, all channels in the same way; -1 enters from outside."""
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


def mix(images: Tensor, targets: Tensor, config: ClassicalConfig, *, rng: np.random.Generator) -> tuple[Tensor, Tensor]:
    """Slices N×1×H×W of -1 to 1 and targets N, each mixed with another of the batch: all by MixUp, or all by CutMix."""
    order = torch.from_numpy(rng.permutation(len(images))).to(images.device)
    if rng.random() < 0.5:
        kept = float(rng.beta(config.mixup, config.mixup))
        images = kept * images + (1 - kept) * images[order]
    else:
        height, width = images.shape[2:]
        side = math.sqrt(1 - rng.beta(config.cutmix, config.cutmix))
        y, x = rng.integers(height), rng.integers(width)
        rows = slice(max(0, round(y - side * height / 2)), min(height, round(y + side * height / 2)))
        columns = slice(max(0, round(x - side * width / 2)), min(width, round(x + side * width / 2)))
        pasted = images[order, :, rows, columns]
        kept = 1 - pasted[0].numel() / images[0].numel()
        images = images.clone()
        images[:, :, rows, columns] = pasted
    return images, kept * targets + (1 - kept) * targets[order]


@dataclass(frozen=True)
class Source:
    """A pool on the device on which a model trains."""

    images: Tensor
    labels: Tensor

    @classmethod
    def of(cls, pool: Pool, device: torch.device) -> Self:
        """Copy a pool to the device."""
        return cls(torch.from_numpy(pool.images).to(device), torch.from_numpy(pool.labels).to(device))

    @cached_property
    def members(self) -> tuple[Tensor, Tensor]:
        """Indices of the slices of class 0 and of class 1, on the CPU."""
        negative, positive = ((self.labels.cpu() == code).nonzero()[:, 0] for code in range(2))
        return negative, positive

    def at(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        """The slices of these indices, and their labels."""
        return self.images[rows], self.labels[rows]


Pick = Callable[[Source, int, torch.Generator], Tensor]
"""Indices of as many slices of a source, drawn at random."""


def balanced(source: Source, batch: int, rng: torch.Generator) -> Tensor:
    """Indices of slices of the classes 0, 1, 0, 1, …, drawn with replacement."""
    at = torch.rand(batch, generator=rng)
    classes = source.members * (batch // 2)
    return torch.stack([members[int(x * len(members))] for x, members in zip(at, classes, strict=True)])


def at_random(source: Source, batch: int, rng: torch.Generator) -> Tensor:
    """Indices of slices drawn with replacement, whatever their labels."""
    return torch.randint(len(source.images), (batch,), generator=rng)


def _swapped(values: Tensor, others: Tensor, swap: Tensor) -> Tensor:
    """`values` B×…, and `others` where `swap` (bool B)."""
    return torch.where(swap.view(-1, *[1] * (values.ndim - 1)), others, values)
