"""Whether synthetic slices make a classifier better: arms that differ only in what their batches are made of."""

import math
from typing import Literal, NamedTuple

import numpy as np
import pandas as pd
import torch
import torch.nn.functional as F
import torchvision
from pydantic import Field
from torch import Tensor, nn
from tqdm import tqdm

from lungsynth.config import Config
from lungsynth.errors import LungsynthError
from lungsynth.evaluation.predictions import Predictions
from lungsynth.evaluation.sampler import Sampler, draw
from lungsynth.imaging.store import SliceDataset


class ClassicalConfig(Config):
    """Classical augmentation that keeps HU, situs and upright anatomy: no flips, no inversion, no contrast change."""

    rotation: float = Field(7, ge=0, le=30, description="greatest rotation, degrees; patients lie that askew")
    translation: float = Field(0.06, ge=0, le=0.5, description="greatest shift, share of the width")
    scale: float = Field(0.1, ge=0, lt=1, description="greatest change of size, share")
    noise: float = Field(0.02, ge=0, le=0.5, description="greatest SD of added noise, share of the window; about 30 HU")


class UtilityConfig(Config):
    """The classifiers of every arm."""

    seeds: int = Field(
        5, ge=1, description="classifiers in an arm, seeded 0, 1, …; at least 5 for a verdict to rest on"
    )
    steps: int = Field(300, ge=1, description="optimiser steps, the same in every arm")
    batch: int = Field(32, ge=2, multiple_of=2, description="slices in a step, half of each class")
    lr: float = Field(6e-3, gt=0, description="AdamW learning rate at its peak (one cycle)")
    weight_decay: float = Field(0.05, ge=0, description="AdamW weight decay")
    architecture: Literal["vgg-small", "resnet18"] = "vgg-small"
    """`vgg-small` (61,000 weights, 5 layers) for CPUs; `resnet18` (11 M) for GPUs and larger slices."""
    ratios: tuple[float, ...] = Field(
        (1.0,), min_length=1, description="synthetic slices for each real one in a batch, > 0"
    )
    classical: ClassicalConfig = ClassicalConfig()
    pool_seed: int = Field(0, ge=0, description="of the synthetic slices, drawn once for each arm")


class Pool(NamedTuple):
    """uint8 slices N×H×W on the device, and the indices of each class."""

    images: Tensor
    members: tuple[Tensor, ...]


class Arm(NamedTuple):
    """What the batches of one arm are made of; `ratio` synthetic slices for each real one."""

    name: str
    augmented: bool
    synthetic: Pool | None = None
    ratio: float = 0.0


def measure_utility(dataset: SliceDataset, samplers: dict[str, Sampler], config: UtilityConfig) -> Predictions:
    """Train every arm's classifiers on `train` and score `val` and `test`.

    Arms: `real`; `real+classical`; for each sampler's name and ratio R, `real+classical+name@R`. All take the same
    number of steps with class-balanced batches; with one seed they share initial weights, real slices and augmentation.

    Args:
        samplers: by name, `synthetic` and where there is one `champion`.

    Raises:
        LungsynthError: there are not two classes, a split lacks one, or a sampler's slices do not fit the dataset's.
    """
    _require_classes(dataset)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    train, held_out = dataset.rows("train"), np.concatenate([dataset.rows("val"), dataset.rows("test")])
    real = _pool(np.array(dataset.images[train]), dataset.labels[train], device)
    arms = [Arm("real", False), Arm("real+classical", True)]
    for name, sampler in samplers.items():
        for ratio in config.ratios:
            labels = np.arange(math.ceil(len(train) * ratio / 2) * 2) % 2
            pool = _pool(draw(sampler, labels, config.pool_seed, dataset.meta.size), labels, device)
            arms.append(Arm(f"real+classical+{name}@{ratio:g}", True, pool, ratio))

    unseen = torch.from_numpy(np.array(dataset.images[held_out]))
    table = dataset.table.iloc[held_out]
    parts = []
    with tqdm(total=len(arms) * config.seeds * config.steps, unit="step", desc="utility") as bar:
        for arm in arms:
            for seed in range(config.seeds):
                bar.set_description(f"{arm.name}, seed {seed}")
                scores = _score(_train(real, arm, seed, config, bar), unseen, device)
                part = {"arm": arm.name, "seed": seed, "split": table["split"], "row": held_out}
                parts.append(
                    pd.DataFrame(
                        {**part, "patient": table["patient"], "label": dataset.labels[held_out], "score": scores}
                    )
                )
    return Predictions(pd.concat(parts), dataset.meta.classes)


