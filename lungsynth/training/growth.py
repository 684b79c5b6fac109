"""Progressive growing (Karras et al., arXiv 1710.10196): training starts at a few pixels, and the resolution doubles.

A level is the logarithm to base 2 of the pixels a side; at 4.25, 32 px are faded in with a weight of a quarter. It
follows from the number of real slices shown, so that checkpoints need not hold it.
"""

import math
from collections.abc import Iterable
from typing import Annotated

from pydantic import Field, field_validator

from lungsynth.config import Config
from lungsynth.errors import LungsynthError
from lungsynth.generators.layers import GROUP


class GrowthConfig(Config):
    """When the resolution doubles, and what changes with it."""

    start: int = Field(
        default=4, ge=4, description="pixels; height and width of the first slices, a power of two [PGGAN]"
    )
    stable_kimg: float = Field(
        default=600, ge=0, description="kimg at each resolution [PGGAN, the authors' code; their paper: 800]"
    )
    fade_kimg: float = Field(
        default=600,
        ge=0.001,
        description="kimg in which the next resolution is faded in [PGGAN, the authors' code; their paper: 800]",
    )
    batches: dict[int, Annotated[int, Field(ge=GROUP, multiple_of=GROUP)]] = Field(
        default={}, description="slices a step from a resolution on, by its pixels; below the first: training.batch"
    )
    rates: dict[int, Annotated[float, Field(gt=0)]] = Field(
        default={}, description="factor on both learning rates from a resolution on, by its pixels; below the first: 1"
    )

    @field_validator("start", "batches", "rates")
    @classmethod
    def _powers_of_two(cls, value: int | dict[int, float]) -> int | dict[int, float]:
        for side in value if isinstance(value, dict) else [value]:
            if side < 4 or side.bit_count() > 1:
                raise ValueError(f"a resolution is a power of two from 4 pixels on, not {side}")
        return value

    def grown_kimg(self, size: int) -> float:
        """kimg until a generator of `size` pixels is fully grown."""
        return math.log2(size / self.start) * (self.stable_kimg + self.fade_kimg)

    def level(self, size: int, shown: int) -> float:
        """The level after `shown` real slices, for a generator of `size` pixels when fully grown."""
        stable, fade = round(self.stable_kimg * 1000), round(self.fade_kimg * 1000)
        doublings, since = divmod(shown, stable + fade)
        return min(math.log2(self.start) + doublings + max(0, since - stable) / fade, math.log2(size))

    def batch(self, level: float, below: int) -> int:
        """Slices a step at this level; `below` applies under the first resolution of `batches`."""
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


def _reached(sides: Iterable[int], level: float) -> int:
    """The highest of these resolutions that a level has reached; 0 if none."""
    return max((side for side in sides if side <= 2 ** math.ceil(level)), default=0)
