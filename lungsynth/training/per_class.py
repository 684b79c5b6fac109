"""Training of one network for each class, one after the other, where the generator asks for it."""

import json
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageSequence

from lungsynth.errors import LungsynthError
from lungsynth.generators.family import GeneratorConfig
from lungsynth.generators.package import GeneratorPackage
from lungsynth.generators.per_class import PerClass, PerClassDiscriminator, new_discriminator
from lungsynth.training import loop
from lungsynth.training.config import TrainingConfig
from lungsynth.training.curves import save_curves
from lungsynth.training.data import Slices
from lungsynth.training.devices import launch
from lungsynth.training.monitor import Row
from lungsynth.training.snapshots import real_grid, save_film, save_pictures
from lungsynth.training.state import clear, owned, run_key

DONE = "done"
"""Marks the folder of a class whose network is trained."""


def train_generator(
    train: Slices,
    val: Slices | None,
    *,
    window_hu: tuple[float, float] | None,
    data_sha256: str,
    generator: GeneratorConfig,
    training: TrainingConfig,
    folder: Path,
    checkpoints: Path,
    on_log: Callable[[Row], None] | None = None,
) -> GeneratorPackage:
    """Train a generator, or one for each class where `generator.per_class` says so; see `loop.train_generator`.

    Those share nothing: each is trained for `training.kimg` on the slices of its class. The package holds all of them,
    and draws by label like any other. Its log has one class after the other, its film one below the other.

    Raises:
        LungsynthError: as `loop.train_generator`; a class has no slices.
    """
    if not generator.per_class:
        return loop.train_generator(
            train,
            val,
            window_hu=window_hu,
            data_sha256=data_sha256,
            generator=generator,
            training=training,
            folder=folder,
            checkpoints=checkpoints,
            on_log=on_log,
        )
    of_class = [_of_class(train, code) for code in range(len(generator.classes))]
    for name, slices in zip(generator.classes, of_class, strict=True):
        if not len(slices):
            raise LungsynthError(f"training data: no slice of the class {name}; add some, or leave the class out")
    fabric = launch(training)
    run = checkpoints / run_key(generator, training, data_sha256)
    parts = [GeneratorPackage(run / str(code)) for code in range(len(generator.classes))]
    with owned(run, folder, fabric):
        for code, (name, part) in enumerate(zip(generator.classes, parts, strict=True)):
            if (part.folder / DONE).exists():  # before a run that was interrupted later
                continue
            loop.train_generator(
                of_class[code],
                _of_class(val, code) if val else None,
                window_hu=window_hu,
                data_sha256=f"{data_sha256} {name}",
                generator=generator.of_one_class,
                training=training,
                folder=part.folder,
                checkpoints=checkpoints,
                on_log=on_log and partial(_pass_on, on_log, code * training.kimg),
            )
            if fabric.is_global_zero:
                (part.folder / DONE).touch()
        if fabric.is_global_zero:
            _join(parts, generator, data_sha256, training, real_grid(train, generator), folder)
            clear(run)
        fabric.barrier()
    return GeneratorPackage(folder)


def _of_class(slices: Slices, code: int) -> Slices:
    return replace(slices, labels=np.zeros_like(slices.labels), rows=slices.rows[slices.codes == code])


def _pass_on(on_log: Callable[[Row], None], earlier: float, row: Row) -> None:
    on_log(_later(row, earlier))


def _later(row: Row, earlier: float) -> Row:
    """A line of the log of a class, after the `earlier` kimg of those before it."""
    return row | {"kimg": row["kimg"] + earlier}


def _join(
    parts: list[GeneratorPackage],
    generator: GeneratorConfig,
    data_sha256: str,
    training: TrainingConfig,
    real: np.ndarray,
    folder: Path,
) -> None:
    """Write the package in `folder` of those of the single classes."""
    with torch.random.fork_rng(devices=[]):  # the initial weights, overwritten at once, must cost callers no draw
        network, discriminator = PerClass(generator), new_discriminator(generator)
    for code, part in enumerate(parts):
        network.networks[code].load_state_dict(part.load().state_dict())
        if isinstance(discriminator, PerClassDiscriminator) and (theirs := part.load_discriminator()):
            discriminator.networks[code].load_state_dict(theirs.state_dict())
    card = parts[0].card.model_copy(
        update={
            "generator": generator,
            "data_sha256": data_sha256,
            "kimg": max(part.card.kimg or 0 for part in parts),
            "kid_val": None,  # each class has its own
        }
    )
    package = GeneratorPackage.write(folder, network, card, discriminator)
    rows = [
        _later(json.loads(line), code * training.kimg)
        for code, part in enumerate(parts)
        for line in (part.folder / "training_log.jsonl").read_text().splitlines()
    ]
    (folder / "training_log.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    save_pictures(package, real, training.seed)
    save_curves(rows, folder / "training.png")
    films = [_frames(part.folder / "progress.gif") for part in parts]
    frames = []
    for moment in range(max(map(len, films))):  # a run that stopped early keeps its last frame
        frames.append(parts[0].folder / f"{moment:06d}.png")
        Image.fromarray(np.vstack([film[min(moment, len(film) - 1)] for film in films])).save(frames[-1])
    save_film(frames, folder / "progress.gif")


def _frames(path: Path) -> list[np.ndarray]:
    with Image.open(path) as film:
        return [np.asarray(frame.convert("RGB")) for frame in ImageSequence.Iterator(film)]
