"""Layers that several families share."""

import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

GROUP = 4
"""Slices whose spread `minibatch_spread` measures together; Karras et al., arXiv 1710.10196."""


def one_hot(labels: Tensor, classes: int, like: Tensor) -> Tensor:
    """Codes B×`classes` of `labels` int64 B, in the precision of `like`."""
    return F.one_hot(labels, classes).to(like.dtype)


def minibatch_spread(x: Tensor) -> Tensor:
    """`x` B×C×H×W with one more channel: the mean standard deviation within groups of neighbours in the batch.

    It lets a discriminator see that a generator repeats itself (arXiv 1710.10196, section 3). Neighbours, so that a
    batch that is dealt out to several processes keeps its groups; `GROUP` divides B, or B is smaller than it.
    """
    groups = x.view(-1, min(GROUP, len(x)), *x.shape[1:]).float()
    variance = (groups - groups.mean(dim=1, keepdim=True)).square().mean(dim=1)  # `var` is eight times as slow on a CPU
    spread = (variance + 1e-8).sqrt().mean(dim=(1, 2, 3)).to(x.dtype)
    spread = spread.repeat_interleave(groups.shape[1])[:, None, None, None]
    return torch.cat([x, spread.expand(-1, 1, *x.shape[2:])], dim=1)


def upsample(x: Tensor) -> Tensor:
    """`x` B×C×H×W at twice the size: zeros in between, then [1, 3, 3, 1]/4, which is bilinear interpolation.

    The filter of StyleGAN2 (arXiv 1912.04958, B) and R3GAN. The border is repeated outwards, here and in `downsample`,
    so that an even picture stays even.
    """
    return F.interpolate(x, scale_factor=2, mode="bilinear", align_corners=False)


def downsample(x: Tensor) -> Tensor:
    """`x` B×C×H×W at half the size: [1, 3, 3, 1]/8, then every second pixel; a quarter of `upsample`ᵀ."""
    # The backward pass of bilinear interpolation is this filter. In a step with a gradient penalty it takes a fifth of
    # the time of a depthwise convolution.
    batch, channels, height, width = x.shape
    small = [batch, channels, height // 2, width // 2]
    result: Tensor = torch.ops.aten.upsample_bilinear2d_backward(x, [height, width], small, False) / 4
    return result


def blur(x: Tensor, padding: int, gain: float = 1.0) -> Tensor:
    """`x` B×C×H×W through [1, 3, 3, 1]/8, and `gain`; with zeros around it, 2·`padding` - 3 pixels larger a side."""
    result: Tensor = _Filter.apply(x, padding, gain)
    return result


class _Filter(torch.autograd.Function):
    """[1, 3, 3, 1] in both directions, in the precision of `x`.

    `_Spread` is its gradient, and it is the gradient of `_Spread`. A gradient penalty needs the second derivative, for
    which torch's own code would run one convolution for each channel.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, padding: int, gain: float) -> Tensor:
        ctx.settings = padding, gain
        with torch.autocast(x.device.type, enabled=False):
            return F.conv2d(x, _taps(x, gain), padding=padding, groups=x.shape[1])

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Any:
        return _Spread.apply(gradients[0], *ctx.settings), None, None


class _Spread(torch.autograd.Function):
    """The transpose of `_Filter`."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, padding: int, gain: float) -> Tensor:
        ctx.settings = padding, gain
        with torch.autocast(x.device.type, enabled=False):
            return F.conv_transpose2d(x, _taps(x, gain), padding=padding, groups=x.shape[1])

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Any:
        return _Filter.apply(gradients[0], *ctx.settings), None, None


def _taps(x: Tensor, gain: float) -> Tensor:
    """The filter, for each channel of `x`, of the sum `gain`. Made on the device: no copy to wait for."""
    taps = x.new_full((x.shape[1], 1, 4, 4), gain / 64)
    taps[:, :, 1:3] *= 3
    taps[:, :, :, 1:3] *= 3
    return taps


class EqualConv2d(nn.Module):
    """A convolution that keeps its size, with the equalized learning rate of arXiv 1710.10196, section 4.1.

    Weights are drawn from N(0, 1) and scaled by `gain`/√(fan in) in each pass, so that Adam moves all layers alike.
    """

    def __init__(self, channels: int, width: int, kernel: int, gain: float = math.sqrt(2), bias: bool = True) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(width, channels, kernel, kernel))
        self.bias = nn.Parameter(torch.zeros(width)) if bias else None
        self.scale = gain / math.sqrt(channels * kernel**2)
        self.padding = kernel // 2

    def forward(self, x: Tensor) -> Tensor:
        """B×`width`×H×W of `x` B×`channels`×H×W."""
        return F.conv2d(x, self.weight * self.scale, self.bias, padding=self.padding)


class EqualLinear(nn.Module):
    """A linear layer with the equalized learning rate; `rate` slows it down further (StyleGAN's mapping: 0.01)."""

    def __init__(self, features: int, width: int, gain: float = 1.0, rate: float = 1.0, bias: float = 0.0) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(width, features) / rate)
        self.bias = nn.Parameter(torch.full((width,), bias / rate))
        self.scale = gain * rate / math.sqrt(features)
        self.rate = rate

    def forward(self, x: Tensor) -> Tensor:
        """B×`width` of `x` B×`features`."""
        return F.linear(x, self.weight * self.scale, self.bias * self.rate)
