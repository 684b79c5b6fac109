"""The training loop: uint8 slices in, a generator package out."""

import json
import math
import shutil
import time
from pathlib import Path

import numpy as np
import torch
from lightning_fabric import Fabric
from PIL import Image
from torch import Tensor
from tqdm import tqdm

from lungsynth.errors import LungsynthError
from lungsynth.generators.family import GeneratorConfig
from lungsynth.generators.package import GeneratorCard, GeneratorPackage
from lungsynth.training import ema
from lungsynth.training.adversarial import STATISTICS, adversarial_step
from lungsynth.training.config import TrainingConfig
from lungsynth.training.data import Slices, Source
from lungsynth.training.devices import launch, threads
from lungsynth.training.draws import Draws
from lungsynth.training.schedule import at
from lungsynth.training.snapshots import grid, grid_labels, save_film, snapshot
from lungsynth.training.state import TrainingState, run_key

LOG_KIMG = 0.5
"""kimg that one line of `training_log.jsonl` averages; a diverged run is noticed as late as that."""


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
) -> GeneratorPackage:
    """Train on the slices `train`, choose among the weights on the way by `val`, and write a package into `folder`.

    A run that was interrupted goes on from its newest checkpoint under `checkpoints`, to the same weights, on the CPU
    to the last bit, as a run that was not; the checkpoint is removed at the end. Equal seeds give equal weights on the
    CPU, for the same number of threads.

    Raises:
        LungsynthError: the data do not fit the configuration, the device is missing, or the losses ceased to be finite.
    """
    for slices in filter(None, (train, val)):
        _check(slices, generator)

    # Start afresh, or where the last run was stopped.
    fabric = launch(training)
    run = checkpoints / run_key(generator, training, data_sha256)
    state = TrainingState.new(generator, training, fabric.device)
    if (run / "state.pt").exists():
        state.restore(run / "state.pt")
    source = Source(train, balanced=training.balanced, seed=training.seed, device=fabric.device)

    # Train.
    with threads(training.threads):
        _train(state, source, training, run, fabric)

    # Hand over the average of the weights, and the pictures on the way to it.
    card = GeneratorCard(
        generator=generator,
        window_hu=window_hu,
        data_sha256=data_sha256,
        kimg=training.kimg,
        training=training.model_dump(mode="json"),
    )
    package = GeneratorPackage.write(folder, state.average, card)
    (folder / "training_log.jsonl").write_text("".join(json.dumps(row) + "\n" for row in state.log))
    save_film(sorted((run / "frames").glob("*.png")), folder / "progress.gif")
    Image.fromarray(grid(package.sample(grid_labels(generator), training.seed))).save(folder / "samples.png")
    shutil.rmtree(run)
    return package


def _train(state: TrainingState, source: Source, config: TrainingConfig, run: Path, fabric: Fabric) -> None:
    """Run the steps that are left, and keep frames and checkpoints in the folder `run`."""
    total = round(config.kimg * 1000)
    started = time.monotonic()
    with tqdm(total=total, initial=state.shown, unit="img", desc="training") as bar:
        while state.shown < total:
            before = state.kimg
            state.pending.append(_step(state, source, config, fabric))
            bar.update(state.shown - bar.n)

            last = state.shown >= total
            if last or _passed(LOG_KIMG, before, state.kimg):
                seconds, started = time.monotonic() - started, time.monotonic()
                state.log.append(_summary(torch.stack(state.pending), before, state, seconds))
                state.pending.clear()
                bar.set_postfix({key: f"{state.log[-1][key]:.2f}" for key in STATISTICS})
            if last or _passed(config.snapshot_kimg, before, state.kimg):
                _save_frame(state, config, run / "frames")
            if not last and _passed(config.checkpoint_kimg, before, state.kimg):
                state.save(run / "state.pt")


def _passed(every_kimg: float, before: float, now: float) -> bool:
    """Whether a multiple of `every_kimg` lies after `before`, up to `now`."""
    return math.floor(now / every_kimg) > math.floor(before / every_kimg)


def _step(state: TrainingState, source: Source, config: TrainingConfig, fabric: Fabric) -> Tensor:
    """One step of all networks, and of the average."""
    state.follow_schedules(config)
    draws = Draws(config.seed, state.step, fabric.device, fabric.global_rank, fabric.world_size)
    real, labels = source.draw(state.step, config.batch, fabric.global_rank, fabric.world_size)
    statistics = adversarial_step(state, real, labels, draws, config, fabric)
    state.step += 1
    state.shown += config.batch
    half_life = at(config.ema_kimg, state.kimg)
    ema.update(
        state.average, state.generator, ema.decay(half_life, config.ema_warm_up, state.kimg, config.batch / 1000)
    )
    return statistics


def _summary(statistics: Tensor, before: float, state: TrainingState, seconds: float) -> dict[str, float]:
    """One line of the log: means over the steps in `statistics`, steps×`STATISTICS`."""
    means = dict(zip(STATISTICS, statistics.mean(dim=0).tolist(), strict=True))
    if not all(math.isfinite(value) for value in means.values()):
        raise LungsynthError(
            f"training diverged before {state.kimg:.2f} kimg: loss is not finite; lower the learning rates"
        )
    shown = state.shown - (state.log[-1]["kimg"] * 1000 if state.log else 0)
    return {"kimg": state.kimg, **means, "img_per_s": shown / seconds}


def _save_frame(state: TrainingState, config: TrainingConfig, frames: Path) -> None:
    frames.mkdir(parents=True, exist_ok=True)
    Image.fromarray(snapshot(state.average, config.seed)).save(frames / f"{state.shown:012d}.png")


def _check(slices: Slices, generator: GeneratorConfig) -> None:
    labels, images = slices.labels, slices.images
    channels = (3,) if generator.channels == 3 else ()
    expected = (len(labels), *channels, generator.size, generator.size)
    if images.dtype != np.uint8 or tuple(images.shape) != expected or not len(slices):
        found = f"{images.dtype} {'×'.join(map(str, images.shape))} with {len(labels)} labels"
        shape = "×".join(map(str, ("N", *expected[1:])))
        raise LungsynthError(f"training data: need uint8 {shape}, one label each; got {found}")
    codes = slices.codes
    absent = [name for code, name in enumerate(generator.classes) if code not in codes]
    if absent:
        raise LungsynthError(f"training data: no slice of the class {absent[0]}; add some, or train without classes")
    if generator.classes and not np.isin(codes, np.arange(len(generator.classes))).all():
        raise LungsynthError(f"training data: a label is not the code of one of {', '.join(generator.classes)}")
