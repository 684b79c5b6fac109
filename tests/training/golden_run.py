"""`python golden_run.py FOLDER`: trains a small generator of each family, and prints what came out.

A process of its own, since MKL and torch read once, at their start, which instructions they may use.
"""

import hashlib
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch
from brief_run import halves, log_of
from safetensors.torch import load_file
from tiny_families import TINY

from lungsynth.training import Slices, TrainingRun, train_generator
from lungsynth.training.config import TrainingSections

SHORT: dict[str, Any] = {
    "kimg": 0.16,
    "batch": 16,
    "micro_batch": None,
    "ema_kimg": 0.1,
    "snapshot_kimg": 0.2,
    "monitor": {"every_kimg": 0.08, "images": 20},
    "device": "cpu",
    "threads": 1,
}
RUNS: dict[str, tuple[str, dict[str, Any], dict[str, Any]]] = {
    "dcgan": ("dcgan", {}, {}),
    "dcgan, adaptive augmentation": ("dcgan", {}, {"augment": {"target": 0.6, "every": 2, "adjust_kimg": 1}}),
    "dcgan, masks": ("dcgan", {"masks": True}, {}),
    "dcgan, small passes": ("dcgan", {}, {"micro_batch": 8}),
    "dcgan, a generator a class": ("dcgan per class", {}, {}),
    "pggan, growing": ("pggan", {}, {"growth": {"start": 8, "stable_kimg": 0.03, "fade_kimg": 0.03}}),
    "r3gan": ("r3gan", {}, {"micro_batch": 8}),
    "stylegan2": ("stylegan2", {}, {}),
    "edm": ("edm", {}, {"micro_batch": 8}),
}
"""By name: the tiny family, and what is added to its generator and to the training of its recipe."""


def outcome(name: str, folder: Path) -> dict[str, dict[str, Any]]:
    """`bits`: SHA-256 of both networks' weights and of the log; `numbers`: norms of the weights, and the last line."""
    family, generator, training = RUNS[name]
    sections = TrainingSections.model_validate({
        "generator": {"size": 32, **TINY[family], **generator},
        "training": SHORT | training,
    })  # fmt: skip
    images, labels = halves()
    masks = (images > 128).astype(np.uint8) if sections.generator.masks else None
    held_out = np.arange(len(labels)) % 5 == 4
    package = train_generator(
        TrainingRun(
            *(Slices(images, labels, np.flatnonzero(rows), masks) for rows in (~held_out, held_out)),
            window_hu=(-1350, 150),
            data_sha256="0" * 64,
            generator=sections.generator,
            training=sections.training,
            folder=folder / "package",
            checkpoints=folder / "checkpoints",
        )
    )
    files = sorted(package.folder.glob("*.safetensors"))
    bits = {path.name: hashlib.sha256(path.read_bytes()).hexdigest()[:16] for path in files}
    norms = {path.name: sum(tensor.double().norm().item() for tensor in load_file(path).values()) for path in files}
    log = log_of(package)
    bits["log"] = hashlib.sha256(json.dumps(log).encode()).hexdigest()[:16]
    return {"bits": bits, "numbers": norms | log[-1]}


if __name__ == "__main__":
    torch.backends.mkldnn.set_flags(False)  # these two choose their blocks by the CPU
    torch.backends.nnpack.set_flags(False)
    torch.use_deterministic_algorithms(True)
    print(
        json.dumps({name: outcome(name, Path(sys.argv[1]) / str(place)) for place, name in enumerate(RUNS)}, indent=1)
    )
