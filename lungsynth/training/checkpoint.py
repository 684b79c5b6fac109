"""Everything that a run needs to go on as if it had never stopped."""

import hashlib
import json
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.optim import Adam, Optimizer

from lungsynth.errors import LungsynthError
from lungsynth.generators.dcgan import DcganConfig, Discriminator, Generator
from lungsynth.training.config import TrainingConfig
from lungsynth.training.ema import average_of


@dataclass
class TrainingState:
    """All that changes in training. `rng` draws everything random on the CPU, so it is the position in the data too."""

    generator: Generator
    discriminator: Discriminator
    average: Generator
    generator_optimizer: Optimizer
    discriminator_optimizer: Optimizer
    rng: torch.Generator
    step: int = 0
    log: list[dict[str, float]] = field(default_factory=list)

    @classmethod
    def new(cls, generator: DcganConfig, training: TrainingConfig, device: torch.device) -> "TrainingState":
        """The state before the first step, the same for the same seed on every device."""
        with torch.random.fork_rng(devices=[]):  # weights can only be drawn from torch's global generator
            torch.manual_seed(training.seed)
            network, critic = Generator(generator), Discriminator(generator)
        network.to(device)
        critic.to(device)
        betas = (training.beta1, training.beta2)
        return cls(
            generator=network,
            discriminator=critic,
            average=average_of(network),
            generator_optimizer=Adam(network.parameters(), training.generator_lr, betas),
            discriminator_optimizer=Adam(critic.parameters(), training.discriminator_lr, betas),
            rng=torch.Generator().manual_seed(training.seed),
        )

    def save(self, path: Path) -> None:
        """Write `path` whole or not at all."""
        path.parent.mkdir(parents=True, exist_ok=True)
        content = {name: part.state_dict() for name, part in self._parts().items()}
        partial = path.with_suffix(".partial")
        with partial.open("wb") as file:
            torch.save(content | {"rng": self.rng.get_state(), "step": self.step, "log": self.log}, file)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)

    def restore(self, path: Path) -> None:
        """Take over, in place, what `save` wrote.

        Raises:
            LungsynthError: the file is damaged or of another run.
        """
        try:
            content = torch.load(path, map_location="cpu", weights_only=True)
            for name, part in self._parts().items():
                part.load_state_dict(content[name])
            self.rng.set_state(content["rng"])
            self.step, self.log = content["step"], content["log"]
        except Exception as error:  # torch raises a dozen kinds for damaged files
            raise LungsynthError(f"{path}: not a usable checkpoint; delete it to train from the start") from error

    def _parts(self) -> dict[str, nn.Module | Optimizer]:
        return {name: part for name, part in vars(self).items() if isinstance(part, nn.Module | Optimizer)}


def run_key(generator: DcganConfig, training: TrainingConfig, data_sha256: str) -> str:
    """Name of a run's checkpoint folder: two runs share it if, and only if, they would train the same generator."""
    parts: list[Any] = [generator.model_dump(mode="json"), training.model_dump(mode="json"), data_sha256]
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:16]
