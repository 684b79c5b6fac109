"""The training loop: uint8 slices in, a generator package out."""

import json
import math
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from tqdm import tqdm

from lungsynth.errors import LungsynthError
from lungsynth.generators.dcgan import DcganConfig
from lungsynth.generators.package import GeneratorCard, GeneratorPackage
from lungsynth.training import ema
from lungsynth.training.augment import augment
from lungsynth.training.checkpoint import TrainingState, run_key
from lungsynth.training.config import TrainingConfig
from lungsynth.training.losses import discriminator_loss, generator_loss, r1_penalty
from lungsynth.training.snapshots import grid, grid_labels, save_film, snapshot

LOG_KIMG = 0.5
"""kimg that one line of `training_log.jsonl` averages; a diverged run is noticed as late as that."""
DECAY_SHARE = 0.3
"""Share of a run, at its end, over which the learning rates fall to 0."""


def train_generator(
    images: np.ndarray,
    labels: np.ndarray,
    *,
    window_hu: tuple[float, float] | None,
    data_sha256: str,
    generator: DcganConfig,
    training: TrainingConfig,
    folder: Path,
    checkpoints: Path,
) -> GeneratorPackage:
    """Train on `images` uint8 N×H×W with the class codes `labels` int64 N, and write a package into `folder`.

    A run that was interrupted goes on from its newest checkpoint under `checkpoints`, to the same weights, on the CPU
    to the last bit, as a run that was not; the checkpoint is removed at the end. Equal seeds give equal weights on the
    CPU, for the same number of threads.

    Raises:
        LungsynthError: the data do not fit the configuration, the device is missing, or the losses ceased to be finite.
    """
    _check(images, labels, generator)

    # Start afresh, or where the last run was stopped.
    device = _device(training.device)
    run = checkpoints / run_key(generator, training, data_sha256)
    state = TrainingState.new(generator, training, device)
    if (run / "state.pt").exists():
        state.restore(run / "state.pt")
    data = _Data(images, labels, balanced=training.balanced, device=device)

    # Train.
    with _threads(training.threads):
        _train(state, data, training, run)

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


def _train(state: TrainingState, data: "_Data", config: TrainingConfig, run: Path) -> None:
    """Run the steps that are left, and keep frames and checkpoints in the folder `run`."""
    log_every, snapshot_every = config.every(LOG_KIMG), config.every(config.snapshot_kimg)
    checkpoint_every = config.every(config.checkpoint_kimg)
    losses: list[Tensor] = []
    started = time.monotonic()
    with tqdm(total=config.steps * config.batch, initial=state.step * config.batch, unit="img", desc="training") as bar:
        while state.step < config.steps:
            losses.append(_step(state, data, config))
            state.step += 1
            bar.update(config.batch)

            last = state.step == config.steps
            if state.step % log_every == 0 or last:
                seconds, started = time.monotonic() - started, time.monotonic()
                row = _summary(torch.stack(losses), state.step, config, seconds)
                state.log.append(row)
                losses.clear()
                bar.set_postfix({key: f"{row[key]:.2f}" for key in ("loss_d", "loss_g", "real_share")})
            if state.step % snapshot_every == 0 or last:
                _save_frame(state, config, run / "frames")
            # Between two lines of the log a checkpoint would lose the losses since the last one.
            if state.step % (math.ceil(checkpoint_every / log_every) * log_every) == 0 and not last:
                state.save(run / "state.pt")


