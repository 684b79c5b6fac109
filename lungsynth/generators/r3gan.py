"""R3GAN (Huang et al., arXiv 2501.05441), configuration E: a modern norm-free ResNet on both sides of the game."""

import math
from itertools import pairwise
from typing import Literal

import torch
from pydantic import Field, JsonValue, model_validator
from torch import Tensor, nn
from torch.nn import functional as F

from lungsynth.generators.convolution import PenalisedConv2d
from lungsynth.generators.family import DiscriminatorNetwork, Family, GeneratorConfig, GeneratorNetwork
from lungsynth.generators.layers import downsample, upsample

SLOPE = 0.2  # of leaky ReLUs; the paper's, and StyleGAN2's
CLASS_SPREAD = 0.1
"""Standard deviation of the initial class embeddings; that of the latent vector is 1.

Slices of all classes look much alike. With embeddings as large as the latent vector and a separate score for each
class, the generator collapsed to about one slice per class after 1 kimg, and had not recovered after 10 kimg.
"""


class R3ganConfig(GeneratorConfig):
    """Architecture of both networks, which mirror each other. Defaults are the paper's (table 9)."""

    family: Literal["r3gan"] = "r3gan"
    size: Literal[32, 64, 128, 256, 512] = Field(
        default=128, description="pixels; height and width of a slice [chosen here: as slices.size]"
    )
    nz: int = Field(default=64, ge=1, description="numbers in the latent vector [R3GAN, section 3]")
    embedding: int = Field(
        default=64, ge=1, description="numbers in the generator's class embedding [R3GAN, from table 9]"
    )
    channel_base: int = Field(
        default=24576, ge=1, description="channels times pixels a side, of every stage [R3GAN, table 9]"
    )
    channel_max: int = Field(default=768, ge=1, description="channels at most, of every stage [R3GAN, table 9]")
    blocks: int = Field(default=2, ge=1, description="residual blocks a stage [R3GAN, table 9]")
    expansion: int = Field(
        default=2, ge=1, description="channels inside a block for each one outside [R3GAN, section 3]"
    )
    group: int = Field(default=16, ge=1, description="channels that a 3×3 convolution mixes [R3GAN, section 3]")

    @property
    def widths(self) -> tuple[int, ...]:
        """Channels of the stages of 4, 8, … `size` pixels a side."""
        return tuple(
            min(self.channel_max, self.channel_base >> level) for level in range(2, int(math.log2(self.size)) + 1)
        )

    @model_validator(mode="after")
    def _whole_groups(self) -> "R3ganConfig":
        for width in self.widths:
            inside = width * self.expansion
            if not inside or inside % self.group:
                raise ValueError(
                    f"channel_base and channel_max give a stage {width} channels, its blocks {inside}: not whole "
                    f"groups of {self.group}; change these, or group"
                )
        return self


def _initialise(layer: nn.Conv2d | nn.Linear, scale: float) -> None:
    """Initialise weights so that the output has the variance of the input times `scale`²; biases with zero."""
    nn.init.kaiming_normal_(layer.weight, nonlinearity="linear")
    with torch.no_grad():
        layer.weight.mul_(scale)
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)


def _linear_map(channels: int, width: int) -> nn.Conv2d:
    """A 1×1 convolution without bias or activation."""
    layer = PenalisedConv2d(channels, width, 1, bias=False)
    _initialise(layer, 1)
    return layer


