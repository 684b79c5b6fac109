"""Trains a network for each class, one after the other, and joins them into one package (`generator.per_class`)."""

import json
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageSequence

from lungsynth.errors import LungsynthError
from lungsynth.generators.package import GeneratorPackage
from lungsynth.generators.per_class import PerClass, PerClassDiscriminator, new_discriminator
from lungsynth.training import loop
from lungsynth.training.curves import save_curves
from lungsynth.training.data import Slices
from lungsynth.training.devices import launch
from lungsynth.training.monitor import Row
from lungsynth.training.run import TrainingRun
from lungsynth.training.snapshots import real_grid, save_film, save_pictures
from lungsynth.training.state import clear, owned

DONE = "done"
"""Marks the folder of a class whose network is trained."""


def train_each_class(run: TrainingRun) -> GeneratorPackage:
    """Train a network for each class on its slices alone, for `training.kimg` each.

    The package holds all networks, and samples by label like any other. Its log has the classes one after the other;
    its film shows them one below the other.

    Raises:
        LungsynthError: as `train_network`; a class has no slices.
    """
    of_class = [_of_class(run, code) for code in range(len(run.generator.classes))]
    for name, one in zip(run.generator.classes, of_class, strict=True):
        if not len(one.train):
            raise LungsynthError(f"training data: no slice of the class {name}; add some, or leave the class out")
    fabric = launch(run.training)
    with owned(run.checkpoint_folder, run.folder, fabric):
        if fabric.local_rank == 0:
            run.mirror.pull()
        fabric.barrier()
        for one in of_class:
            if (one.folder / DONE).exists():  # by a run that was interrupted later
                continue
            loop.train_network(one)
            if fabric.is_global_zero:
                (one.folder / DONE).touch()
                run.mirror.push()
        if fabric.is_global_zero:
            _join([GeneratorPackage(one.folder) for one in of_class], run)
            clear(run.checkpoint_folder, run.mirror)
        fabric.barrier()
    return GeneratorPackage(run.folder)


def _of_class(run: TrainingRun, code: int) -> TrainingRun:
    """The training of the network for one class."""
    return replace(
        run,
        train=_slices_of(run.train, code),
        val=_slices_of(run.val, code) if run.val else None,
        data_sha256=f"{run.data_sha256} {run.generator.classes[code]}",
        generator=run.generator.of_one_class,
        folder=run.checkpoint_folder / str(code),
        on_log=run.on_log and partial(_log_later, run.on_log, code * run.training.kimg),
    )


def _slices_of(slices: Slices, code: int) -> Slices:
    return replace(slices, labels=np.zeros_like(slices.labels), rows=slices.rows[slices.codes == code])


def _log_later(on_log: Callable[[Row], None], earlier: float, row: Row) -> None:
    on_log(_later(row, earlier))


def _later(row: Row, earlier: float) -> Row:
    """A line of the log of a class, after the `earlier` kimg of those before it."""
    return row | {"kimg": row["kimg"] + earlier}


def _join(parts: list[GeneratorPackage], run: TrainingRun) -> None:
    """Write the package of the run from those of the single classes."""
    folder = run.folder
    package = _join_networks(parts, run)
    rows = [
        _later(json.loads(line), code * run.training.kimg)
        for code, part in enumerate(parts)
        for line in (part.folder / "training_log.jsonl").read_text().splitlines()
    ]
    (folder / "training_log.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    save_pictures(package, real_grid(run.train, run.generator), run.training.seed)
    save_curves(rows, folder / "training.png")
    films = [_frames(part.folder / "progress.gif") for part in parts]
    frames = []
    for moment in range(max(map(len, films))):  # a run that stopped early keeps its last frame
        frames.append(parts[0].folder / f"{moment:06d}.png")
        Image.fromarray(np.vstack([film[min(moment, len(film) - 1)] for film in films])).save(frames[-1])
    save_film(frames, folder / "progress.gif")


def _join_networks(parts: list[GeneratorPackage], run: TrainingRun) -> GeneratorPackage:
    """Write weights and card of all classes."""
    with torch.random.fork_rng(devices=[]):  # initial weights, overwritten below, must not use up callers' numbers
        network, discriminator = PerClass(run.generator), new_discriminator(run.generator)
    for code, part in enumerate(parts):
        network.networks[code].load_state_dict(part.load().state_dict())
        if isinstance(discriminator, PerClassDiscriminator) and (theirs := part.load_discriminator()):
            discriminator.networks[code].load_state_dict(theirs.state_dict())
    moment = {"kimg": max(part.card.kimg or 0 for part in parts), "kid_val": None}  # each class has a KID of its own
    return GeneratorPackage.write(run.folder, network, run.card.model_copy(update=moment), discriminator=discriminator)


def _frames(path: Path) -> list[np.ndarray]:
    with Image.open(path) as film:
        return [np.asarray(frame.convert("RGB")) for frame in ImageSequence.Iterator(film)]
