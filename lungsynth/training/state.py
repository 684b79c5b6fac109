"""The state of a run, its checkpoint, and the lock on its folder."""

import hashlib
import io
import json
import math
import os
import shutil
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from lightning_fabric import Fabric
from torch import Tensor, nn
from torch.optim import Adam, Optimizer

from lungsynth.errors import LungsynthError, reason
from lungsynth.generators.family import DiscriminatorNetwork, GeneratorConfig, GeneratorNetwork
from lungsynth.generators.per_class import new_discriminator, new_network
from lungsynth.locks import alone, wanted
from lungsynth.training import controller
from lungsynth.training.config import TrainingConfig
from lungsynth.training.ema import average_of
from lungsynth.training.mirror import LOCK, Mirror
from lungsynth.training.schedule import at

PATIENCE_S = 300.0
"""Seconds that the first of several processes waits for another run; the others' wait for the first has a timeout."""


@dataclass
class TrainingState:
    """Everything that training changes. Random numbers and batches follow from the seed and `step`."""

    generator: GeneratorNetwork
    discriminator: DiscriminatorNetwork | None
    average: GeneratorNetwork
    generator_optimizer: Optimizer
    discriminator_optimizer: Optimizer | None
    scalars: dict[str, Tensor]
    """Numbers that a step hands to the next one, on the device: see `controller.new_scalars`, and `path_mean`."""
    step: int = 0
    shown: int = 0
    """Real slices shown."""
    before: int = 0
    """Of these, before the last step."""
    pending: list[Tensor] = field(default_factory=list)
    """The statistics of each step since the last line of `log`, in the order of `Objective.statistics`."""
    log: list[dict[str, float]] = field(default_factory=list)
    best: dict[str, Tensor] = field(default_factory=dict)
    """The average as it was at the best look (see `monitor.best`), on the CPU; empty before the first."""
    best_discriminator: dict[str, Tensor] = field(default_factory=dict)
    """The discriminator of that moment."""
    threads: int = 0
    """CPU threads of the next step: their number affects the last bits of its results; 0 before the first."""

    @classmethod
    def new(cls, generator: GeneratorConfig, training: TrainingConfig, device: torch.device) -> "TrainingState":
        """The state before the first step, the same for the same seed on every device."""
        with torch.random.fork_rng(devices=[]):  # weights can only be drawn from torch's global generator
            torch.manual_seed(training.seed)
            network, discriminator = new_network(generator), new_discriminator(generator)
        trained: list[nn.Module] = [network, *filter(None, [discriminator])]
        for module in trained:  # kernels for convolutions are fastest where channels are neighbours in memory
            module.to(device).to(memory_format=torch.channels_last)
        average = average_of(network)
        if training.compile:
            for module in trained:
                module.compile(dynamic=False)  # two sizes of batches come, always the same
        return cls(
            generator=network,
            discriminator=discriminator,
            average=average,
            generator_optimizer=_adam(network, training),
            discriminator_optimizer=_adam(discriminator, training) if discriminator else None,
            scalars=controller.new_scalars(device) | {"path_mean": torch.zeros((), device=device)},
        )

    @property
    def networks(self) -> list[GeneratorNetwork | DiscriminatorNetwork]:
        """The networks that steps train."""
        return [self.generator, *filter(None, [self.discriminator])]

    @property
    def optimizers(self) -> list[Optimizer]:
        """One for each of `networks`."""
        return [self.generator_optimizer, *filter(None, [self.discriminator_optimizer])]

    def keep_best(self) -> None:
        """Copy the weights of this moment: they are the best so far."""
        for network, kept in self._kept():
            kept.update({name: tensor.cpu().clone() for name, tensor in network.state_dict().items()})

    def return_to_best(self) -> None:
        """Load what `keep_best` kept."""
        for network, kept in self._kept():
            network.load_state_dict(kept)

    def _kept(self) -> list[tuple[nn.Module, dict[str, Tensor]]]:
        """The networks that a package holds, each with its best weights."""
        kept: list[tuple[nn.Module, dict[str, Tensor]]] = [(self.average, self.best)]
        return kept + [(network, self.best_discriminator) for network in self.networks[1:]]

    @property
    def kimg(self) -> float:
        """Thousands of real slices shown."""
        return self.shown / 1000

    def follow_schedules(self, training: TrainingConfig) -> None:
        """Set the optimizers' current rates and betas, and p of augmentation unless that adapts."""
        if training.augment.target is None:
            self.scalars["p"].fill_(at(training.augment.p, self.kimg))
        betas = (training.beta1, at(training.beta2, self.kimg))
        for optimizer, rate in zip(self.optimizers, (training.generator_lr, training.discriminator_lr), strict=False):
            optimizer.param_groups[0].update(lr=at(rate, self.kimg), betas=betas)

    def save(self, path: Path) -> None:
        """Write `path` atomically: an earlier checkpoint stays until the new one is complete.

        Raises:
            LungsynthError: the disk is full, or the folder cannot be written.
        """
        content: dict[str, Any] = {name: part.state_dict() for name, part in self._parts().items()}
        content |= {name: getattr(self, name) for name in _PLAIN} | {"memory": self.scalars}
        buffer = io.BytesIO()  # torch's own error for a file would not say what is wrong with the disk
        torch.save(content, buffer)
        partial = path.with_suffix(".partial")  # always the same name: killed runs leave one such file, not many
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with partial.open("wb") as file:
                file.write(buffer.getbuffer())
                file.flush()
                os.fsync(file.fileno())
            partial.replace(path)
        except OSError as error:
            with suppress(OSError):
                partial.unlink(missing_ok=True)
            raise LungsynthError(
                f"{path}: the checkpoint cannot be written ({reason(error)}); mend that, and the same command goes on "
                "from the one before"
            ) from error

    def restore(self, path: Path) -> None:
        """Load, in place, what `save` wrote.

        Raises:
            LungsynthError: the file is damaged or of another run.
        """
        try:
            content = torch.load(path, map_location="cpu", weights_only=True)
            for name, part in self._parts().items():
                part.load_state_dict(content[name])
            for name, tensor in self.scalars.items():
                tensor.copy_(content["memory"][name])
            for name in _PLAIN:
                setattr(self, name, content[name])
        except Exception as error:  # torch raises a dozen kinds for damaged files
            raise LungsynthError(f"{path}: not a usable checkpoint; delete it to train from the start") from error
        device = next(self.generator.parameters()).device
        self.pending = [row.to(device) for row in self.pending]

    def _parts(self) -> dict[str, nn.Module | Optimizer]:
        return {name: part for name, part in vars(self).items() if isinstance(part, nn.Module | Optimizer)}


