"""The in-domain feature extractor: a small CNN that learns class and anatomical level from the training slices."""

import json
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
import torch.nn.functional as F
from pydantic import Field
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch_fidelity.feature_extractor_base import FeatureExtractorBase
from torch_fidelity.registry import FEATURE_EXTRACTORS_REGISTRY, register_feature_extractor

from lungsynth.config import Config, Seed
from lungsynth.cpus import torch_threads
from lungsynth.dataset.store import SliceDataset
from lungsynth.errors import LungsynthError
from lungsynth.evaluation.features import FeatureExtractor
from lungsynth.hashing import combine, file_sha256
from lungsynth.progress import Progress

FEATURES = 64
"""Dimension D of the features: small, so that FID of a few hundred slices still means something."""


class ExtractorConfig(Config):
    """Training of the lung feature extractor."""

    steps: int = Field(
        200, ge=1, description="optimiser steps [chosen here: 200 fit class and level on a few hundred slices]"
    )
    batch: int = Field(32, ge=2, description="slices in a step [chosen here: fits any machine]")
    lr: float = Field(2e-3, gt=0, description="learning rate of AdamW at its peak [chosen here: high, for few steps]")
    weight_decay: float = Field(
        0.05,
        ge=0,
        description="rate of AdamW's weight decay [chosen here: usual with AdamW, as in ConvNeXt, arXiv 2201.03545]",
    )
    seed: Seed = Field(0, description="seed of initial weights and batches")


class LungNetwork(nn.Module):
    """Four stride-2 convolutions and a global average: uint8 N×C×H×W (first channel is read) -> features N×D."""

    def __init__(self, classes: int) -> None:
        super().__init__()
        widths = (1, 16, 32, 64, FEATURES)
        self.body = nn.Sequential(*(
            nn.Sequential(nn.Conv2d(i, o, 3, 2, 1, bias=False), nn.BatchNorm2d(o), nn.SiLU())
            for i, o in pairwise(widths)
        ))  # fmt: skip
        self.heads = nn.Linear(FEATURES, classes + 1)

    def forward(self, images: Tensor) -> Tensor:
        """Penultimate features N×D of uint8 images."""
        return self.body(images[:, :1].float() / 127.5 - 1).mean(dim=(2, 3))


class FeatureExtractorLung(FeatureExtractorBase):
    """`LungNetwork` under torch-fidelity's interface, so that `calculate_metrics(feature_extractor="lung")` uses it."""

    def __init__(
        self, name: str, features_list: list[str], feature_extractor_weights_path: str, **torch_fidelity_options: Any
    ) -> None:
        super().__init__(name, features_list)
        state = load_file(feature_extractor_weights_path)
        self.network = LungNetwork(classes=len(state["heads.bias"]) - 1)
        self.network.load_state_dict(state)
        self.requires_grad_(False)
        self.eval()

    @staticmethod
    def get_provided_features_list() -> tuple[str, ...]:
        """The one layer that there is."""
        return (str(FEATURES),)

    @staticmethod
    def get_default_feature_layer_for_metric(metric: str) -> str:
        """The same layer for every metric."""
        return str(FEATURES)

    def forward(self, input: Tensor) -> tuple[Tensor]:
        """Features of uint8 images N×C×H×W."""
        return (self.network(input),)


@dataclass(frozen=True)
class Extractor:
    """A folder with `extractor.safetensors` and `extractor.json`."""

    folder: Path

    @property
    def weights(self) -> Path:
        """The weight file, as torch-fidelity's `feature_extractor_weights_path` wants it."""
        return self.folder / "extractor.safetensors"

    @property
    def sha256(self) -> str:
        """Hash of weights and description."""
        return combine([file_sha256(self.weights), file_sha256(self.folder / "extractor.json")])

    @cached_property
    def network(self) -> FeatureExtractor:
        """The network, on the GPU where there is one."""
        device = "cuda" if torch.cuda.is_available() else "cpu"
        module = FeatureExtractorLung("lung", [str(FEATURES)], str(self.weights))
        return FeatureExtractor("lung", module.to(device))

    def features(self, images: np.ndarray, cache: Path | None = None) -> np.ndarray:
        """Raw penultimate features, float32 N×D, of uint8 slices N×H×W; see `FeatureExtractor.features`."""
        return self.network.features(images, cache)


def register_lung_extractor() -> None:
    """Make the name `lung` known to torch-fidelity; a second call in a process does nothing."""
    if "lung" not in FEATURE_EXTRACTORS_REGISTRY:
        register_feature_extractor("lung", FeatureExtractorLung)


def train_extractor(dataset: SliceDataset, config: ExtractorConfig, folder: Path) -> Extractor:
    """Train on `train` slices alone and write the extractor into `folder`; on a CPU one seed gives the same bytes.

    Raises:
        LungsynthError: training diverged.
    """
    rows = dataset.rows("train")
    device = "cuda" if torch.cuda.is_available() else "cpu"
    images = torch.from_numpy(np.array(dataset.images[rows])).to(device)
    labels = torch.from_numpy(dataset.labels[rows]).to(device)
    levels = torch.from_numpy(relative_level(dataset.table)[rows]).to(device)
    with torch_threads(1):  # with more, sums depend on how many there are, and each waits for the others
        network = _train(images, labels, levels, len(dataset.meta.classes), config)
    if not all(tensor.isfinite().all() for tensor in network.state_dict().values()):
        raise LungsynthError("the lung extractor's training diverged, its weights are not finite: lower extractor.lr")
    folder.mkdir(parents=True, exist_ok=True)
    extractor = Extractor(folder)
    save_file({name: tensor.cpu() for name, tensor in network.state_dict().items()}, extractor.weights)
    facts = {"features": FEATURES, "config": config.model_dump(), "slices": len(rows), "dataset_sha256": dataset.sha256}
    (folder / "extractor.json").write_text(json.dumps(facts, indent=2))
    return extractor


def relative_level(table: pd.DataFrame) -> np.ndarray:
    """Where each slice lies among those of its series, float32 N from 0 to 1; 0.5 for the only one of a series."""
    position = table.groupby("series_uid")["position_mm"]
    low, extent = position.transform("min"), position.transform("max") - position.transform("min")
    level = (table["position_mm"] - low) / extent.where(extent > 0)
    return level.fillna(0.5).to_numpy(np.float32)


def _train(images: Tensor, labels: Tensor, levels: Tensor, classes: int, config: ExtractorConfig) -> LungNetwork:
    with torch.random.fork_rng():
        torch.manual_seed(config.seed)
        network = LungNetwork(classes).to(images.device)
    optimiser = torch.optim.AdamW(network.parameters(), lr=config.lr, weight_decay=config.weight_decay)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, config.lr, config.steps + 1)
    rng = torch.Generator().manual_seed(config.seed)
    for _ in Progress(range(config.steps), "lung extractor", leave=False):
        batch = torch.randint(len(images), (config.batch,), generator=rng).to(images.device)
        outputs = network.heads(network(images[batch, None]))
        loss = F.cross_entropy(outputs[:, :-1], labels[batch])
        loss = loss + 4 * F.mse_loss(
            outputs[:, -1], levels[batch]
        )  # level has variance 1/12: bring it to the class's scale
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        schedule.step()
    return network
