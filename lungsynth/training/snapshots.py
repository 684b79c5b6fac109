"""Pictures of a generator: the same latents through the whole training, and the film of them."""

from pathlib import Path

import numpy as np
import torch
from PIL import Image

from lungsynth.generators.family import GeneratorConfig, GeneratorNetwork
from lungsynth.generators.package import draw

COLUMNS = 8
ROWS_PER_CLASS = 2
FRAME_MS = 150
LAST_FRAME_MS = 2000


def grid_labels(config: GeneratorConfig) -> np.ndarray:
    """Class codes int64 of a grid: `ROWS_PER_CLASS` rows of each class, one class below the other."""
    return np.repeat(np.arange(max(1, len(config.classes))), ROWS_PER_CLASS * COLUMNS)


def snapshot(generator: GeneratorNetwork, seed: int) -> np.ndarray:
    """A grid uint8 of `generator`, which must be in evaluation mode; the same `seed` gives the same latents."""
    device = next(generator.parameters()).device
    labels = torch.as_tensor(grid_labels(generator.config), device=device)
    latents = torch.randn(len(labels), generator.config.nz, generator=torch.Generator().manual_seed(seed))
    return grid(draw(generator, latents.to(device), labels))


def grid(images: np.ndarray) -> np.ndarray:
    """Slices uint8 N×H×W, in reading order, as one picture of `COLUMNS` columns; N is a multiple of it."""
    count, height, width = images.shape
    rows = images.reshape(count // COLUMNS, COLUMNS, height, width)
    return rows.transpose(0, 2, 1, 3).reshape(-1, COLUMNS * width)


def save_film(frames: list[Path], path: Path) -> None:
    """An endless GIF of the pictures `frames`, in their order; the last one stays longest."""
    pictures = [Image.open(frame) for frame in frames]
    durations = [FRAME_MS] * (len(pictures) - 1) + [LAST_FRAME_MS]
    pictures[0].save(path, save_all=True, append_images=pictures[1:], duration=durations, loop=0)
    for picture in pictures:
        picture.close()
