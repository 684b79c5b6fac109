"""The base of every configuration: frozen, and closed to unknown keys."""

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

Seed = Annotated[int, Field(ge=0, le=2**32 - 1)]
"""Of a generator that keeps 32 bits, as torch's on a CPU: a longer seed would give what its lower bits give."""


class Config(BaseModel):
    """Base class of the configurations, each of which stands beside the code that it configures."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)
