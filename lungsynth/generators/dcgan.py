"""DCGAN (Radford et al., arXiv 1511.06434), in the form that `oohtmeel/ct-gan-gen` published for lung CT."""

import math
from pathlib import Path
from typing import Literal

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from lungsynth.generators.family import DiscriminatorNetwork, Family, GeneratorConfig, GeneratorNetwork
from lungsynth.generators.layers import minibatch_spread, one_hot
from lungsynth.generators.weights import load_weights

INIT_STD = 0.02  # DCGAN, section 4


class DcganConfig(GeneratorConfig):
    """Architecture. `size`, `nz` and `ngf` at 128 with no classes are those of the published lung CT generator."""

    family: Literal["dcgan"] = "dcgan"
    size: Literal[32, 64, 128] = Field(default=128, description="pixels; height and width of a slice [ct-gan-gen]")
    nz: int = Field(default=128, ge=1, description="numbers in the latent vector [ct-gan-gen]")
    ngf: int = Field(default=128, ge=1, description="channels of the generator's last hidden block [ct-gan-gen]")
    ndf: int = Field(default=64, ge=1, description="channels of the discriminator's first block [DCGAN]")


class Generator(GeneratorNetwork):
    """Maps latent vectors and class codes to slices.

    The class is a one-hot code appended to the latent vector: it widens `main.0` and changes no other tensor.
    At 64 px there is no 16·ngf block, at 32 px no 8·ngf block either; the first two blocks always have the leaky ReLU.
    """

    def __init__(self, config: DcganConfig) -> None:
        super().__init__()
        self.config = config
        blocks = int(math.log2(config.size)) - 2
        layers: list[nn.Module] = []
        channels = config.nz + len(config.classes)
        for block in range(blocks):
            width = config.ngf << (blocks - 1 - block)
            stride, padding = (2, 1) if block else (1, 0)
            layers += [
                nn.ConvTranspose2d(channels, width, 4, stride, padding, bias=False),
                nn.BatchNorm2d(width),
                nn.LeakyReLU(0.2) if block < 2 else nn.ReLU(),
            ]
            channels = width
        self.main = nn.Sequential(*layers, nn.ConvTranspose2d(channels, config.planes, 4, 2, 1, bias=False), nn.Tanh())
        for layer in self.main:
            if isinstance(layer, nn.ConvTranspose2d):
                nn.init.normal_(layer.weight, std=INIT_STD)

    def forward(self, z: Tensor, labels: Tensor | None = None, rng: torch.Generator | None = None) -> Tensor:
        """Images B×C×H×W in [-1, 1] of `z` B×nz and `labels` int64 B, which only classes need; nothing is random."""
        if labels is not None and self.config.classes:
            z = torch.cat([z, one_hot(labels, len(self.config.classes), z)], dim=1)
        output: Tensor = self.main(z[:, :, None, None])
        return output


class Discriminator(DiscriminatorNetwork):
    """Scores slices: the higher, the more real.

    DCGAN's convolutions, without batch norm, which the gradient penalty rules out. The class enters by projection
    (Miyato and Koyama, arXiv 1802.05637), the spread within groups of four slices as one more channel (Karras et al.,
    arXiv 1710.10196).
    """

    def __init__(self, config: DcganConfig) -> None:
        super().__init__()
        self.config = config
        layers: list[nn.Module] = []
        channels: int = config.planes
        for block in range(int(math.log2(config.size)) - 2):
            width = config.ndf * min(2**block, 8)
            layers += [nn.Conv2d(channels, width, 4, 2, 1), nn.LeakyReLU(0.2)]
            channels = width
        self.main = nn.Sequential(*layers)
        self.mix = nn.Conv2d(channels + 1, channels, 3, 1, 1)
        self.hidden = nn.Linear(channels * 16, channels)
        self.score = nn.Linear(channels, 1)
        self.project = nn.Linear(len(config.classes), channels, bias=False) if config.classes else None

    def forward(self, images: Tensor, labels: Tensor) -> Tensor:
        """Scores B of `images` B×C×H×W in [-1, 1], said to be of the classes `labels` int64 B."""
        x = minibatch_spread(self.main(images))
        x = F.leaky_relu(self.mix(x), 0.2)
        x = F.leaky_relu(self.hidden(x.flatten(1)), 0.2)
        scores: Tensor = self.score(x)[:, 0]
        if self.project is not None:
            scores = scores + (self.project(one_hot(labels, len(self.config.classes), x)) * x).sum(dim=1)
        return scores


def load_ct_gan_gen(path: Path) -> Generator:
    """The published 128 px generator, in evaluation mode, from its file `lung_ct_generator_gan.pth`.

    Raises:
        LungsynthError: the file cannot be read, or its tensors are not those of the architecture.
    """
    generator = Generator(DcganConfig(classes=()))
    load_weights(generator, path)
    return generator.eval()


# Adam as in DCGAN, section 4. A gradient penalty replaces the discriminator's batch norm.
FAMILY = Family(
    config=DcganConfig,
    generator=Generator,
    discriminator=Discriminator,
    recipe={
        "loss": {"kind": "logistic", "r1_gamma": 0.1, "penalty_every": 16},
        "generator_lr": 2e-4,
        "discriminator_lr": 2e-4,
        "beta1": 0.5,
        "beta2": 0.999,
        "batch": 128,
    },
)
