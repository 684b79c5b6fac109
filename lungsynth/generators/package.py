"""The generator package record: weights, what made them, and the one way to draw slices from them."""

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from pydantic import Field, JsonValue, SerializeAsAny, ValidationError
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
        # The initial weights, overwritten at once, must cost callers no draw.
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
            return draw(self.load(), *self._asked(labels, seed))

    def sample_pairs(self, labels: np.ndarray, seed: int) -> Pairs:
        """The slices that `sample` gives, with the masks that were drawn with them.

        Raises:
            LungsynthError: a label is not a code of this generator's classes, the seed is none, or it draws no masks.
        """
        if not self.card.generator.masks:
            raise LungsynthError(f"{self.folder}: draws no masks; train a generator with generator.masks: true")
        with on_the_cpu():
            return draw_pairs(self.load(), *self._asked(labels, seed))

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
        """Scores float32 N of the discriminator, higher is more real; None where there is none, or it wants masks too.

        Of slices uint8 N×H×W said to be of the classes `labels` int64 N. Some discriminators look at neighbours in the
        batch as well: the order is shuffled, for those of one patient would be taken for a generator's repeats.
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
                x, y = torch.from_numpy(images[rows])[:, None].float() / 127.5 - 1, torch.from_numpy(labels[rows])
                scores[rows] = network(x, y).numpy()
        return scores

    @classmethod
    def write(
        cls,
        folder: Path,
        generator: GeneratorNetwork,
        card: GeneratorCard,
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
    """Whatever default device and autocast a caller has set, tensors are made on the CPU and computed as they are."""
    with torch.device("cpu"), torch.autocast("cpu", enabled=False):
        yield


def draw(generator: GeneratorNetwork, latents: Tensor, labels: Tensor) -> np.ndarray:
    """Slices uint8 N×H×W, N×3×H×W in colour, of `latents` N×nz and `labels` int64 N; all on the generator's device."""
    images = _draw_planes(generator, latents, labels)[:, : generator.config.channels]
    return images[:, 0] if images.shape[1] == 1 else images


def draw_pairs(generator: GeneratorNetwork, latents: Tensor, labels: Tensor) -> Pairs:
    """The slices that `draw` gives, and their masks, of a generator that draws these."""
    planes = _draw_planes(generator, latents, labels)
    images, masks = np.split(planes, [generator.config.channels], axis=1)
    return Pairs(images[:, 0] if images.shape[1] == 1 else images, (masks[:, 0] > 127).astype(np.uint8))


def _draw_planes(generator: GeneratorNetwork, latents: Tensor, labels: Tensor) -> np.ndarray:
    """All that the generator draws, uint8 N×C×H×W, `BATCH` at a time."""
    size = generator.config.size

    def work(batch: tuple[Tensor, Tensor]) -> np.ndarray:
        with torch.inference_mode():  # of this thread
            planes = interpolate(generator(*batch), size)  # where it has not grown to its size yet
            return to_uint8(planes).cpu().numpy()

    batches = zip(latents.split(BATCH), labels.split(BATCH), strict=True)
    drawn = list(side_by_side(work, batches) if latents.device.type == "cpu" else map(work, batches))
    return np.concatenate([np.empty((0, generator.config.planes, size, size), np.uint8), *drawn])


def to_uint8(planes: Tensor) -> Tensor:
    """Grey values uint8 of what was drawn in [-1, 1], of any shape."""
    return ((planes + 1) * 127.5).round().clamp(0, 255).to(torch.uint8)
