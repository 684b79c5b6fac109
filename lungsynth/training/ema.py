"""Exponential moving average of a network, which samples better than the network does (arXiv 1806.04498)."""

import copy
from typing import TypeVar

import torch
from torch import nn

Network = TypeVar("Network", bound=nn.Module)

WARM_UP = 0.2
"""The half-life is at most this share of what has been shown, so that the first weights are soon forgotten (EDM)."""


def average_of(network: Network) -> Network:
    """A copy of `network`, in evaluation mode and without gradients, to hold its average."""
    return copy.deepcopy(network).eval().requires_grad_(False)


def decay(half_life_kimg: float, shown_kimg: float, step_kimg: float) -> float:
    """The factor that the average keeps in one step of `step_kimg`, after `shown_kimg`."""
    return 0.5 ** (step_kimg / min(half_life_kimg, WARM_UP * shown_kimg))


@torch.no_grad()
def update(average: nn.Module, network: nn.Module, keep: float) -> None:
    """Move `average` towards `network`, batch-norm statistics included: `keep`·average + (1 - `keep`)·network."""
    for mine, theirs in zip(average.state_dict().values(), network.state_dict().values(), strict=True):
        if mine.is_floating_point():
            mine.lerp_(theirs, 1 - keep)
        else:
            mine.copy_(theirs)
