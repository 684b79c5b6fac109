"""What a run writes: frames on the way, and the package at its end."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from PIL import Image

from lungsynth import remote
from lungsynth.errors import LungsynthError, reason
from lungsynth.generators.package import GeneratorPackage
from lungsynth.training.curves import save_curves
from lungsynth.training.monitor import best
from lungsynth.training.run import TrainingRun
from lungsynth.training.snapshots import beside, save_film, save_pictures, snapshot
from lungsynth.training.state import TrainingState


def save_frame(state: TrainingState, run: TrainingRun, real: np.ndarray) -> None:
    """Write a frame of the film, and the picture that shows it beside `real` slices (of `real_grid`)."""
    picture, folder = snapshot(state.average, run.training.seed), run.checkpoint_folder
    with _disk_errors_named(folder):
        (folder / "frames").mkdir(parents=True, exist_ok=True)
        Image.fromarray(picture).save(folder / "frames" / f"{state.shown:012d}.png")
        Image.fromarray(beside(real, picture)).save(folder / "real_beside_synthetic.png")


def write_package(state: TrainingState, run: TrainingRun, real: np.ndarray) -> GeneratorPackage:
    """Write the best weights, the log and the pictures into the run's folder; `real` is of `real_grid`."""
    with _disk_errors_named(run.folder):
        package = _write_best(state, run, run.folder)
        (run.folder / "training_log.jsonl").write_text("".join(json.dumps(row) + "\n" for row in state.log))
        save_film(sorted((run.checkpoint_folder / "frames").glob("*.png")), run.folder / "progress.gif")
        save_pictures(package, real, run.training.seed)
        save_curves(state.log, run.folder / "training.png")
    return package


def keep_best(state: TrainingState, run: TrainingRun, writes: bool) -> str:
    """Write the best weights of a spoiled run beside its checkpoint, in the process that `writes`, and say so."""
    row, folder = best(state.log), run.checkpoint_folder / "best"
    where = remote.below(run.mirror.url, "best") if run.mirror.url else folder
    if row is None:
        return "no weights were compared with val before, so none are kept"
    if writes:
        with _disk_errors_named(folder):
            _write_best(state, run, folder)
    return f"the best weights, of {row['kimg']:.2f} kimg with KID {row['kid_val']:.3f}, are kept in {where}"


def _write_best(state: TrainingState, run: TrainingRun, folder: Path) -> GeneratorPackage:
    """Write the average with the lowest KID to `val`; where none was compared with `val`, the last one."""
    row = best(state.log)
    if row:
        state.return_to_best()
    moment = row or {"kimg": state.kimg}
    card = run.card.model_copy(update={key: moment.get(key) for key in ("kimg", "kid_val")})
    return GeneratorPackage.write(folder, state.average, card, discriminator=state.discriminator)


@contextmanager
def _disk_errors_named(folder: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise LungsynthError(
            f"{folder}: files cannot be written ({reason(error)}); mend that, and the same command goes on from its "
            "last checkpoint"
        ) from error
