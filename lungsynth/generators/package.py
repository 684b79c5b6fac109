"""The generator package: weights, how they were made, and the one way to sample slices from them."""

import hashlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from pydantic import Field, JsonValue, SerializeAsAny, ValidationError, field_validator
from safetensors.torch import save
from torch import Tensor
from torch.nn.functional import interpolate

from lungsynth.config import Config
from lungsynth.cpus import side_by_side
from lungsynth.errors import LungsynthError
from lungsynth.generators.family import DiscriminatorNetwork, GeneratorConfig, GeneratorNetwork
from lungsynth.generators.latents import latents_of
from lungsynth.generators.per_class import new_discriminator, new_network
from lungsynth.generators.weights import load_weights
from lungsynth.intensity import to_network

WEIGHTS, DISCRIMINATOR = "weights.safetensors", "discriminator.safetensors"
BATCH = 64
"""Slices per forward pass of `sample`. A constant, so that no caller's batch size can change a sample."""


class Pairs(NamedTuple):
    """Slices uint8 N×H×W, and the masks of what they show, uint8 N×H×W of 0 and 1."""

    images: np.ndarray
    masks: np.ndarray


class GeneratorCard(Config):
    """`generator.json`: what the weights are. A generator that was trained elsewhere has no `training`."""

    generator: SerializeAsAny[GeneratorConfig]
    window_hu: tuple[float, float] | None = Field(
        description="HU that the grey values 0 and 255 stand for; none for pictures that have no HU"
    )
    data_sha256: str | None = None
    kimg: float | None = Field(
        default=None, ge=0, description="real slices shown until then, thousands; the best moment of the training"
    )
    kid_val: float | None = Field(
        default=None, description="against `val` at that moment, see `training.monitor`; none: the last one was kept"
    )
    training: dict[str, JsonValue] | None = None

    @field_validator("generator", mode="before")
    @classmethod
    def _one_channel(cls, generator: Any) -> Any:
        """Cards of older versions state the `channels`."""
        if not isinstance(generator, Mapping) or "channels" not in generator:
            return generator
        if generator["channels"] != 1:
            raise ValueError(f"channels is {generator['channels']}, but slices have one")
        return {key: value for key, value in generator.items() if key != "channels"}


