"""`python -m lungsynth.training`: training alone, on a machine that has torch and no ZenML, MLflow or pydicom.

Several processes are started by `torchrun --nproc-per-node N -m lungsynth.training …`.
"""

import argparse
import os
import sys
from pathlib import Path

import torch.distributed as dist

from lungsynth.errors import LungsynthError, reason
from lungsynth.generators.package import GeneratorPackage
from lungsynth.remote import names, place
from lungsynth.run_file import load
from lungsynth.training import TrainingRun, train_generator
from lungsynth.training.read import check_classes, check_codes, read
from lungsynth.training.sections import training_sections
from lungsynth.training.stopping import StoppedError


def main() -> int:
    """Train. The exit code is 0, 1 after a `LungsynthError`, or 128 + n after signal n."""
    parser = argparse.ArgumentParser(prog="python -m lungsynth.training", description="Train a generator of slices.")
    parser.add_argument(
        "-c", "--config", type=Path, required=True, help="run file; its sections generator and training count"
    )
    parser.add_argument(
        "--data", type=Path, required=True, help="folder of a slice dataset; or .npz of images, labels[, splits, masks]"
    )
    parser.add_argument("--out", type=Path, required=True, help="folder for the generator package")
    parser.add_argument(
        "--checkpoints",
        type=place,
        default=Path("data/checkpoints"),
        help="folder or URL for what an interrupted run has left",
    )
    options = parser.parse_args()
    try:
        package = _train(options)
    except LungsynthError as error:
        where = f" in process {os.environ['RANK']}" if "RANK" in os.environ else ""
        print(f"error{where}: {error}", file=sys.stderr, flush=True)
        return error.exit_code if isinstance(error, StoppedError) else 1
    if dist.is_available() and dist.is_initialized():
        dist.destroy_process_group()
    if os.environ.get("RANK", "0") == "0":
        print(package.folder)
    return 0


def _train(options: argparse.Namespace) -> GeneratorPackage:
    sections = training_sections(options.config, load(options.config))
    data = read(options.data)
    if data.classes:
        check_classes(sections.generator, data.classes)
    check_codes(sections.generator, data.labels)
    _make(options.out)
    if isinstance(options.checkpoints, Path):
        _make(options.checkpoints)
    else:
        names(options.checkpoints)
    return train_generator(
        TrainingRun(
            data.of("train", sections.generator.masks),
            data.of("val", sections.generator.masks),
            window_hu=data.window_hu,
            data_sha256=data.sha256,
            generator=sections.generator,
            training=sections.training,
            folder=options.out,
            checkpoints=options.checkpoints,
        )
    )


def _make(folder: Path) -> None:
    """Create `folder` before training: an error afterwards would cost hours."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise LungsynthError(f"{folder}: cannot be made ({reason(error)}); name another folder") from error


if __name__ == "__main__":
    sys.exit(main())
