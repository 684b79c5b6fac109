"""The training of a small network: AdamW, its learning rate in one cycle."""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from lungsynth.progress import Progress


def fit(
    network: nn.Module, loss: Callable[[], Tensor], *, steps: int, lr: float, weight_decay: float, title: str = ""
) -> None:
    """Train `network` in place for `steps` steps; `lr` is the peak of the cycle (Smith & Topin, arXiv 1708.07120).

    Args:
        loss: draws a batch and returns its loss, a scalar.
        title: of the progress bar; none without it.
    """
    optimiser = torch.optim.AdamW(network.parameters(), lr=lr, weight_decay=weight_decay)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, lr, steps + 1)
    for _ in Progress(range(steps), title, leave=False, disable=not title):
        value = loss()
        optimiser.zero_grad()
        value.backward()
        optimiser.step()
        schedule.step()
