"""Features of slices: one pass for each extractor; those of real slices are cached on disk for the next run."""

import logging
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from pydantic import Field
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file
from torch import nn

from lungsynth.config import Config
from lungsynth.cpus import side_by_side
from lungsynth.errors import LungsynthError
from lungsynth.files import whole_file
from lungsynth.hashing import array_sha256, combine
from lungsynth.progress import Progress
from lungsynth.remote import Place, below, exists, on_disk, pull, push

log = logging.getLogger(__name__)
BATCH = 128
"""Slices per forward pass."""


class FeaturesConfig(Config):
    """Settings of all measures in feature space."""

    cache: Place | None = Field(
        Path("data/features"), description="folder or URL that keeps the features of real slices; none: keep nothing"
    )


@dataclass(frozen=True)
class FeatureExtractor:
    """A network under a name: uint8 N×3×H×W -> a tuple whose first entry are features N×D, as torch-fidelity has it."""

    name: str
    module: nn.Module

    @cached_property
    def sha256(self) -> str:
        """Hash of the weights."""
        state = self.module.state_dict()
        return combine(f"{key} {array_sha256(np.atleast_1d(value.cpu().numpy()))}" for key, value in state.items())

    def features(self, images: np.ndarray, cache: Place | None = None) -> np.ndarray:
        """float32 N×D of uint8 slices N×H×W; grey becomes three channels.

        With a folder or URL `cache`, features are read from it or written to it. Its files are named by the hashes of
        pixels and weights, whereas torch-fidelity's own cache trusts a name that the caller gives.
        """
        if cache is None:
            return self._computed(images)
        path = on_disk(cache) / f"{self.name}-{combine([self.sha256, array_sha256(images)])}.safetensors"
        try:
            if isinstance(cache, str) and not path.exists() and exists(below(cache, path.name)):
                pull(cache, path.parent, [path.name])
            return load_file(path)["features"]
        except FileNotFoundError:
            pass
        except (OSError, SafetensorError, KeyError, LungsynthError) as problem:
            log.warning("%s cannot be read (%s): its features are computed again", path, problem)
        features = self._computed(images)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with whole_file(path) as part:
                save_file({"features": features}, part)
            if isinstance(cache, str):
                push(path.parent, cache, [path.name])
        except (
            OSError,
            SafetensorError,
            LungsynthError,
        ) as problem:  # a full disk is a SafetensorError
            log.warning("%s cannot be written (%s): the next run computes these features again", path, problem)
        return features

    def _computed(self, images: np.ndarray) -> np.ndarray:
        device = next(self.module.parameters()).device

        def work(start: int) -> np.ndarray:
            with torch.inference_mode():  # of this thread
                batch = torch.from_numpy(np.array(images[start : start + BATCH])).to(device)
                result: np.ndarray = self.module(batch[:, None].expand(-1, 3, -1, -1))[0].cpu().numpy()
                return result

        starts = range(0, len(images), BATCH)
        batches = map(work, starts) if device.type == "cuda" else side_by_side(work, starts)
        return np.concatenate(list(Progress(batches, f"{self.name} features", len(starts), leave=False)))