@dataclass(frozen=True)
class GeneratorPackage:
    """A folder with `weights.safetensors` (the average over training, see `training.ema`) and `generator.json`.

    A package from training also has `discriminator.safetensors`, the discriminator of that moment, for filters and the
    privacy audit. It never goes with a registered model: it tells who was trained on (Hayes 2019, arXiv 1705.07663).
    Training adds `samples.png`, `interpolation.png`, `progress.gif`, `training_log.jsonl`, `training.png`, and
    `real_beside_synthetic.png`, which does not go with a registered model.
    """

    folder: Path

    @cached_property
    def card(self) -> GeneratorCard:
        """The content of `generator.json`.

        Raises:
            LungsynthError: the file is missing or not a generator card.
        """
        path = self.folder / "generator.json"
        try:
            return GeneratorCard.model_validate_json(path.read_text(encoding="utf-8"))
        except (OSError, UnicodeDecodeError) as error:
            raise LungsynthError(f"{path}: cannot be read; the folder is no generator package") from error
        except ValidationError as error:
            first = error.errors()[0]
            where = ".".join(map(str, first["loc"])) or "the file"
            raise LungsynthError(f"{path}: not a generator card: {where}: {first['msg']}; train it again") from error

    @property
    def classes(self) -> tuple[str, ...]:
        """Class names in the order of their codes; empty where the generator is unconditional."""
        return self.card.generator.classes

    @property
    def window_hu(self) -> tuple[float, float] | None:
        """The HU that the grey values 0 and 255 stand for."""
        return self.card.window_hu

    @property
    def sha256(self) -> str:
        """SHA-256 of weights and card."""
        digest = hashlib.sha256()
        for name in (WEIGHTS, "generator.json"):
            digest.update(hashlib.sha256((self.folder / name).read_bytes()).digest())
        return digest.hexdigest()

    def load(self) -> GeneratorNetwork:
        """The generator, on the CPU, in evaluation mode.

        Raises:
            LungsynthError: the card or the weights are missing, damaged or do not belong together.
        """
        # Initial weights, overwritten below, must not use up callers' random numbers.
        with torch.random.fork_rng(devices=[]), on_the_cpu():
            generator = new_network(self.card.generator).float()
        load_weights(generator, self.folder / WEIGHTS)
        return generator.eval()

    def sample(self, labels: np.ndarray, seed: int) -> np.ndarray:
        """Slices uint8 N×H×W of the classes `labels` int64 N: the same seed and labels give the same slices.

        Args:
            seed: from 0 to 2⁶⁴ - 1; all its bits count.

        Raises:
            LungsynthError: a label is not a code of this generator's classes, or the seed is none.
        """
        with on_the_cpu():
            return generate(self.load(), *self._asked(labels, seed))

    def sample_pairs(self, labels: np.ndarray, seed: int) -> Pairs:
        """The slices that `sample` returns, with their masks.

        Raises:
            LungsynthError: a label is not a code of this generator's classes, the seed is none, or it draws no masks.
        """
        if not self.card.generator.masks:
            raise LungsynthError(f"{self.folder}: draws no masks; train a generator with generator.masks: true")
        with on_the_cpu():
            return generate_pairs(self.load(), *self._asked(labels, seed))

    def _asked(self, labels: np.ndarray, seed: int) -> tuple[Tensor, Tensor]:
        """Latents N×nz of the seed, and class codes int64 N."""
        known = len(self.classes)
        if known and not np.isin(labels, np.arange(known)).all():
            raise LungsynthError(f"{self.folder}: has the class codes 0 to {known - 1}, but others were asked for")
        latents = latents_of(seed, len(labels), self.card.generator.nz)
        return latents, torch.from_numpy(np.array(labels, dtype=np.int64))

    def load_discriminator(self) -> DiscriminatorNetwork | None:
        """The discriminator, on the CPU, in evaluation mode; None where the package has none.

        Raises:
            LungsynthError: the weights are damaged or do not belong to the card.
        """
        path = self.folder / DISCRIMINATOR
        if not path.exists():
            return None
        with torch.random.fork_rng(devices=[]), on_the_cpu():
            network = new_discriminator(self.card.generator)
        if network is None:
            raise LungsynthError(f"{path}: {self.card.generator.family} has no discriminator; remove the file")
        load_weights(network.float(), path)
        return network.eval()

    def realness(self, images: np.ndarray, labels: np.ndarray) -> np.ndarray | None:
        """The discriminator's scores float32 N of slices uint8 N×H×W of the classes `labels` int64 N; real is high.

        None where the package has no discriminator, or one that also needs masks. Some discriminators compare a slice
        with its neighbours in the batch. So the order is shuffled: neighbouring slices of one patient would look like a
        generator that repeats itself.
        """
        network = None if self.card.generator.masks else self.load_discriminator()
        if network is None:
            return None
        count = len(images)
        order = np.random.default_rng(0).permutation(count)
        order = np.resize(order, -(-count // BATCH) * BATCH)  # the last batch is filled up from the first
        scores = np.empty(count, np.float32)
        with on_the_cpu(), torch.inference_mode():
            for rows in order.reshape(-1, BATCH)[::-1]:
                x, y = to_network(torch.from_numpy(images[rows])[:, None]), torch.from_numpy(labels[rows])
                scores[rows] = network(x, y).numpy()
        return scores

    @classmethod
    def write(
        cls,
        folder: Path,
        generator: GeneratorNetwork,
        card: GeneratorCard,
        *,
        discriminator: DiscriminatorNetwork | None = None,
    ) -> "GeneratorPackage":
        """Write weights and card into `folder`."""
        folder.mkdir(parents=True, exist_ok=True)
        for name, network in ((WEIGHTS, generator), (DISCRIMINATOR, discriminator)):
            if network is not None:
                state = {key: tensor.detach().cpu().contiguous() for key, tensor in network.state_dict().items()}
                (folder / name).write_bytes(save(state))  # save_file would hide it from other users
        (folder / "generator.json").write_text(card.model_dump_json(indent=2) + "\n", encoding="utf-8")
        return cls(folder)


@contextmanager
def on_the_cpu() -> Iterator[None]:
    """Make tensors on the CPU and compute without autocast, whatever defaults a caller has set."""
    with torch.device("cpu"), torch.autocast("cpu", enabled=False):
        yield


def generate(generator: GeneratorNetwork, latents: Tensor, labels: Tensor) -> np.ndarray:
    """Slices uint8 N×H×W of `latents` N×nz and `labels` int64 N, both on the generator's device."""
    return _generate_planes(generator, latents, labels)[:, 0]


def generate_pairs(generator: GeneratorNetwork, latents: Tensor, labels: Tensor) -> Pairs:
    """The slices that `generate` returns, and their masks, of a generator with `masks`."""
    planes = _generate_planes(generator, latents, labels)
    return Pairs(planes[:, 0], (planes[:, 1] > 127).astype(np.uint8))


def _generate_planes(generator: GeneratorNetwork, latents: Tensor, labels: Tensor) -> np.ndarray:
    """All channels that the generator generates, uint8 N×C×H×W, in passes of `BATCH`."""
    size = generator.config.size

    def work(batch: tuple[Tensor, Tensor]) -> np.ndarray:
        with torch.inference_mode():  # of this thread
            planes = interpolate(generator(*batch), size)  # where it has not grown to its size yet
            return to_uint8(planes).cpu().numpy()

    batches = zip(latents.split(BATCH), labels.split(BATCH), strict=True)
    generated = list(side_by_side(work, batches) if latents.device.type == "cpu" else map(work, batches))
    return np.concatenate([np.empty((0, generator.config.planes, size, size), np.uint8), *generated])


def to_uint8(planes: Tensor) -> Tensor:
    """Grey values uint8 of images in [-1, 1], of any shape."""
    return ((planes + 1) * 127.5).round().clamp(0, 255).to(torch.uint8)
