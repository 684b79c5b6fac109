"""A linear map from latents to pixels, against a linear map from pixels to scores."""

from typing import Literal

import torch
from pydantic import Field
from torch import nn

from lungsynth.generators.family import DiscriminatorNetwork, Family, GeneratorConfig, GeneratorNetwork
from lungsynth.generators.layers import one_hot


class ToyConfig(GeneratorConfig):
    """Architecture."""

    family: Literal["toy"] = "toy"
    size: Literal[32, 64] = 32
    nz: int = Field(default=4, ge=1)
    gain: float = Field(default=1.0, gt=0)


class Generator(GeneratorNetwork):
    """One layer, and one picture for each class."""

    def __init__(self, config):
        super().__init__()
        self.config = config
        self.paint = nn.Linear(config.nz + len(config.classes), config.size**2)

    def forward(self, z, labels=None, rng=None):
        pixels = self.paint(torch.cat([z, one_hot(labels, len(self.config.classes), z)], dim=1))
        return (self.config.gain * pixels).view(-1, 1, self.config.size, self.config.size).tanh()


class Discriminator(DiscriminatorNetwork):
    """One layer for each class."""

    def __init__(self, config):
        super().__init__()
        self.config = config
        self.look = nn.Linear(config.size**2, len(config.classes))

    def forward(self, images, labels):
        return (self.look(images.flatten(1)) * one_hot(labels, len(self.config.classes), images)).sum(dim=1)


FAMILY = Family(
    config=ToyConfig,
    generator=Generator,
    discriminator=Discriminator,
    recipe={
        "kimg": 0.8,
        "batch": 16,
        "generator_lr": 0.01,
        "ema_kimg": 0.1,
        "loss": {"kind": "logistic", "r1_gamma": 0.2},
    },
)
