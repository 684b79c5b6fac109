"""PGGAN: both networks grow from 4×4 pixels to full size while they train (Karras et al., arXiv 1710.10196).

Layers and widths are those of table 2 and appendix A.1; one grey channel stands in for RGB.
"""

import math
from itertools import islice, pairwise
from typing import Literal

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from lungsynth.generators.family import DiscriminatorNetwork, Family, GeneratorConfig, GeneratorNetwork
from lungsynth.generators.layers import EqualConv2d, EqualLinear, minibatch_spread, one_hot

SMALLEST = 2
"""log2 of the pixels a side that both networks start from."""


class PgganConfig(GeneratorConfig):
    """Architecture; the defaults are the paper's."""

    family: Literal["pggan"] = "pggan"
    size: Literal[4, 8, 16, 32, 64, 128, 256, 512] = Field(
        default=128, description="pixels; height and width of a slice [chosen here: as slices.size]"
    )
    nz: int = Field(default=512, ge=1, description="numbers in the latent vector [PGGAN, table 2]")
    width: int = Field(default=512, ge=1, description="channels at most, at the low resolutions [PGGAN, table 2]")
    fmap_base: int = Field(
        default=8192,
        ge=256,
        description="channels at 2 px; half as many at each doubling, but `width` at most [PGGAN, table 2]",
    )

    @property
    def widths(self) -> list[int]:
        """Channels at 4, 8, … up to `size` pixels."""
        return [min(self.fmap_base >> level - 1, self.width) for level in range(SMALLEST, self.size.bit_length())]


class Growing(nn.Module):
    """A network with a block for each doubling of the resolution; it uses the first `depth` blocks."""

    fade: Tensor
    """Weight of the newest block's image while it is faded in; a tensor, so that no compiled step holds it fixed."""

    def __init__(self, doublings: int) -> None:
        super().__init__()
        self.register_buffer("fade", torch.ones(()), persistent=False)
        self.depth = doublings
        self.fading = False

    def grow(self, level: float) -> None:
        """Work at 2^⌈level⌉ pixels a side, `level` from 2 to log2(size); its fraction is the newest block's weight."""
        self.depth = math.ceil(level) - SMALLEST
        self.fading = not float(level).is_integer()
        self.fade.fill_(level - math.floor(level))


class Generator(Growing, GeneratorNetwork):
    """Maps latent vectors and class codes to slices; the last layer is linear, so that values may leave [-1, 1]."""

    def __init__(self, config: PgganConfig) -> None:
        widths = config.widths
        super().__init__(len(widths) - 1)
        self.config = config
        inputs = config.nz + len(config.classes)
        self.first = EqualLinear(inputs, 16 * widths[0], gain=math.sqrt(2) / 4)  # as of a padded 4×4 convolution
        self.mix = EqualConv2d(widths[0], widths[0], 3)
        self.blocks = nn.ModuleList(GeneratorBlock(*pair) for pair in pairwise(widths))
        self.to_image = nn.ModuleList(EqualConv2d(width, config.planes, 1, gain=1) for width in widths)

    def forward(self, z: Tensor, labels: Tensor | None = None, rng: torch.Generator | None = None) -> Tensor:
        """Images B×C×S×S, S = 2^⌈level⌉, of `z` B×nz and `labels` int64 B, which only classes need; not random."""
        x = pixel_norm(z)
        if labels is not None and self.config.classes:
            x = torch.cat([x, one_hot(labels, len(self.config.classes), z)], dim=1)
        x = _active(self.first(x).unflatten(1, (-1, 4, 4)))
        x = before = _active(self.mix(x))
        for block in islice(self.blocks, self.depth):
            before, x = x, block(x)
        image: Tensor = self.to_image[self.depth](x)
        if self.fading:
            old = _upsample(self.to_image[self.depth - 1](before))
            image = old + (image - old) * self.fade
        return image


