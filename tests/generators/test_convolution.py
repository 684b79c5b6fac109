"""The convolution under a gradient penalty gives the numbers of torch's own."""

import pytest
import torch
from torch import Tensor, nn
from torch.autograd import gradcheck, gradgradcheck

from lungsynth.generators.convolution import PenalisedConv2d

CASES = [(1, 1, 0, True), (3, 2, 1, True), (3, 1, 1, False), (4, 4, 0, False)]  # kernel, groups, padding, bias


def pair(kernel: int, groups: int, padding: int, bias: bool) -> tuple[PenalisedConv2d, nn.Conv2d]:
    torch.manual_seed(0)
    ours = PenalisedConv2d(4, 8, kernel, padding=padding, groups=groups, bias=bias).double()
    theirs = nn.Conv2d(4, 8, kernel, padding=padding, groups=groups, bias=bias).double()
    theirs.load_state_dict(ours.state_dict())
    return ours, theirs


def penalised_gradients(layer: nn.Module) -> list[Tensor]:
    """By image and parameters, of a loss on the scores and on their gradient."""
    images = torch.randn(3, 4, 5, 5, generator=torch.Generator().manual_seed(1), dtype=torch.double, requires_grad=True)
    scores = layer(images).tanh().square().sum()
    (gradient,) = torch.autograd.grad(scores, images, create_graph=True)
    (scores + gradient.square().sum()).backward()
    return [images.grad, *(parameter.grad for parameter in layer.parameters())]


@pytest.mark.parametrize("case", CASES)
def test_a_penalty_has_the_gradients_of_torchs_convolution(case):
    ours, theirs = pair(*case)
    for own, expected in zip(penalised_gradients(ours), penalised_gradients(theirs), strict=True):
        torch.testing.assert_close(own, expected)


@pytest.mark.parametrize("case", CASES)
def test_gradients_agree_with_finite_differences(case):
    layer, _ = pair(*case)
    images = torch.randn(2, 4, 4, 4, dtype=torch.double, requires_grad=True)
    assert gradcheck(layer, images)
    assert gradgradcheck(layer, images)


def test_autocast_lowers_the_precision_as_it_does_for_torchs_convolution():
    layer = PenalisedConv2d(4, 8, 3, padding=1)
    images = torch.randn(2, 4, 5, 5, requires_grad=True)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        output = layer(images)
    output.float().sum().backward()
    assert output.dtype == torch.bfloat16
    assert layer.weight.grad.dtype == layer.bias.grad.dtype == images.grad.dtype == torch.float32
