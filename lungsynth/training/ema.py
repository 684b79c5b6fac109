"""Exponential moving average of a network, which samples better than the network does (arXiv 1806.04498)."""

import copy
from typing import TypeVar

import torch
from torch import Tensor, nn

Network = TypeVar("Network", bound=nn.Module)


def average_of(network: Network) -> Network:
    """A copy of `network` for its average, in evaluation mode and without gradients."""
    return copy.deepcopy(network).eval().requires_grad_(False)


def decay(half_life_kimg: float, warm_up: float, shown_kimg: float, *, step_kimg: float) -> float:
    """The weight of the old average in one step of `step_kimg`, after `shown_kimg`.

    The half-life is at most `warm_up` times `shown_kimg`, so that the initial weights are soon forgotten.
    """
    half_life = min(half_life_kimg, warm_up * shown_kimg)
    return 0.5 ** (step_kimg / half_life) if half_life > 0 else 0.0


@torch.no_grad()
def update(average: nn.Module, network: nn.Module, keep: float) -> None:
    """Move `average` towards `network`, batch-norm statistics included: `keep`·average + (1 - `keep`)·network."""
    mine, theirs = _tensors(average), _tensors(network)
    torch._foreach_lerp_(mine[True], theirs[True], 1 - keep)
    for own, other in zip(mine[False], theirs[False], strict=True):
        own.copy_(other)


def _tensors(network: nn.Module) -> dict[bool, list[Tensor]]:
    """The state of a network, by whether it is of floating point."""
    parts: dict[bool, list[Tensor]] = {True: [], False: []}
    for tensor in network.state_dict().values():
        parts[tensor.is_floating_point()].append(tensor)
    return parts
