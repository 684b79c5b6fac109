"""What a training step minimises. The only place that distinguishes GANs from diffusion models."""

from typing import ClassVar, Protocol

from lightning_fabric import Fabric
from torch import Tensor

from lungsynth.generators.family import GeneratorConfig
from lungsynth.training.adversarial import Adversarial
from lungsynth.training.config import TrainingConfig
from lungsynth.training.denoising import Denoising
from lungsynth.training.draws import Draws
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

    def step(
        self,
        state: TrainingState,
        real: Tensor,
        labels: Tensor,
        *,
        draws: Draws,
        config: TrainingConfig,
        fabric: Fabric,
    ) -> dict[str, Tensor]:
        """Train all networks of `state` on `real` B×C×H×W in [-1, 1] of the classes `labels` int64 B.

        Returns `statistics`: scalars on the device. No step waits for the device to compute them.
        """


def objective_of(loss: Loss) -> Objective:
    """The objective that minimises `loss`."""
    return Denoising(loss) if isinstance(loss, DenoisingLoss) else Adversarial(loss)
