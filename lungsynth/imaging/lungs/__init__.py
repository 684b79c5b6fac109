"""Which pixels of a CT series are lung: one interface, several backends, and a check that they found lungs at all."""

from lungsynth.imaging.lungs.config import LungConfig, QualityConfig
from lungsynth.imaging.lungs.find import find_lungs
from lungsynth.imaging.lungs.mask import LungMask

__all__ = ["LungConfig", "LungMask", "QualityConfig", "find_lungs"]
