"""Settings that change while a network trains."""

import math
from typing import Annotated

from pydantic import Field

from lungsynth.config import Config


class Ramp(Config):
    """From `start` to `end` along half a cosine, between two moments of a run; constant before and after."""

    start: float = Field(ge=0, description="value at the beginning, in the unit of the key")
    end: float = Field(ge=0, description="value at the end, in the unit of the key")
    from_kimg: float = Field(
        default=0, ge=0, description="kimg until which `start` holds [chosen here: the run's beginning]"
    )
    until_kimg: float = Field(gt=0, description="kimg from which `end` holds")


Scheduled = Annotated[float, Field(ge=0)] | Ramp
"""A number, or a `Ramp` between two."""


def at(value: Scheduled, kimg: float) -> float:
    """The value after `kimg` thousand real slices."""
    if not isinstance(value, Ramp):
        return value
    done = (kimg - value.from_kimg) / max(value.until_kimg - value.from_kimg, 1e-9)
    return value.end + (value.start - value.end) * 0.5 * (1 + math.cos(math.pi * min(1.0, max(0.0, done))))