def build_classifier(architecture: Literal["vgg-small", "resnet18"]) -> nn.Module:
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


def augment(images: Tensor, config: ClassicalConfig, rng: torch.Generator) -> Tensor:
    """Rotated, shifted, scaled and noised slices, N×1×H×W in -1 to 1; air fills what comes in from outside."""
    count = len(images)
    angle, right, down, growth = (2 * torch.rand(4, count, generator=rng) - 1).unbind()
    angle, zoom = angle * math.radians(config.rotation), 1 + growth * config.scale
    cos, sin = torch.cos(angle) * zoom, torch.sin(angle) * zoom
    shift = 2 * config.translation
    affine = torch.stack([cos, -sin, shift * right, sin, cos, shift * down], dim=1).view(count, 2, 3).to(images.device)
    grid = F.affine_grid(affine, list(images.shape), align_corners=False)
    moved = F.grid_sample(images + 1, grid, align_corners=False) - 1
    strength = 2 * config.noise * torch.rand(count, 1, 1, 1, generator=rng)
    return moved + (strength * torch.randn(images.shape, generator=rng)).to(images.device)


def _train(real: Pool, arm: Arm, seed: int, config: UtilityConfig, bar: tqdm) -> nn.Module:
    device = real.images.device
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = build_classifier(config.architecture).to(device)
    optimiser = torch.optim.AdamW(model.parameters(), lr=config.lr, weight_decay=config.weight_decay)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, config.lr, config.steps + 1)
    # One stream for each choice: the synthetic arms then see the same real slices and augmentation as the others.
    choose_real, choose_synthetic, change = (torch.Generator().manual_seed(3 * seed + i) for i in range(3))
    target = torch.arange(config.batch, device=device) % 2
    for _ in range(config.steps):
        images = _balanced(real, config.batch, choose_real)
        if arm.synthetic is not None:
            swap = torch.rand(config.batch, generator=choose_synthetic).to(device) < arm.ratio / (1 + arm.ratio)
            images = torch.where(swap[:, None, None], _balanced(arm.synthetic, config.batch, choose_synthetic), images)
        inputs = _normalise(images)
        if arm.augmented:
            inputs = augment(inputs, config.classical, change)
        loss = F.binary_cross_entropy_with_logits(model(inputs)[:, 0], target.float())
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        schedule.step()
        bar.set_postfix(loss=f"{loss.item():.3f}", refresh=False)
        bar.update()
    return model.eval()


def _score(model: nn.Module, images: Tensor, device: str) -> np.ndarray:
    with torch.inference_mode():
        pieces = [torch.sigmoid(model(_normalise(piece.to(device)))[:, 0]).cpu() for piece in images.split(256)]
    return torch.cat(pieces).double().numpy()


def _balanced(pool: Pool, batch: int, rng: torch.Generator) -> Tensor:
    """Slices of the classes 0, 1, 0, 1, …, drawn with replacement."""
    draws = torch.rand(batch, generator=rng)
    picks = [members[int(d * len(members))] for d, members in zip(draws, pool.members * (batch // 2), strict=True)]
    return pool.images[torch.stack(picks)]


def _normalise(images: Tensor) -> Tensor:
    return images[:, None].float() / 127.5 - 1


def _pool(images: np.ndarray, labels: np.ndarray, device: str) -> Pool:
    members = tuple(torch.from_numpy(np.flatnonzero(labels == code)) for code in range(2))
    return Pool(torch.from_numpy(images).to(device), members)


def _require_classes(dataset: SliceDataset) -> None:
    classes = dataset.meta.classes
    if len(classes) != 2:
        raise LungsynthError(
            f"utility is measured on two classes, the dataset has {len(classes)} ({', '.join(classes)}): "
            "choose two, the positive one last, by cohort.classes"
        )
    for split in ("train", "val", "test"):
        present = set(dataset.table["label"].iloc[dataset.rows(split)])
        for name in classes:
            if name not in present:
                raise LungsynthError(
                    f"the {split} split has no {name} slice: enlarge the cohort or change the split's shares or salt"
                )
