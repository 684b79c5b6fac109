"""Progressive growing: sets networks, learning rates and real slices to the current resolution."""

import math

from torch import Tensor
from torch.nn import functional as F

from lungsynth.training.config import TrainingConfig
from lungsynth.training.growth import GrowthConfig
from lungsynth.training.schedule import at
from lungsynth.training.state import TrainingState


def grow(state: TrainingState, config: TrainingConfig, growth: GrowthConfig) -> TrainingConfig:
    """Set all networks to the current level; gives `config` with the batch and learning rates of that level.

    The optimizers' moments are reset when a new block starts to be faded in, and when it is complete, as in the
    authors' code: the scale of the gradients changes there.
    """
    level = growth.level(state.generator.config.size, state.shown)
    for network in (*state.networks, state.average):
        network.grow(level)
    phase = [math.floor(level), math.ceil(level)]
    for optimizer in state.optimizers:
        if optimizer.param_groups[0].get("phase") != phase:  # kept in checkpoints
            optimizer.param_groups[0]["phase"] = phase
            optimizer.state.clear()
    rate = growth.rate(level)
    return config.model_copy(
        update={
            "batch": growth.batch(level, config.batch),
            "generator_lr": at(config.generator_lr, state.kimg) * rate,
            "discriminator_lr": at(config.discriminator_lr, state.kimg) * rate,
        }
    )


def shrink(real: Tensor, level: float) -> Tensor:
    """Real slices B×C×H×H at the resolution of this level: B×C×S×S with S = 2^⌈level⌉.

    Synthetic slices are faded in, and so are real ones: they are blended with themselves at S/2 pixels (figure 2).
    """
    fine = F.avg_pool2d(real, real.shape[-1] >> math.ceil(level))
    fade = level - math.floor(level)
    if not fade:
        return fine
    return F.interpolate(F.avg_pool2d(fine, 2), scale_factor=2.0).lerp(fine, fade)
