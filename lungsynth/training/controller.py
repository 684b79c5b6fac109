"""The adaptive controller of augmentation (ADA, Karras et al., arXiv 2006.06676, section 3).

Augmentation should be as weak as the data allow. The discriminator itself shows how strong that is: one that has learnt
its few real slices by heart tells them all from synthetic ones.
"""

import torch
from lightning_fabric import Fabric
from torch import Tensor

from lungsynth.training.augment import AugmentConfig
from lungsynth.training.devices import mean_of_processes


def new_scalars(device: torch.device) -> dict[str, Tensor]:
    """What the controller keeps from step to step: `p`, and the `sum` of r_t since `p` last changed."""
    return {name: torch.zeros((), device=device) for name in ("p", "sum")}


def adjust(
    scalars: dict[str, Tensor], r_t: Tensor, config: AugmentConfig, *, batch: int, step: int, fabric: Fabric
) -> None:
    """Adjust `p` in `scalars` after step number `step` (from 0), which showed `batch` real slices in all processes.

    Every `config.every` steps p rises by a fixed amount where the mean of `r_t` (a scalar on the device, see
    `mean_signs`) was above `config.target`, and falls by it where it was below; it stays between 0 and `config.limit`.
    """
    assert config.target is not None
    # Over all processes in each step, so that any process's checkpoint holds the whole.
    scalars["sum"] += mean_of_processes(r_t.clone(), fabric)
    if (step + 1) % config.every == 0:
        amount = batch * config.every / (config.adjust_kimg * 1000)
        above = scalars["sum"] / config.every - config.target
        scalars["p"].add_(above.sign() * amount).clamp_(0, config.limit)
        scalars["sum"].zero_()


def mean_signs(real: Tensor, fake: Tensor, kind: str) -> Tensor:
    """Mean signs of the scores B of real slices and of synthetic ones: two numbers from -1 to 1.

    The first is ADA's r_t: 0 where the discriminator guesses, 1 where it recognises every real slice. Only the logistic
    loss gives a score of zero a meaning. The other losses determine scores up to a constant (with a drift term, the
    real ones have a mean of zero, so that their signs say nothing). For these each real slice is compared with the
    synthetic one at its place in the batch: r_t is twice the fraction of pairs in the right order, less 1. That is the
    stricter measure: it is 0.77 where the signs give 0.6, if scores are normally distributed.
    """
    margins = (real, fake) if kind == "logistic" else (real - fake, fake - real)
    return torch.stack([margin.detach().sign().mean() for margin in margins])
