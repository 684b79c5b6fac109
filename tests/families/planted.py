"""A generator that draws from a bank of slices, so that its worth is known before anything judges it."""

import math
from pathlib import Path
from typing import Literal

import torch
from pydantic import Field
from safetensors.torch import load_file
from torch import nn

from lungsynth.generators.family import DiscriminatorNetwork, Family, GeneratorConfig, GeneratorNetwork


class PlantedConfig(GeneratorConfig):
    """Which bank."""

    family: Literal["planted"] = "planted"
    nz: int = Field(default=2, ge=1)
    bank: Path = Field(description="safetensors file: `images` uint8 N×H×W and `labels` int64 N, of every class")


class Generator(GeneratorNetwork):
    """Each latent stands for one slice of its class, all of them equally often. Its one weight adds a grey value."""

    def __init__(self, config):
        super().__init__()
        self.config = config
        bank = load_file(config.bank)
        counts = bank["labels"].bincount(minlength=len(config.classes))
        self.register_buffer("slices", bank["images"][bank["labels"].argsort(stable=True)])
        self.register_buffer("counts", counts)
        self.register_buffer("starts", counts.cumsum(0) - counts)
        self.grey = nn.Parameter(torch.zeros(()))

    def forward(self, z, labels=None, rng=None):
        share = (1 + torch.erf(z[:, 0] / math.sqrt(2))) / 2
        place = torch.minimum((share * self.counts[labels]).long(), self.counts[labels] - 1)
        return self.slices[self.starts[labels] + place][:, None] / 127.5 - 1 + self.grey


class Discriminator(DiscriminatorNetwork):
    """Looks at the mean grey value of a slice."""

    def __init__(self, config):
        super().__init__()
        self.config = config
        self.look = nn.Linear(1, 1)

    def forward(self, images, labels):
        return self.look(images.mean(dim=(1, 2, 3))[:, None])[:, 0]


FAMILY = Family(
    config=PlantedConfig,
    generator=Generator,
    discriminator=Discriminator,
    recipe={"kimg": 0.016, "batch": 16, "generator_lr": 0, "discriminator_lr": 0},
)
