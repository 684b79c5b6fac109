"""Reads slices for `python -m lungsynth.training`: a slice dataset's folder, or a user's arrays.

It runs where only training's dependencies are installed: of `dataset` it imports what needs numpy alone.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load_file

from lungsynth.dataset.mapped import map_shards
from lungsynth.dataset.vocabulary import SPLITS
from lungsynth.errors import LungsynthError
from lungsynth.generators.family import GeneratorConfig
from lungsynth.training.arrays import read_arrays
from lungsynth.training.data import Slices


@dataclass(frozen=True)
class TrainingData:
    """Slices uint8 N×H×W, class codes int64 N and split codes N: places in `SPLITS`.

    `classes` are empty where the data do not name them. `masks` are uint8 N×H×W of 0 and 1, where there are any.
    """

    images: Any
    labels: np.ndarray
    splits: np.ndarray
    classes: tuple[str, ...]
    window_hu: tuple[float, float] | None
    sha256: str
    masks: Any = None

    def of(self, split: str, masks: bool = False) -> Slices:
        """The slices of one split, with their masks where `masks` are wanted and there."""
        rows = np.flatnonzero(self.splits == SPLITS.index(split))
        return Slices(self.images, self.labels, rows, self.masks if masks else None)


def read(path: Path) -> TrainingData:
    """A slice dataset's folder, or a file `.npz` with the arrays `images`, `labels` and maybe `splits` and `masks`.

    Raises:
        LungsynthError: it is neither, or older than this library.
    """
    if not path.exists():
        raise LungsynthError(f"{path}: is not there; name the folder of a slice dataset, or a file .npz")
    return _folder(path) if path.is_dir() else _file(path)


def check_classes(generator: GeneratorConfig, classes: tuple[str, ...]) -> None:
    """Whether a generator's classes are the `classes` of the slices; a generator without classes trains on any.

    Raises:
        LungsynthError: they are not.
    """
    if generator.classes and generator.classes != classes:
        raise LungsynthError(
            f"generator.classes are {', '.join(generator.classes)} and the slices' {', '.join(classes)}: "
            "give the generator the classes of the cohort, in their order"
        )


def check_codes(generator: GeneratorConfig, labels: np.ndarray) -> None:
    """Whether a generator has a class for each label, where the slices do not name their classes.

    Raises:
        LungsynthError: it has not.
    """
    greatest = int(labels.max(initial=0))
    if generator.classes and greatest >= len(generator.classes):
        raise LungsynthError(
            f"generator.classes are {', '.join(generator.classes)}, and the labels go from 0 to {greatest}: "
            "name a class for each, in their order"
        )


def _folder(folder: Path) -> TrainingData:
    try:
        manifest = json.loads((folder / "dataset.json").read_text())
        meta, shards, masks = manifest["meta"], manifest["shards"], manifest["masks"]
        rows = sum(shard["rows"] for shard in shards)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise LungsynthError(f"{folder} is no slice dataset: cannot read dataset.json ({error})") from None
    codes = folder / "labels.safetensors"
    if not codes.exists():
        raise LungsynthError(f"{folder}: has no labels.safetensors, so it is older than this library; build it again")
    try:
        arrays = load_file(codes)
    except (OSError, SafetensorError) as error:
        raise LungsynthError(f"{codes}: cannot be read ({error}); build the slices again") from error
    if rows != len(arrays["labels"]):
        raise LungsynthError(f"{codes}: has {len(arrays['labels'])} labels of {rows} slices; build the slices again")

    return TrainingData(
        images=map_shards(folder, manifest, "images"),
        labels=arrays["labels"],
        splits=arrays["splits"],
        classes=tuple(meta["classes"]),
        window_hu=meta["window_hu"] and tuple(meta["window_hu"]),
        sha256=manifest["sha256"],
        masks=map_shards(folder, manifest, "masks") if masks else None,
    )


def _file(path: Path) -> TrainingData:
    arrays = read_arrays(path)
    return TrainingData(arrays.images, arrays.labels, arrays.splits, (), None, arrays.sha256, arrays.masks)
