"""The adaptive controller of augmentation (ADA, Karras et al., arXiv 2006.06676, section 3).

Augmentation should be as weak as the data allow. The discriminator itself shows how strong that is: one that has learnt
its few real slices by heart tells them all from synthetic ones.
"""

import torch
from lightning_fabric import Fabric
from torch import Tensor

from lungsynth.training.augment import AugmentConfig
from lungsynth.training.devices import mean_of_processes


def new_memory(device: torch.device) -> dict[str, Tensor]:
    """What the controller keeps from step to step, scalars: `p`, and the sum of r_t since its last change."""
    return {name: torch.zeros((), device=device) for name in ("p", "sum")}


def adjust(
    memory: dict[str, Tensor], r_t: Tensor, config: AugmentConfig, batch: int, step: int, fabric: Fabric
) -> None:
    """Move `p` in `memory`, after the step number `step` (from 0) that showed `batch` real slices in all processes.

    Every `config.every` steps p rises by a fixed amount where the mean of `r_t` (a scalar on the device, see
    `mean_signs`) was above `config.target`, and falls by it where it was below; it stays between 0 and `config.limit`.
    """
    assert config.target is not None
    # Over all processes in each step, so that any process's checkpoint holds the whole.
    memory["sum"] += mean_of_processes(r_t.clone(), fabric)
    if (step + 1) % config.every == 0:
        amount = batch * config.every / (config.adjust_kimg * 1000)
        above = memory["sum"] / config.every - config.target
        memory["p"].add_(above.sign() * amount).clamp_(0, config.limit)
        memory["sum"].zero_()


def mean_signs(real: Tensor, fake: Tensor, kind: str) -> Tensor:
    """How surely the scores B of real slices, and of the synthetic ones beside them, show which is which: 2 mean signs.

    The first is ADA's r_t: 0 where the discriminator guesses, 1 where it tells every real slice. A sign takes a zero
    that means something, which only the logistic loss gives to scores. The others leave them free up to a constant
    (where a drift term brings the real ones to zero, their signs say nothing at all). There each slice is compared with
    the one beside it, as the relativistic loss does: r_t is twice the share of pairs in the right order, less 1. That
    is the stricter measure: it is 0.77 where the signs give 0.6, if scores are normally distributed.
    """
    margins = (real, fake) if kind == "logistic" else (real - fake, fake - real)
    return torch.stack([margin.detach().sign().mean() for margin in margins])
