"""The in-domain feature extractor: a small CNN that learns class and anatomical level from the training slices."""

import json
from collections import OrderedDict
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from pathlib import Path

import numpy as np
import pandas as pd
import torch
import torch.nn.functional as F
from pydantic import Field
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from lungsynth.config import Config, Seed
from lungsynth.cpus import torch_threads
from lungsynth.dataset.store import SliceDataset
from lungsynth.errors import LungsynthError
from lungsynth.evaluation.features import FeatureExtractor
from lungsynth.fit import fit
from lungsynth.hashing import combine, file_sha256
from lungsynth.intensity import to_network
from lungsynth.remote import Place

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

    def forward(self, images: Tensor) -> tuple[Tensor]:
        """Penultimate features N×D of uint8 images, as `FeatureExtractor` takes them."""
        return (self.body(to_network(images[:, :1])).mean(dim=(2, 3)),)


@dataclass(frozen=True)
class Extractor:
    """A folder with `extractor.safetensors` and `extractor.json`."""

    folder: Path

    @property
    def weights(self) -> Path:
        """The weight file."""
        return self.folder / "extractor.safetensors"

    @property
    def sha256(self) -> str:
        """Hash of weights and description."""
        return combine([file_sha256(self.weights), file_sha256(self.folder / "extractor.json")])

    @cached_property
    def network(self) -> FeatureExtractor:
        """The network, on the GPU where there is one."""
        state = load_file(self.weights)
        network = LungNetwork(classes=len(state["heads.bias"]) - 1)
        network.load_state_dict(state)
        network.requires_grad_(False).eval().to("cuda" if torch.cuda.is_available() else "cpu")
        # Cached features go by the weights' names too: this one prefix keeps those of earlier versions valid.
        return FeatureExtractor("lung", nn.Sequential(OrderedDict(network=network)))

    def features(self, images: np.ndarray, cache: Place | None = None) -> np.ndarray:
        """Raw penultimate features, float32 N×D, of uint8 slices N×H×W; see `FeatureExtractor.features`."""
        return self.network.features(images, cache)


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
    """Each slice's relative position within its series, float32 N from 0 to 1; 0.5 for a single slice."""
    position = table.groupby("series_uid")["position_mm"]
    low, extent = position.transform("min"), position.transform("max") - position.transform("min")
    level = (table["position_mm"] - low) / extent.where(extent > 0)
    return level.fillna(0.5).to_numpy(np.float32)


def _train(images: Tensor, labels: Tensor, levels: Tensor, classes: int, config: ExtractorConfig) -> LungNetwork:
    with torch.random.fork_rng():
        torch.manual_seed(config.seed)
        network = LungNetwork(classes).to(images.device)
    rng = torch.Generator().manual_seed(config.seed)

    def loss() -> Tensor:
        batch = torch.randint(len(images), (config.batch,), generator=rng).to(images.device)
        outputs = network.heads(network(images[batch, None])[0])
        # Levels have variance 1/12: the factor brings their error to the scale of the classes'.
        return F.cross_entropy(outputs[:, :-1], labels[batch]) + 4 * F.mse_loss(outputs[:, -1], levels[batch])

    fit(network, loss, steps=config.steps, lr=config.lr, weight_decay=config.weight_decay, title="lung extractor")
    return network