class ResidualBlock(nn.Module):
    """Inverted bottleneck: 1×1 out, grouped 3×3, 1×1 back. It starts as the identity (Fixup, arXiv 1901.09321)."""

    def __init__(self, width: int, config: R3ganConfig) -> None:
        super().__init__()
        inside = width * config.expansion
        self.widen = PenalisedConv2d(width, inside, 1)
        self.mix = PenalisedConv2d(inside, inside, 3, padding=1, groups=inside // config.group)
        self.narrow = PenalisedConv2d(inside, width, 1, bias=False)
        # Section 3: L^-0.25 for the L blocks of a network and m = 3 layers in each, in general L^(-1/(2m - 2)).
        depth = config.blocks * len(config.widths)
        for layer in (self.widen, self.mix):
            _initialise(layer, nn.init.calculate_gain("leaky_relu", SLOPE) * depth**-0.25)
        nn.init.zeros_(self.narrow.weight)

    def forward(self, x: Tensor) -> Tensor:
        """B×`width`×H×W of `x` B×`width`×H×W."""
        y = F.leaky_relu(self.widen(x), SLOPE, inplace=True)  # a third less memory: its gradient needs the output only
        y = F.leaky_relu(self.mix(y), SLOPE, inplace=True)
        output: Tensor = x + self.narrow(y)
        return output


def _stage(width: int, config: R3ganConfig) -> nn.Sequential:
    return nn.Sequential(*(ResidualBlock(width, config) for _ in range(config.blocks)))


def _change(channels: int, width: int) -> nn.Module:
    """The 1×1 convolution of a transition, where the number of channels changes."""
    return nn.Identity() if channels == width else _linear_map(channels, width)


class Generator(GeneratorNetwork):
    """Maps latent vectors, with the embedding of their class beside them, to slices."""

    def __init__(self, config: R3ganConfig) -> None:
        super().__init__()
        self.config = config
        widths = config.widths
        self.embed = nn.Embedding(len(config.classes), config.embedding) if config.classes else None
        self.modulate = nn.Linear(config.nz + (config.embedding if config.classes else 0), widths[0], bias=False)
        self.basis = nn.Parameter(torch.randn(widths[0], 4, 4))
        self.stages = nn.ModuleList(_stage(width, config) for width in widths)
        self.transitions = nn.ModuleList(_change(*pair) for pair in pairwise(widths))
        self.to_image = _linear_map(widths[-1], config.planes)
        _initialise(self.modulate, 1)
        if self.embed is not None:
            nn.init.normal_(self.embed.weight, std=CLASS_SPREAD)

    def forward(self, z: Tensor, labels: Tensor | None = None, rng: torch.Generator | None = None) -> Tensor:
        """Images B×C×H×W, about [-1, 1], of `z` B×nz and `labels` int64 B, which only classes need."""
        if self.embed is not None and labels is not None:
            z = torch.cat([z, self.embed(labels)], dim=1)
        x = self.basis * self.modulate(z)[:, :, None, None]
        x = self.stages[0](x.contiguous(memory_format=torch.channels_last))
        for transition, stage in zip(self.transitions, self.stages[1:], strict=True):
            x = stage(upsample(transition(x)))  # either order gives the same numbers; this convolution is smaller
        output: Tensor = self.to_image(x)
        return output


class Discriminator(DiscriminatorNetwork):
    """Scores slices: the generator's mirror image; the class by projection (arXiv 1802.05637)."""

    def __init__(self, config: R3ganConfig) -> None:
        super().__init__()
        self.config = config
        widths = config.widths[::-1]
        self.from_image = _linear_map(config.planes, widths[0])
        self.stages = nn.ModuleList(_stage(width, config) for width in widths)
        self.transitions = nn.ModuleList(_change(*pair) for pair in pairwise(widths))
        self.basis = PenalisedConv2d(widths[-1], widths[-1], 4, groups=widths[-1], bias=False)
        self.features = nn.Linear(widths[-1], widths[-1] if config.classes else 1, bias=False)
        self.embed = nn.Embedding(len(config.classes), widths[-1]) if config.classes else None
        for layer in (self.basis, self.features):
            _initialise(layer, 1)
        if self.embed is not None:
            nn.init.normal_(self.embed.weight, std=CLASS_SPREAD)
            with torch.no_grad():
                self.embed.weight.add_(torch.randn(widths[-1])).mul_(widths[-1] ** -0.5)

    def forward(self, images: Tensor, labels: Tensor) -> Tensor:
        """Scores B of `images` B×C×H×W in [-1, 1], said to be of the classes `labels` int64 B."""
        x = self.stages[0](self.from_image(images).contiguous(memory_format=torch.channels_last))
        for transition, stage in zip(self.transitions, self.stages[1:], strict=True):
            x = stage(transition(downsample(x)))
        x = self.features(self.basis(x).flatten(1))
        output: Tensor = x[:, 0] if self.embed is None else (self.embed(labels) * x).sum(dim=1)
        return output


def _burn_in(start: float, end: float) -> dict[str, JsonValue]:
    return {"start": start, "end": end, "until_kimg": 20_000}


# Table 9, FFHQ; of the augmentation in appendix D, the changes that leave a slice anatomically possible. The penalties'
# weights are for 128 px, between the published 2 to 0.2 for 64 px and 150 to 15 for 256 px: run files of other sizes
# have to state theirs. Run files of much shorter runs have to state every schedule: otherwise the whole run lies within
# the burn-in phase, in which weights are hardly averaged.
FAMILY = Family(
    config=R3ganConfig,
    generator=Generator,
    discriminator=Discriminator,
    recipe={
        "loss": {
            "kind": "relativistic",
            "r1_gamma": _burn_in(17, 1.7),
            "r2_gamma": _burn_in(17, 1.7),
            "penalty_every": 1,
        },
        "generator_lr": _burn_in(2e-4, 5e-5),
        "discriminator_lr": _burn_in(2e-4, 5e-5),
        "beta1": 0.0,
        "beta2": _burn_in(0.9, 0.99),
        "ema_kimg": _burn_in(0, 500),
        "augment": {
            "translate": 0.125,
            "scale": 0.1,
            "rotate_degrees": 10,
            "brightness": 0.01,
            "cutout": 0.5,
            "p": _burn_in(0, 0.3),
        },
        "batch": 256,
        "kimg": 100_000,
        "snapshot_kimg": 500,
        "checkpoint_kimg": 200,
        "monitor": {"every_kimg": 500},
    },
)
