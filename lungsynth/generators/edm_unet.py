"""The network that EDM trains: a simplified U-Net after DDPM++ (arXiv 2011.13456) and ADM (arXiv 2105.05233).

The paper changes their training and sampling, not their architecture (EDM, arXiv 2206.00364, appendix F.2).
"""

import math
from typing import Literal, TypeVar

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn
from torch.nn import functional as F

from lungsynth.generators.family import GeneratorConfig

Layer = TypeVar("Layer", bound=nn.Module)

FREQUENCIES = (0.5, 32.0)
"""Lowest and highest, radians: the noise is told as ln(sigma)/4, which goes from -1.6 to 1.1."""


class UnetConfig(GeneratorConfig):
    """Architecture; the defaults are those for 64 px in the paper (table 7, FFHQ), 62 million parameters there."""

    size: Literal[32, 64, 128, 256] = Field(
        default=64, description="pixels; height and width of a slice [EDM, table 7]"
    )
    width: int = Field(default=128, ge=8, multiple_of=8, description="channels at full resolution [EDM, table 7]")
    multipliers: tuple[int, ...] = Field(
        default=(1, 2, 2, 2),
        min_length=1,
        description="factors of `width` at each resolution: full, half, a quarter, ... [EDM, table 7]",
    )
    blocks: int = Field(
        default=4, ge=1, description="residual blocks at each resolution, on the way down and up each [EDM, table 7]"
    )
    attention: tuple[int, ...] = Field(
        default=(16,),
        description="pixels a side of the feature maps with self-attention; the smallest always has it [EDM, table 7]",
    )
    dropout: float = Field(
        default=0.05, ge=0, lt=1, description="share of a block's features left out in training [EDM, table 7]"
    )
    patch: Literal[1, 2, 4] = Field(
        default=1,
        description="pixels a side of the squares that become channels of one; 4 times faster at 2 [chosen here: 1, "
        "none, as in EDM]",
    )

    @model_validator(mode="after")
    def _resolutions(self) -> "UnetConfig":
        smallest = _side(self, len(self.multipliers) - 1)
        if smallest < 4:
            raise ValueError(
                f"multipliers: {len(self.multipliers)} resolutions of {self.size} px, in patches of {self.patch}, "
                f"end at {smallest} pixels a side; 4 is the least, give fewer"
            )
        if min(self.multipliers) < 1:
            raise ValueError("multipliers: each must be 1 or more")
        return self


