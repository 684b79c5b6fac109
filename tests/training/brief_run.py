"""A run of seconds, on slices of which one half is bright."""

import json
from pathlib import Path

import numpy as np

from lungsynth.generators.dcgan import DcganConfig
from lungsynth.generators.family import GeneratorConfig
from lungsynth.generators.package import GeneratorPackage
from lungsynth.remote import Place
from lungsynth.training import Slices, TrainingConfig, TrainingRun, train_generator

SMALL = DcganConfig(size=32, nz=8, ngf=8, ndf=8)
BRIEF = TrainingConfig(
    kimg=1.3,
    batch=16,
    ema_kimg=0.3,
    snapshot_kimg=0.3,
    checkpoint_kimg=0.5,
    monitor={"every_kimg": 0.6, "images": 20},
    device="cpu",
    threads=1,
)
DARK, BRIGHT = 60, 200


def halves() -> tuple[np.ndarray, np.ndarray]:
    """Noisy slices with one bright half: the left one in class 0, three quarters of all, the right one in class 1."""
    rng = np.random.default_rng(0)
    labels = (np.arange(200) % 4 == 0).astype(np.int64)
    bright = (np.arange(32) // 16) == labels[:, None, None]
    noise = rng.normal(0, 10, (200, 1, 1)) + rng.normal(0, 8, (200, 32, 32))
    return (np.where(bright, BRIGHT, DARK) + noise).clip(0, 255).astype(np.uint8), labels


def brief_run(
    folder: Path,
    training: TrainingConfig = BRIEF,
    generator: GeneratorConfig = SMALL,
    data: tuple[np.ndarray, np.ndarray] | None = None,
    *,
    checkpoints: Place | None = None,
) -> GeneratorPackage:
    """Train in `folder`, on `halves` where no other data are given."""
    images, labels = data or halves()
    places = np.arange(len(labels)) % 5 == 4
    return train_generator(
        TrainingRun(
            Slices(images, labels, np.flatnonzero(~places)),
            Slices(images, labels, np.flatnonzero(places)),
            window_hu=(-1350, 150),
            data_sha256="0" * 64,
            generator=generator,
            training=training,
            folder=folder / "package",
            checkpoints=checkpoints or folder / "checkpoints",
        )
    )


def log_of(package: GeneratorPackage) -> list[dict[str, float]]:
    """The log, without what it says of time and memory."""
    rows = [json.loads(line) for line in (package.folder / "training_log.jsonl").read_text().splitlines()]
    return [{key: value for key, value in row.items() if key not in ("img_per_s", "memory_gb")} for row in rows]
