"""Progressive growing (Karras et al., arXiv 1710.10196): training starts at a few pixels, and the resolution doubles.

A level is the logarithm to base 2 of the pixels a side; 4.25 is 32 px, of which a quarter has been faded in. It follows
from how many real slices have been shown, so that no checkpoint has to keep it.
"""

import math
from collections.abc import Iterable
from typing import TYPE_CHECKING, Annotated

from pydantic import Field, field_validator
from torch import Tensor
from torch.nn import functional as F

from lungsynth.config import Config
from lungsynth.errors import LungsynthError
from lungsynth.generators.layers import GROUP
from lungsynth.training.schedule import at

if TYPE_CHECKING:  # whose modules need this one
    from lungsynth.training.config import TrainingConfig
    from lungsynth.training.state import TrainingState


class GrowthConfig(Config):
    """When the resolution doubles, and what changes with it."""

    start: int = Field(default=4, ge=4, description="height and width of the first slices, pixels; a power of two")
    stable_kimg: float = Field(
        default=600, ge=0, description="kimg at each resolution; the authors' code: 600, their paper: 800"
    )
    fade_kimg: float = Field(default=600, ge=0.001, description="kimg in which the next one is faded in; the same")
    batches: dict[int, Annotated[int, Field(ge=GROUP, multiple_of=GROUP)]] = Field(
        default={}, description="slices a step from a resolution on, pixels; below the first: training.batch"
    )
    rates: dict[int, Annotated[float, Field(gt=0)]] = Field(
        default={}, description="factor on both learning rates from a resolution on, pixels; below the first: 1"
    )

    @field_validator("start", "batches", "rates")
    @classmethod
    def _powers_of_two(cls, value: int | dict[int, float]) -> int | dict[int, float]:
        for side in value if isinstance(value, dict) else [value]:
            if side < 4 or side.bit_count() > 1:
                raise ValueError(f"a resolution is a power of two from 4 pixels on, not {side}")
        return value

    def grown_kimg(self, size: int) -> float:
        """kimg after which a generator of `size` pixels is fully grown."""
        return math.log2(size / self.start) * (self.stable_kimg + self.fade_kimg)

    def level(self, size: int, shown: int) -> float:
        """The level of a generator of `size` pixels, at the end, after `shown` real slices."""
        stable, fade = round(self.stable_kimg * 1000), round(self.fade_kimg * 1000)
        doublings, since = divmod(shown, stable + fade)
        return min(math.log2(self.start) + doublings + max(0, since - stable) / fade, math.log2(size))

    def batch(self, level: float, below: int) -> int:
        """Slices a step at this level; `below` the first resolution of `batches`, that number."""
        return self.batches.get(_reached(self.batches, level), below)

    def rate(self, level: float) -> float:
        """Factor on both learning rates at this level."""
        return self.rates.get(_reached(self.rates, level), 1.0)

    def check(self, size: int, kimg: float) -> None:
        """Whether a generator of `size` pixels can be fully grown within `kimg`.

        Raises:
            LungsynthError: it cannot.
        """
        if self.start >= size:
            raise LungsynthError(
                f"training.growth.start is {self.start} px, the generator's size {size}: give less, or growth: null"
            )
        needed = self.grown_kimg(size)
        if kimg <= needed:
            raise LungsynthError(
                f"training.kimg is {kimg:g}, but growing from {self.start} to {size} px alone takes {needed:g}: "
                "give more, or lower training.growth.stable_kimg and fade_kimg"
            )


def grow(state: "TrainingState", config: "TrainingConfig", growth: GrowthConfig) -> "TrainingConfig":
    """Bring all networks to the level of this moment; gives `config` with the batch and the rates of it.

    Both optimizers forget their moments when a new block begins to be faded in, and when it is complete, as in the
    authors' code: gradients are of another size then.
    """
    level = growth.level(state.generator.config.size, state.shown)
    state.generator.grow(level)
    state.average.grow(level)
    if state.discriminator is not None:
        state.discriminator.grow(level)
    phase = [math.floor(level), math.ceil(level)]
    for optimizer in filter(None, (state.generator_optimizer, state.discriminator_optimizer)):
        if optimizer.param_groups[0].get("phase") != phase:  # which its checkpoint keeps
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
    """Real slices B×C×H×H as they are shown at this level: B×C×S×S with S = 2^⌈level⌉.

    What is faded in for synthetic slices, is for real ones too: they are blended with themselves at S/2 (figure 2).
    """
    fine = F.avg_pool2d(real, real.shape[-1] >> math.ceil(level))
    share = level - math.floor(level)
    if not share:
        return fine
    return F.interpolate(F.avg_pool2d(fine, 2), scale_factor=2.0).lerp(fine, share)


def _reached(sides: Iterable[int], level: float) -> int:
    """The highest of these resolutions that a level has reached; 0 if none."""
    return max((side for side in sides if side <= 2 ** math.ceil(level)), default=0)
