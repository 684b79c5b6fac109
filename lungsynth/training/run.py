"""One training, as a record: on which slices, of which generator, how, and where its files go."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from lungsynth import remote
from lungsynth.generators.family import GeneratorConfig
from lungsynth.generators.package import GeneratorCard
from lungsynth.remote import Place, on_disk
from lungsynth.training.config import TrainingConfig
from lungsynth.training.data import Slices, check_every_class, check_slices
from lungsynth.training.mirror import Mirror
from lungsynth.training.monitor import Row
from lungsynth.training.objective import objective_of
from lungsynth.training.state import run_key


@dataclass(frozen=True)
class TrainingRun:
    """What `train_generator` is given."""

    train: Slices
    val: Slices | None
    window_hu: tuple[float, float] | None
    data_sha256: str
    generator: GeneratorConfig
    training: TrainingConfig
    folder: Path
    """Where the package is written."""
    checkpoints: Place
    """Where all runs have their checkpoint folders."""
    on_log: Callable[[Row], None] | None = None

    @property
    def checkpoint_folder(self) -> Path:
        """Where this run keeps its checkpoint and frames; equal runs share it."""
        return on_disk(self.checkpoints) / self._key

    @cached_property
    def mirror(self) -> Mirror:
        """The copy of the checkpoint folder, where `checkpoints` is a URL."""
        is_url = isinstance(self.checkpoints, str)
        return Mirror(self.checkpoint_folder, remote.below(str(self.checkpoints), self._key) if is_url else None)

    @property
    def _key(self) -> str:
        return run_key(self.generator, self.training, self.data_sha256)

    @property
    def card(self) -> GeneratorCard:
        """The package's card, without the moment of the weights."""
        return GeneratorCard(
            generator=self.generator,
            window_hu=self.window_hu,
            data_sha256=self.data_sha256,
            training=self.training.model_dump(mode="json"),
        )

    def check(self) -> None:
        """Whether data, generator and training fit together.

        Raises:
            LungsynthError: they do not.
        """
        check_slices(self.train, self.generator)
        check_every_class(self.train, self.generator)
        if self.val:
            check_slices(self.val, self.generator)
        objective_of(self.training.loss).check(self.generator)
        if self.training.growth:
            self.training.growth.check(self.generator.size, self.training.kimg)
