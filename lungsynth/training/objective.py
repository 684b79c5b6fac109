"""What a training step minimises. The only place that distinguishes GANs from diffusion models."""

from typing import ClassVar, Protocol

from torch import Tensor

from lungsynth.generators.family import GeneratorConfig
from lungsynth.training.adversarial import Adversarial
from lungsynth.training.denoising import Denoising
from lungsynth.training.inputs import Inputs
from lungsynth.training.losses import DenoisingLoss, Loss
from lungsynth.training.state import TrainingState


class Objective(Protocol):
    """One step of training, what it reports, and which generators it trains."""

    statistics: ClassVar[tuple[str, ...]]
    """Names of what `step` returns, in the order of the log."""

    def check(self, generator: GeneratorConfig) -> None:
        """Whether this objective trains `generator`.

        Raises:
            LungsynthError: it does not.
        """

    def step(self, state: TrainingState, inputs: Inputs) -> dict[str, Tensor]:
        """Train all networks of `state`; gives `statistics`, scalars on the device, without waiting for it."""


def objective_of(loss: Loss) -> Objective:
    """The objective that minimises `loss`."""
    return Denoising(loss) if isinstance(loss, DenoisingLoss) else Adversarial(loss)
