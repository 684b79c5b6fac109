"""The entrance: slices in, a generator package out."""

from collections.abc import Callable
from pathlib import Path

from lungsynth.generators.family import GeneratorConfig
from lungsynth.generators.package import GeneratorPackage
from lungsynth.training.config import TrainingConfig
from lungsynth.training.data import Slices
from lungsynth.training.each_class import train_each_class
from lungsynth.training.loop import train_network
from lungsynth.training.monitor import Row
from lungsynth.training.run import TrainingRun


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
    """Train on the slices `train`, choose among the weights on the way by `val`, and write a package into `folder`.

    `on_log` is called in the first process with each line of the log, as soon as the line is complete.

    An interrupted run resumes from its newest checkpoint under `checkpoints` and ends with the weights of an
    uninterrupted one, on the CPU to the last bit. The checkpoint is removed at the end. Of two equal runs at once the
    second waits for the first, and resumes from what that leaves. Equal seeds give equal weights on the CPU, for the
    same number of threads: fix it by `training.threads`, see `Pace`.

    Raises:
        LungsynthError: the data do not fit the configuration, or the device is missing.
        SpoiledError: the losses ceased to be finite, or the generator collapsed; the best weights so far are kept.
    """
    run = TrainingRun(train, val, window_hu, data_sha256, generator, training, folder, checkpoints, on_log)
    return train_each_class(run) if generator.per_class else train_network(run)
