"""What a run watches of its generator while it trains."""

from pydantic import Field

from lungsynth.config import Config


class MonitorConfig(Config):
    """How often, and on how many slices."""

    every_kimg: float = Field(default=4, gt=0, description="kimg between two looks")