class Unet(nn.Module):
    """Maps noisy images to an estimate of the same shape, given their noise levels and classes.

    Each block on the way up also receives the output of the corresponding block on the way down. Squares of pixels may
    become channels first, which costs little quality (Luhman and Luhman, arXiv 2207.04316). The last convolution of the
    network and of each block is initialised with zeros.
    """

    def __init__(self, config: UnetConfig) -> None:
        super().__init__()
        self.patch, self.blocks = config.patch, config.blocks
        pixels, features = config.planes * config.patch**2, 4 * config.width
        low, high = map(math.log2, FREQUENCIES)
        self.frequencies: Tensor
        frequencies = torch.logspace(low, high, config.width // 2, 2, dtype=torch.float32)  # saved with no weights
        self.register_buffer("frequencies", frequencies, persistent=False)
        self.embed_noise = nn.Linear(config.width, features)
        self.embed_class = nn.Embedding(len(config.classes), features) if config.classes else None
        self.embed = nn.Linear(features, features)
        self.first = nn.Conv2d(pixels, config.width, 3, padding=1)

        self.down, self.up = nn.ModuleList(), nn.ModuleList()
        channels, passed = config.width, []
        for index in range(len(config.multipliers) * config.blocks):
            level = index // config.blocks
            width, attends = config.width * config.multipliers[level], _side(config, level) in config.attention
            self.down.append(Block(channels, width, features, attends, config.dropout))
            passed.append((width, attends))
            channels = width
        self.middle = Block(channels, channels, features, True, config.dropout)
        for width, attends in reversed(passed):
            self.up.append(Block(channels + width, width, features, attends, config.dropout))
            channels = width
        self.norm = _norm(channels)
        self.last = _zero(nn.Conv2d(channels, pixels, 3, padding=1))

    def forward(self, x: Tensor, noise: Tensor, labels: Tensor | None, rng: torch.Generator | None = None) -> Tensor:
        """B×C×H×W of `x` B×C×H×W, the noise levels `noise` B, about [-1.6, 1.1], and class codes `labels` int64 B.

        `labels` may only be None where there are no classes. Features are dropped by `rng`, and not without it.
        """
        features = self._embed(noise, labels)
        x = self.first(F.pixel_unshuffle(x, self.patch))
        passed = []
        for index, block in enumerate(self.down):
            if index and index % self.blocks == 0:
                x = F.avg_pool2d(x, 2)
            x = block(x, features, rng)
            passed.append(x)
        x = self.middle(x, features, rng)
        for index, block in enumerate(self.up):
            if index and index % self.blocks == 0:
                x = F.interpolate(x, scale_factor=2.0)
            x = block(torch.cat([x, passed.pop()], dim=1), features, rng)
        return F.pixel_shuffle(self.last(F.silu(self.norm(x))), self.patch)

    def _embed(self, noise: Tensor, labels: Tensor | None) -> Tensor:
        """The embedding of noise levels and classes for all blocks, B×features."""
        angles = noise[:, None] * self.frequencies
        features = self.embed_noise(torch.cat([angles.cos(), angles.sin()], dim=1))
        if self.embed_class is not None:
            assert labels is not None, "a network with classes needs labels"
            features = features + self.embed_class(labels)
        return F.silu(self.embed(F.silu(features)))


class Block(nn.Module):
    """A residual block as ADM's: the embedding scales and shifts its features; self-attention, of one head, is last.

    Sums are divided by √2, so that the variance stays the same (arXiv 2011.13456, appendix H).
    """

    def __init__(self, channels: int, width: int, features: int, attention: bool, dropout: float) -> None:
        super().__init__()
        self.dropout = dropout
        self.norm1, self.norm2 = _norm(channels), _norm(width)
        self.conv1 = nn.Conv2d(channels, width, 3, padding=1)
        self.conv2 = _zero(nn.Conv2d(width, width, 3, padding=1))
        self.modulate = nn.Linear(features, 2 * width)
        self.skip = nn.Conv2d(channels, width, 1) if channels != width else nn.Identity()
        self.attention = Attention(width) if attention else None

    def forward(self, x: Tensor, features: Tensor, rng: torch.Generator | None) -> Tensor:
        """B×`width`×H×W of `x` B×`channels`×H×W."""
        scale, shift = self.modulate(features)[:, :, None, None].chunk(2, dim=1)
        y = self.conv1(F.silu(self.norm1(x)))
        y = F.silu(torch.addcmul(shift, self.norm2(y), scale + 1))
        if rng is not None and self.dropout:
            kept = torch.rand(y.shape, generator=rng, device=y.device) >= self.dropout
            y = y * kept / (1 - self.dropout)
        x = (self.skip(x) + self.conv2(y)) * math.sqrt(0.5)
        return x if self.attention is None else (x + self.attention(x)) * math.sqrt(0.5)


class Attention(nn.Module):
    """Self-attention between all places of a feature map; initialised to return zero."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm = _norm(channels)
        self.ask = nn.Linear(channels, 3 * channels)
        self.answer = _zero(nn.Linear(channels, channels))

    def forward(self, x: Tensor) -> Tensor:
        """The residual to add to `x` B×C×H×W."""
        places = self.norm(x).flatten(2).transpose(1, 2)
        query, key, value = self.ask(places)[:, None].chunk(3, dim=3)  # B×heads×places×C
        attended = F.scaled_dot_product_attention(query, key, value)[:, 0]
        output: Tensor = self.answer(attended).transpose(1, 2).unflatten(2, x.shape[2:])
        return output


def _norm(channels: int) -> nn.GroupNorm:
    """32 groups at most, of 4 channels at least, as in the authors' code."""
    return nn.GroupNorm(math.gcd(32, channels // 4), channels)


def _zero(layer: Layer) -> Layer:
    """`layer`, with all parameters set to zero."""
    for parameter in layer.parameters():
        nn.init.zeros_(parameter)
    return layer


def _side(config: UnetConfig, level: int) -> int:
    """Height and width of the feature maps after `level` halvings, pixels."""
    return config.size // config.patch >> level
