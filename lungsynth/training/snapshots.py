"""Pictures of a generator: grids of slices from the same latents throughout training, and a film of them."""

from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from lungsynth.generators.family import GeneratorConfig, GeneratorNetwork
from lungsynth.generators.package import GeneratorPackage, generate
from lungsynth.training.data import Slices

COLUMNS = 8
ROWS_PER_CLASS = 2
LINE = 4
"""Pixels of the white line between real and synthetic slices."""
FRAME_MS = 150
LAST_FRAME_MS = 2000


def grid_labels(config: GeneratorConfig) -> np.ndarray:
    """Class codes int64 of the slices of a grid: `ROWS_PER_CLASS` rows for each class, in the order of the codes."""
    return np.repeat(np.arange(max(1, len(config.classes))), ROWS_PER_CLASS * COLUMNS)


def snapshot(generator: GeneratorNetwork, seed: int) -> np.ndarray:
    """A grid uint8 of slices of `generator`, in evaluation mode; `seed` determines the latents."""
    labels = grid_labels(generator.config)
    latents = torch.randn(len(labels), generator.config.nz, generator=torch.Generator().manual_seed(seed))
    return grid(_generated(generator, latents, labels))


def grid(images: np.ndarray) -> np.ndarray:
    """Slices uint8 N×H×W, or N×1×H×W, in reading order, as one picture of `COLUMNS` columns; it divides N."""
    height, width = images.shape[-2:]
    return images.reshape(-1, COLUMNS, height, width).swapaxes(1, 2).reshape(-1, COLUMNS * width)


def real_grid(slices: Slices, config: GeneratorConfig) -> np.ndarray:
    """A grid like a snapshot's, of real slices that are spread evenly over each class."""
    labels = grid_labels(config)
    places = []
    for code, count in zip(*np.unique(labels, return_counts=True), strict=True):
        members = np.flatnonzero(slices.codes == code) if config.classes else np.arange(len(slices))
        places.append(members[np.linspace(0, len(members) - 1, count).astype(np.int64)])
    return grid(slices.take(np.concatenate(places)))


def beside(real: np.ndarray, synthetic: np.ndarray) -> np.ndarray:
    """The left half of one grid and the left half of the other, with a white line between them."""
    half = real.shape[1] // 2
    line = np.full((len(real), LINE), 255, np.uint8)
    return np.concatenate([real[:, :half], line, synthetic[:, :half]], axis=1)


def interpolation(generator: GeneratorNetwork, seed: int) -> np.ndarray:
    """A grid uint8 with a row for each class, from one latent to another; all rows have the same latents."""
    start, end = torch.randn(2, generator.config.nz, generator=torch.Generator().manual_seed(seed))
    classes = max(1, len(generator.config.classes))
    way = slerp(start, end, torch.linspace(0, 1, COLUMNS))
    return grid(_generated(generator, way.repeat(classes, 1), np.repeat(np.arange(classes), COLUMNS)))


def slerp(start: Tensor, end: Tensor, fractions: Tensor) -> Tensor:
    """Points S×D on the arc from `start` D to `end` D, at `fractions` S of the way, from 0 to 1.

    A straight line would leave the shell in which normal latents lie (White, arXiv 1609.04468).
    """
    angle = torch.acos(torch.cosine_similarity(start, end, dim=0).clamp(-1 + 1e-6, 1 - 1e-6))
    weights = torch.stack([torch.sin((1 - fractions) * angle), torch.sin(fractions * angle)]) / torch.sin(angle)
    return weights[0, :, None] * start + weights[1, :, None] * end


def save_pictures(package: GeneratorPackage, real: np.ndarray, seed: int) -> None:
    """Write `samples.png`, `interpolation.png` and, for the run's owner alone, `real_beside_synthetic.png`.

    Args:
        real: from `real_grid`.
    """
    generator = package.load()
    samples = snapshot(generator, seed)
    pictures = {
        "samples": samples,
        "interpolation": interpolation(generator, seed),
        "real_beside_synthetic": beside(real, samples),
    }
    for name, picture in pictures.items():
        Image.fromarray(picture).save(package.folder / f"{name}.png")


def save_film(frames: list[Path], path: Path) -> None:
    """Write the pictures `frames`, in their order, as an endless GIF; the last one is shown longest."""
    pictures = [Image.open(frame) for frame in frames]
    durations = [FRAME_MS] * (len(pictures) - 1) + [LAST_FRAME_MS]
    pictures[0].save(path, save_all=True, append_images=pictures[1:], duration=durations, loop=0)
    for picture in pictures:
        picture.close()


def _generated(generator: GeneratorNetwork, latents: Tensor, labels: np.ndarray) -> np.ndarray:
    device = next(generator.parameters()).device
    return generate(generator, latents.to(device), torch.from_numpy(labels).to(device))
