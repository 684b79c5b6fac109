"""What one training step is given."""

from dataclasses import dataclass

from lightning_fabric import Fabric
from torch import Tensor

from lungsynth.training.config import TrainingConfig
from lungsynth.training.draws import Draws


@dataclass(frozen=True)
class Inputs:
    """This process's part of a batch, and how to train on it."""

    real: Tensor
    """Real slices B×C×H×W in [-1, 1]."""
    labels: Tensor
    """Class codes int64 B."""
    draws: Draws
    config: TrainingConfig
    fabric: Fabric
