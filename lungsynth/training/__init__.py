"""Training of a generator; needs torch, and nothing of where slices come from or go to."""

from lungsynth.training.config import TrainingConfig
from lungsynth.training.data import Slices
from lungsynth.training.run import TrainingRun
from lungsynth.training.train import train_generator

__all__ = ["Slices", "TrainingConfig", "TrainingRun", "train_generator"]