_PLAIN = ("step", "shown", "before", "pending", "log", "best", "best_discriminator", "threads")


def run_key(generator: GeneratorConfig, training: TrainingConfig, data_sha256: str) -> str:
    """Name of a run's checkpoint folder: equal for two runs if, and only if, they train the same generator."""
    # `channels` was a field once: interrupted runs of older versions are still found.
    dumped = {"channels": 1, **generator.model_dump(mode="json")}
    parts: list[Any] = [dumped, training.model_dump(mode="json"), data_sha256]
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:16]


@contextmanager
def owned(run: Path, folder: Path, fabric: Fabric) -> Iterator[None]:
    """Lock the checkpoint folder `run` and the package folder `folder`.

    A second run that needs one of them waits. Of several processes the first one locks for all.

    Raises:
        LungsynthError: the folder cannot be written, or several processes would have to wait for long.
    """
    with ExitStack() as stack:
        if fabric.is_global_zero:
            for place in (run, folder):
                stack.callback(_remove_empty, place)
            patience_s = math.inf if fabric.world_size == 1 else PATIENCE_S
            stack.enter_context(alone(run / LOCK, run, "train with another training.seed", patience_s=patience_s))
            stack.enter_context(
                alone(folder / f".{LOCK}", folder, "name another folder for the package", patience_s=patience_s)
            )
        fabric.barrier()
        yield


def is_wanted(run: Path) -> bool:
    """Whether an equal training waits for the folder: it will resume from the checkpoint there."""
    return wanted(run / LOCK)


def clear(run: Path, mirror: Mirror) -> None:
    """Remove all files of a training from its checkpoint folder and its copy, unless an equal one waits for it."""
    if not is_wanted(run):
        mirror.remove()
        for path in run.iterdir():
            if path.is_dir():
                shutil.rmtree(path)
            elif path.name != LOCK:
                path.unlink(missing_ok=True)


def _remove_empty(run: Path) -> None:
    with suppress(OSError):
        run.rmdir()


def _adam(network: nn.Module, training: TrainingConfig) -> Adam:
    return Adam(network.parameters(), betas=(training.beta1, at(training.beta2, 0)), fused=True)
