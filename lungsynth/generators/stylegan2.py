"""StyleGAN2 (Karras et al., arXiv 1912.04958), with the conditioning and small-data settings of ADA (arXiv 2006.06676).

The skip generator and residual discriminator of section 4.1, in plain PyTorch. Gains are applied before leaky ReLUs,
not after them as in the original: the function is the same, and a pass over the activations is saved.
"""

import math
from itertools import pairwise
from typing import Literal

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn
from torch.nn import functional as F

from lungsynth.generators.family import DiscriminatorNetwork, Family, GeneratorConfig, GeneratorNetwork
from lungsynth.generators.layers import EqualConv2d, EqualLinear, blur, downsample, minibatch_spread, one_hot, upsample

GAIN = math.sqrt(2)  # restores the variance after a leaky ReLU
MAPPING_RATE = 0.01  # learning rate of the mapping network, relative to all others; StyleGAN, appendix C
MIXING = 0.9  # fraction of the images with two styles; StyleGAN2, appendix B
EPSILON = 1e-8


class Stylegan2Config(GeneratorConfig):
    """Architecture. The defaults are those of ADA below 512 px; from there on, `channel_base` is 32768."""

    family: Literal["stylegan2"] = "stylegan2"
    size: Literal[32, 64, 128, 256, 512] = Field(
        default=128, description="pixels; height and width of a slice [chosen here: as slices.size]"
    )
    nz: int = Field(default=512, ge=1, description="numbers in the latent vector z [StyleGAN2]")
    nw: int = Field(default=512, ge=1, description="numbers in the style vector w [StyleGAN2]")
    mapping_layers: int = Field(
        default=8, ge=1, description="layers from z to w [StyleGAN2; ADA's automatic setting: 2]"
    )
    channel_base: int = Field(default=16384, ge=1, description="channels times pixels a side, of every layer [ADA]")
    channel_max: int = Field(default=512, ge=1, description="channels at most, of every layer [StyleGAN2]")

    @model_validator(mode="after")
    def _channels(self) -> "Stylegan2Config":
        if self.channel_base < self.size:
            raise ValueError(f"channel_base must be at least size, {self.size}: fewer leave the last layer no channel")
        return self

    @property
    def sides(self) -> list[int]:
        """Pixels a side of the layers, from 4 to `size`."""
        return [2**level for level in range(2, self.size.bit_length())]

    def channels_at(self, side: int) -> int:
        """Channels of the layers of `side` pixels."""
        return min(self.channel_base // side, self.channel_max)


def normalise(x: Tensor) -> Tensor:
    """`x` B×n with a mean square of 1 in every row."""
    return x * (x.square().mean(dim=1, keepdim=True) + EPSILON).rsqrt()


def modulated_convolution(x: Tensor, weight: Tensor, styles: Tensor, *, up: bool = False, gain: float = 1.0) -> Tensor:
    """`x` B×I×H×W through `weight` O×I×3×3, scaled by `styles` B×I and demodulated to the variance `gain`² (eq. 1-3).

    The scales act on activations before and after one convolution of the whole batch, rather than on a weight for each
    sample: the same numbers, without a grouped convolution. With `up` it goes to 2H×2W: as after zero insertion and
    [1, 3, 3, 1], with `weight` mirrored, at a quarter of the cost.
    """
    demodulation = gain * (styles.square() @ weight.square().sum(dim=(2, 3)).T + EPSILON).rsqrt()
    x = x * styles[:, :, None, None]
    if up:
        x = blur(F.conv_transpose2d(x, weight.transpose(0, 1), stride=2), padding=1, gain=4)
    else:
        x = F.conv2d(x, weight, padding=1)
    return x * demodulation[:, :, None, None].to(x.dtype)


class Mapping(nn.Module):
    """Latents B×nz (none where `nz` is 0) and class codes to vectors B×`width`; the class by an embedding."""

    def __init__(self, nz: int, classes: int, width: int, layers: int) -> None:
        super().__init__()
        self.classes = classes
        self.embed = EqualLinear(classes, width) if classes else None
        widths = [nz + (width if classes else 0)] + [width] * layers
        self.layers = nn.ModuleList(
            EqualLinear(before, after, gain=GAIN, rate=MAPPING_RATE) for before, after in pairwise(widths)
        )

    def forward(self, z: Tensor | None, labels: Tensor | None) -> Tensor:
        """Vectors of `z` B×nz, standard normal, and `labels` int64 B, which only classes need."""
        parts = [] if z is None else [normalise(z)]
        if self.embed is not None:
            assert labels is not None
            parts.append(normalise(self.embed(one_hot(labels, self.classes, self.embed.weight))))
        x = torch.cat(parts, dim=1)
        for layer in self.layers:
            x = F.leaky_relu(layer(x), 0.2)
        return x


class StyledConv(nn.Module):
    """A modulated convolution, noise of a learned strength, a bias, a leaky ReLU."""

    noise: Tensor

    def __init__(self, channels: int, width: int, side: int, nw: int, up: bool = False) -> None:
        super().__init__()
        self.style = EqualLinear(nw, channels, bias=1.0)
        self.weight = nn.Parameter(torch.randn(width, channels, 3, 3))  # demodulation takes out any scale
        self.strength = nn.Parameter(torch.zeros(()))
        self.bias = nn.Parameter(torch.zeros(width))
        self.register_buffer("noise", torch.randn(1, 1, side, side))
        self.up = up

    def forward(self, x: Tensor, w: Tensor, rng: torch.Generator | None) -> Tensor:
        """B×`width`×`side`×`side`; with `rng` the noise is new for each image, without it always the same."""
        x = modulated_convolution(x, self.weight, self.style(w), up=self.up, gain=GAIN)
        noise = self.noise
        if rng is not None:
            noise = torch.randn(len(x), *noise.shape[1:], generator=rng, device=x.device)
        x = x + self.bias[:, None, None].to(x.dtype) + (noise * self.strength).to(x.dtype)
        return F.leaky_relu(x, 0.2)


class ToGrey(nn.Module):
    """A layer's contribution to the image: a modulated 1×1 convolution, without demodulation."""

    def __init__(self, channels: int, image_channels: int, nw: int) -> None:
        super().__init__()
        self.style = EqualLinear(nw, channels, bias=1.0)
        self.weight = nn.Parameter(torch.randn(image_channels, channels, 1, 1))
        self.bias = nn.Parameter(torch.zeros(image_channels))
        self.scale = 1 / math.sqrt(channels)

    def forward(self, x: Tensor, w: Tensor) -> Tensor:
        """B×`image_channels`×H×W, in float32: grey values are summed over the layers."""
        return F.conv2d(x * (self.style(w) * self.scale)[:, :, None, None], self.weight, self.bias).float()


class Generator(GeneratorNetwork):
    """Maps latent vectors and class codes to styles, and styles to slices."""

    def __init__(self, config: Stylegan2Config) -> None:
        super().__init__()
        self.config = config
        self.to_style = Mapping(config.nz, len(config.classes), config.nw, config.mapping_layers)
        sides, nw = config.sides, config.nw
        widths = [config.channels_at(side) for side in sides]
        self.constant = nn.Parameter(torch.randn(1, widths[0], 4, 4))
        convs = [StyledConv(widths[0], widths[0], 4, nw)]
        for before, after, side in zip(widths[:-1], widths[1:], sides[1:], strict=True):
            convs += [StyledConv(before, after, side, nw, up=True), StyledConv(after, after, side, nw)]
        self.convs = nn.ModuleList(convs)
        self.greys = nn.ModuleList(ToGrey(width, config.planes, nw) for width in widths)

    def forward(self, z: Tensor, labels: Tensor | None = None, rng: torch.Generator | None = None) -> Tensor:
        """Images B×C×H×W, about [-1, 1], of `z` B×nz and `labels` int64 B, which only classes need.

        With `rng`: style mixing, and other noise for each image.
        """
        return self.synthesis(self.mapping(z, labels, rng), rng)

    def mapping(self, z: Tensor, labels: Tensor | None = None, rng: torch.Generator | None = None) -> Tensor:
        """Styles B×layers×nw, the same in every layer; with `rng`, often those of other latents from some layer on."""
        w: Tensor = self.to_style(z, labels)[:, None]
        layers = len(self.convs) + 1
        if rng is None:
            return w.expand(-1, layers, -1)
        other = self.to_style(torch.randn(z.shape, generator=rng, device=z.device), labels)[:, None]
        first, mixed = torch.rand(2, len(z), 1, 1, generator=rng, device=z.device)
        switch = torch.where(mixed < MIXING, 1 + (first * (layers - 1)).floor(), layers)
        return torch.where(torch.arange(layers, device=z.device)[:, None] < switch, w, other)

    def synthesis(self, styles: Tensor, rng: torch.Generator | None = None) -> Tensor:
        """Images B×C×H×W of `styles` B×layers×nw. Each `ToGrey` layer has the style of the convolution after it."""
        w = styles.unbind(dim=1)
        x = self.convs[0](self.constant, w[0], rng)
        image: Tensor = self.greys[0](x, w[1])
        for block in range(1, len(self.greys)):
            for layer in (2 * block - 1, 2 * block):
                x = self.convs[layer](x, w[layer], rng)
            image = upsample(image) + self.greys[block](x, w[2 * block + 1])
        return image


class DownBlock(nn.Module):
    """A residual block of the discriminator, to half the height and width."""

    def __init__(self, channels: int, width: int) -> None:
        super().__init__()
        # Both branches are multiplied by √½, so that their sum keeps the variance. With its √2, `down` has a gain of 1.
        self.skip = EqualConv2d(channels, width, 1, gain=math.sqrt(0.5), bias=False)
        self.conv = EqualConv2d(channels, channels, 3)
        self.down = EqualConv2d(channels, width, 3, gain=1.0)

    def forward(self, x: Tensor) -> Tensor:
        """B×`width`×H/2×W/2 of `x` B×`channels`×H×W."""
        main = blur(F.leaky_relu(self.conv(x), 0.2), padding=2)
        main = F.conv2d(main, self.down.weight * self.down.scale, self.down.bias, stride=2)
        output: Tensor = F.leaky_relu(main, 0.2) + self.skip(downsample(x))
        return output


class Discriminator(DiscriminatorNetwork):
    """Scores slices: the higher, the more real. Classes by projection onto a mapped embedding, as in ADA's."""

    def __init__(self, config: Stylegan2Config) -> None:
        super().__init__()
        self.config = config
        widths = [config.channels_at(side) for side in reversed(config.sides)]
        last = widths[-1]
        self.from_grey = EqualConv2d(config.planes, widths[0], 1)
        self.blocks = nn.Sequential(*(DownBlock(before, after) for before, after in pairwise(widths)))
        self.mix = EqualConv2d(last + 1, last, 3)
        self.hidden = EqualLinear(last * 16, last, gain=GAIN)
        classes = len(config.classes)
        self.score = EqualLinear(last, last if classes else 1)
        self.project = Mapping(0, classes, last, config.mapping_layers) if classes else None

    def forward(self, images: Tensor, labels: Tensor) -> Tensor:
        """Scores B of `images` B×C×H×W in [-1, 1], said to be of the classes `labels` int64 B."""
        # An image of one channel has no definite memory format; without this, torch would choose the slower one.
        x = self.from_grey(images).contiguous(memory_format=torch.channels_last)
        x = self.blocks(F.leaky_relu(x, 0.2))
        x = F.leaky_relu(self.mix(minibatch_spread(x)), 0.2)
        x = self.score(F.leaky_relu(self.hidden(x.flatten(1)), 0.2))
        if self.project is None:
            scores: Tensor = x[:, 0]
        else:
            scores = (x * self.project(None, labels)).sum(dim=1) / math.sqrt(x.shape[1])
        return scores


# ADA's automatic setting for up to 512 px. R1 follows its rule of thumb 0.0002·size²/batch for 128 px: change it with
# size and batch. StyleGAN2 takes a separate step of Adam for each penalty, and lowers rates and betas to compensate for
# the additional steps. Here a penalty is added to the loss of the same step, so that no compensation is needed.
FAMILY = Family(
    config=Stylegan2Config,
    generator=Generator,
    discriminator=Discriminator,
    recipe={
        "loss": {"kind": "logistic", "r1_gamma": 0.1, "penalty_every": 16, "path_length": 2.0, "path_every": 4},
        "generator_lr": 0.0025,
        "discriminator_lr": 0.0025,
        "beta1": 0.0,
        "beta2": 0.99,
        "ema_kimg": 10,
        "ema_warm_up": 0.05,
        "batch": 32,
        "kimg": 25_000,
        "snapshot_kimg": 100,
        "checkpoint_kimg": 100,
        "monitor": {"every_kimg": 200},
    },
)
