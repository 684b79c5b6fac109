"""A convolution for discriminators under a gradient penalty."""

from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd import Function
from torch.nn import functional as F


class PenalisedConv2d(nn.Conv2d):
    """`nn.Conv2d` of stride 1 with a gradient that is fast to differentiate; the numbers are the same.

    A gradient penalty differentiates a backward pass. There torch's own convolution uses whole images as kernels, in a
    loop over the groups; the same result needs only a convolution and two ordinary backward passes of a convolution.

    A backward pass with `create_graph=True` computes gradients of images only, not of weights and biases.
    """

    def forward(self, x: Tensor) -> Tensor:
        """B×`out_channels`×H'×W' of `x` B×`in_channels`×H×W."""
        weight, bias, device = self.weight, self.bias, x.device.type
        if torch.is_autocast_enabled(device):  # which would lower a Function's forward pass alone
            dtype = torch.get_autocast_dtype(device)
            x, weight, bias = x.to(dtype), weight.to(dtype), None if bias is None else bias.to(dtype)
        output: Tensor = _Convolve.apply(x, weight, bias, int(self.padding[0]), self.groups)
        return output


class _Convolve(Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, padding: int, groups: int) -> Tensor:
        ctx.save_for_backward(x, weight)
        ctx.biased, ctx.padding, ctx.groups = bias is not None, padding, groups
        return F.conv2d(x, weight, bias, padding=padding, groups=groups)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        x, weight = ctx.saved_tensors
        (gradient,) = gradients
        by_x = by_weight = by_bias = None
        if ctx.needs_input_grad[0]:
            by_x = _GradientByInput.apply(gradient, weight, x.detach(), ctx.padding, ctx.groups)
        if ctx.needs_input_grad[1] and not torch.is_grad_enabled():  # enabled: a pass with create_graph
            _, by_weight, by_bias = _backward(gradient, x, weight, ctx=ctx, wanted=(False, True, ctx.biased))
        return by_x, by_weight, by_bias if ctx.biased else None, None, None


class _GradientByInput(Function):
    """The gradient of `_Convolve` by its input; linear in `gradient` and in `weight`."""

    @staticmethod
    def forward(ctx: Any, gradient: Tensor, weight: Tensor, x: Tensor, padding: int, groups: int) -> Tensor:
        ctx.save_for_backward(gradient, weight)
        ctx.padding, ctx.groups = padding, groups
        output: Tensor = _backward(gradient, x, weight, ctx=ctx, wanted=(True, False, False))[0]
        return output

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        gradient, weight = ctx.saved_tensors
        (by_output,) = gradients
        by_gradient = F.conv2d(by_output, weight, padding=ctx.padding, groups=ctx.groups)
        by_weight = _backward(gradient, by_output, weight, ctx=ctx, wanted=(False, True, False))[1]
        return by_gradient, by_weight, None, None, None


def _backward(gradient: Tensor, x: Tensor, weight: Tensor, *, ctx: Any, wanted: tuple[bool, bool, bool]) -> Any:
    """Gradients by `x`, `weight` and bias (those that are `wanted`), given the gradient by a convolution's output."""
    pad = [ctx.padding, ctx.padding]
    return torch.ops.aten.convolution_backward(
        gradient, x, weight, [len(weight)], [1, 1], pad, [1, 1], False, [0, 0], ctx.groups, list(wanted)
    )
