"""Self-made slices: patients are smooth random fields, cancer is a bright spot."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy.ndimage import gaussian_filter

from lungsynth.dataset.store import COLUMNS, SliceDataset, SliceMeta
from lungsynth.dataset.vocabulary import CLASSES

SIZE = 32


def draw_slices(rng: np.random.Generator, labels: np.ndarray, spot: float = 90.0) -> np.ndarray:
    """Slices of one patient: a rough field that changes from slice to slice, noise, and a spot in cancer slices."""
    volume = gaussian_filter(rng.normal(size=(len(labels), SIZE, SIZE)), (2, 1.2, 1.2))
    images = 100 + 30 * volume / volume.std() + rng.normal(0, 2, volume.shape)
    rows, columns = np.mgrid[:SIZE, :SIZE]
    for image, label in zip(images, labels, strict=True):
        y, x = rng.uniform(8, SIZE - 8, 2)
        image += label * spot * np.exp(-((rows - y) ** 2 + (columns - x) ** 2) / 12)
    return np.clip(images, 0, 255).astype(np.uint8)


def fresh(labels: np.ndarray, seed: int) -> np.ndarray:
    """A sampler that knows the truth: each slice comes from a patient whom nobody has seen."""
    rng = np.random.default_rng((seed, 1))
    return np.concatenate([draw_slices(rng, np.array([label])) for label in labels])


def noise(labels: np.ndarray, seed: int) -> np.ndarray:
    """A sampler that returns nothing but noise."""
    return np.random.default_rng(seed).integers(0, 256, (len(labels), SIZE, SIZE), dtype=np.uint8)


def write_toy(
    folder: Path, patients: dict[str, int], slices: int = 8, spot: float = 90.0, classes: tuple[str, ...] = CLASSES
) -> SliceDataset:
    """A dataset of that many patients in each split, every second one with cancer in half of the slices."""
    rng = np.random.default_rng(0)
    images, rows = [], []
    for split, count in patients.items():
        for number in range(count):
            labels = np.arange(slices) % 2 if number % 2 else np.zeros(slices, int)
            images.append(draw_slices(rng, labels, spot))
            for position, label in enumerate(labels):
                uid = f"1.2.{len(images)}"
                rows.append([f"{split}{number}", uid, f"{uid}.{position}", 2.5 * position, classes[label], split])
    table = pd.DataFrame(rows, columns=["patient", "series_uid", "sop_uid", "position_mm", "label", "split"])
    meta = SliceMeta(SIZE, (-1350, 150), "toy", classes=classes)
    return SliceDataset.write(folder / "toy", np.concatenate(images), table.reindex(columns=list(COLUMNS)), meta=meta)


@pytest.fixture(scope="session")
def toy(tmp_path_factory: pytest.TempPathFactory) -> SliceDataset:
    """24 training, 12 validation and 16 test patients of 8 slices."""
    return write_toy(tmp_path_factory.mktemp("toy"), {"train": 24, "val": 12, "test": 16})


@pytest.fixture(scope="session")
def radiographs(tmp_path_factory: pytest.TempPathFactory) -> SliceDataset:
    """The same with other classes, as an image folder gives them."""
    patients = {"train": 24, "val": 12, "test": 16}
    return write_toy(tmp_path_factory.mktemp("radiographs"), patients, classes=("NORMAL", "PNEUMONIA"))


@pytest.fixture(scope="session")
def fresh_sampler() -> Callable[[np.ndarray, int], np.ndarray]:
    """See `fresh`."""
    return fresh


@pytest.fixture(scope="session")
def noise_sampler() -> Callable[[np.ndarray, int], np.ndarray]:
    """See `noise`."""
    return noise