class GeneratorBlock(nn.Module):
    """Twice the resolution, and two convolutions."""

    def __init__(self, channels: int, width: int) -> None:
        super().__init__()
        self.first = EqualConv2d(channels, width, 3)
        self.second = EqualConv2d(width, width, 3)

    def forward(self, x: Tensor) -> Tensor:
        """B×`width`×2H×2W of `x` B×`channels`×H×W."""
        return _active(self.second(_active(self.first(_upsample(x)))))


class Discriminator(Growing, DiscriminatorNetwork):
    """Scores slices: the generator's mirror image.

    The score is the sum of two linear functions of the features: one for all classes, and one for the class. This is
    the projection of Miyato and Koyama (arXiv 1802.05637). Unlike a class code beside the image, it gives every feature
    a weight of its own in each class.
    """

    def __init__(self, config: PgganConfig) -> None:
        widths = config.widths
        super().__init__(len(widths) - 1)
        self.config = config
        self.from_image = nn.ModuleList(EqualConv2d(config.planes, width, 1) for width in widths)
        self.blocks = nn.ModuleList(DiscriminatorBlock(width, channels) for channels, width in pairwise(widths))
        self.mix = EqualConv2d(widths[0] + 1, widths[0], 3)
        self.hidden = EqualLinear(16 * widths[0], widths[0], gain=math.sqrt(2))
        self.score = EqualLinear(widths[0], 1 + len(config.classes))

    def forward(self, images: Tensor, labels: Tensor) -> Tensor:
        """Scores B of `images` B×C×S×S, S = 2^⌈level⌉, said to be of the classes `labels` int64 B."""
        x = F.leaky_relu(self.from_image[self.depth](images), 0.2)
        for place in reversed(range(self.depth)):
            x = self.blocks[place](x)
            if self.fading and place == self.depth - 1:
                old = F.leaky_relu(self.from_image[place](F.avg_pool2d(images, 2)), 0.2)
                x = old + (x - old) * self.fade
        x = F.leaky_relu(self.mix(minibatch_spread(x)), 0.2)
        scores = self.score(F.leaky_relu(self.hidden(x.flatten(1)), 0.2))
        output: Tensor = (
            scores[:, 0] + scores.gather(1, 1 + labels[:, None])[:, 0] if self.config.classes else scores[:, 0]
        )
        return output


class DiscriminatorBlock(nn.Module):
    """Two convolutions, and half the resolution."""

    def __init__(self, channels: int, width: int) -> None:
        super().__init__()
        self.first = EqualConv2d(channels, channels, 3)
        self.second = EqualConv2d(channels, width, 3)

    def forward(self, x: Tensor) -> Tensor:
        """B×`width`×H/2×W/2 of `x` B×`channels`×H×W."""
        x = F.leaky_relu(self.first(x), 0.2)
        return F.avg_pool2d(F.leaky_relu(self.second(x), 0.2), 2)


def pixel_norm(x: Tensor) -> Tensor:
    """`x` B×C×…, with the vector of each pixel brought to the length √C (section 4.2)."""
    return x * (x.square().mean(dim=1, keepdim=True) + 1e-8).rsqrt()


def _active(x: Tensor) -> Tensor:
    return pixel_norm(F.leaky_relu(x, 0.2))


def _upsample(x: Tensor) -> Tensor:
    return F.interpolate(x, scale_factor=2.0)


# Appendix A.1. Its batches of 14 at 256 px and 6 at 512 px are rounded down to multiples of 4. Its decay of 0.999 a
# step is a half-life of 693 steps, 11 kimg. Length and phases are those of the authors' code.
FAMILY = Family(
    config=PgganConfig,
    generator=Generator,
    discriminator=Discriminator,
    recipe={
        "loss": {"kind": "wasserstein", "r1_gamma": 0, "slope": 10, "penalty_every": 1, "drift": 0.001},
        "generator_lr": 1e-3,
        "discriminator_lr": 1e-3,
        "beta1": 0.0,
        "beta2": 0.99,
        "batch": 16,
        "growth": {"batches": {"256": 12, "512": 4}},
        "ema_kimg": 11.1,
        "augment": {"translate": 0},
        "kimg": 12000,
        "snapshot_kimg": 100,
        "checkpoint_kimg": 50,
        "monitor": {"every_kimg": 100},
    },
)