def _step(state: TrainingState, data: "_Data", config: TrainingConfig) -> Tensor:
    """One step of both networks; gives loss_d, loss_g and the share of real slices that scored above 0."""
    device = data.images.device
    slowdown = min(1.0, (1 - state.step / config.steps) / DECAY_SHARE)
    for optimizer, rate in (
        (state.generator_optimizer, config.generator_lr),
        (state.discriminator_optimizer, config.discriminator_lr),
    ):
        optimizer.param_groups[0]["lr"] = rate * slowdown

    # Draw real slices, and generate as many of the same classes.
    real, labels = data.draw(config.batch, state.rng)
    latents = torch.randn(config.batch, state.generator.config.nz, generator=state.rng).to(device)
    fake = state.generator(latents, labels)

    # Discriminator: tell them apart.
    state.discriminator.requires_grad_(True)
    penalised = config.r1_gamma > 0 and state.step % config.r1_every == 0
    real = augment(real, config, state.rng).requires_grad_(penalised)
    real_scores = state.discriminator(real, labels)
    fake_scores = state.discriminator(augment(fake.detach(), config, state.rng), labels)
    loss_d = discriminator_loss(real_scores, fake_scores)
    penalty = config.r1_gamma * config.r1_every * r1_penalty(real_scores, real) if penalised else 0.0
    state.discriminator_optimizer.zero_grad()
    (loss_d + penalty).backward()
    state.discriminator_optimizer.step()

    # Generator: the same slices against the discriminator that has just learned.
    state.discriminator.requires_grad_(False)
    loss_g = generator_loss(state.discriminator(augment(fake, config, state.rng), labels))
    state.generator_optimizer.zero_grad()
    loss_g.backward()
    state.generator_optimizer.step()

    # Average of the generator's weights.
    step_kimg = config.batch / 1000
    ema.update(state.average, state.generator, ema.decay(config.ema_kimg, (state.step + 1) * step_kimg, step_kimg))
    return torch.stack([loss_d.detach(), loss_g.detach(), (real_scores.detach() > 0).float().mean()])


class _Data:
    """Slices and labels on the device, drawn with replacement."""

    def __init__(self, images: np.ndarray, labels: np.ndarray, *, balanced: bool, device: torch.device) -> None:
        order = np.argsort(labels, kind="stable")
        self.images = torch.tensor(images[order], device=device)[:, None]
        self.labels = torch.tensor(labels[order], device=device)
        counts = np.unique(labels, return_counts=True)[1] if balanced else np.array([len(labels)])
        self.counts = torch.tensor(counts)
        self.starts = self.counts.cumsum(0) - self.counts

    def draw(self, batch: int, rng: torch.Generator) -> tuple[Tensor, Tensor]:
        """`batch` slices B×1×H×W in [-1, 1] and their class codes; where balanced, each class is equally likely."""
        stratum = torch.randint(len(self.counts), (batch,), generator=rng)
        offset = (torch.rand(batch, dtype=torch.float64, generator=rng) * self.counts[stratum]).long()
        chosen = (self.starts[stratum] + offset).to(self.images.device)
        return self.images[chosen].float() / 127.5 - 1, self.labels[chosen]


def _summary(losses: Tensor, step: int, config: TrainingConfig, seconds: float) -> dict[str, float]:
    """One line of the log: means over the steps in `losses`, steps×3."""
    loss_d, loss_g, real_share = losses.mean(dim=0).tolist()
    kimg = step * config.batch / 1000
    if not math.isfinite(loss_d + loss_g):
        raise LungsynthError(f"training diverged before {kimg:.2f} kimg: loss is not finite; lower the learning rates")
    return {
        "kimg": kimg,
        "loss_d": loss_d,
        "loss_g": loss_g,
        "real_share": real_share,
        "img_per_s": len(losses) * config.batch / seconds,
    }


def _save_frame(state: TrainingState, config: TrainingConfig, frames: Path) -> None:
    frames.mkdir(parents=True, exist_ok=True)
    Image.fromarray(snapshot(state.average, config.seed)).save(frames / f"{state.step:09d}.png")


def _check(images: np.ndarray, labels: np.ndarray, generator: DcganConfig) -> None:
    expected = (len(labels), generator.size, generator.size)
    if images.dtype != np.uint8 or images.shape != expected or not len(labels):
        found = f"{images.dtype} {'×'.join(map(str, images.shape))} with {len(labels)} labels"
        raise LungsynthError(
            f"training data: need uint8 N×{generator.size}×{generator.size}, one label each; got {found}"
        )
    absent = [name for code, name in enumerate(generator.classes) if code not in labels]
    if absent:
        raise LungsynthError(f"training data: no slice of the class {absent[0]}; add some, or train without classes")
    if generator.classes and not np.isin(labels, np.arange(len(generator.classes))).all():
        raise LungsynthError(f"training data: a label is not the code of one of {', '.join(generator.classes)}")


@contextmanager
def _threads(count: int) -> Iterator[None]:
    """Let torch use `count` CPU threads (0: as many as it does) for a while."""
    before = torch.get_num_threads()
    torch.set_num_threads(count or before)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _device(name: str) -> torch.device:
    if name == "cuda" and not torch.cuda.is_available():
        raise LungsynthError("training.device is cuda, but torch finds no GPU; set it to auto or cpu")
    return torch.device("cuda" if name != "cpu" and torch.cuda.is_available() else "cpu")
