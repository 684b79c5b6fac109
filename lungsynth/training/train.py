"""The entrance: slices in, a generator package out."""

from lungsynth.generators.package import GeneratorPackage
from lungsynth.training.each_class import train_each_class
from lungsynth.training.loop import train_network
from lungsynth.training.run import TrainingRun


def train_generator(run: TrainingRun) -> GeneratorPackage:
    """Train on `run.train`, choose among the weights on the way by `run.val`, and write a package into `run.folder`.

    `run.on_log` is called in the first process with each line of the log, as soon as the line is complete.

    An interrupted run resumes from its newest checkpoint under `run.checkpoints` and ends with the weights of an
    uninterrupted one, on the CPU to the last bit. The checkpoint is removed at the end. Of two equal runs at once the
    second waits for the first, and resumes from what that leaves. Equal seeds give equal weights on the CPU, for the
    same number of threads: fix it by `training.threads`, see `Pace`.

    Raises:
        LungsynthError: the data do not fit the configuration, or the device is missing.
        SpoiledError: the losses ceased to be finite, or the generator collapsed; the best weights so far are kept.
    """
    return train_each_class(run) if run.generator.per_class else train_network(run)
