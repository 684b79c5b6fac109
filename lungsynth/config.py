"""The base of every configuration: frozen, and closed to unknown keys."""

from pydantic import BaseModel, ConfigDict


class Config(BaseModel):
    """Base class of the configurations, each of which stands beside the code that it configures."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)
