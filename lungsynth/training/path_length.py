"""The path length penalty in a training step (StyleGAN2, arXiv 1912.04958, section 3.2)."""

from typing import Protocol, runtime_checkable

import torch
from lightning_fabric import Fabric
from torch import Tensor

from lungsynth.errors import LungsynthError
from lungsynth.training.devices import mean_of_processes
from lungsynth.training.losses import AdversarialLoss, path_length_penalty, path_lengths
from lungsynth.training.state import TrainingState

DECAY = 0.01  # of the running mean, in each step with a penalty; StyleGAN2, appendix B
SHRINK = 2  # one of so many images is drawn again for the penalty; StyleGAN2, appendix B


@runtime_checkable
class Styled(Protocol):
    """A generator that maps latents to styles w B×layers×n, and styles to images."""

    def mapping(self, z: Tensor, labels: Tensor | None = None, rng: torch.Generator | None = None) -> Tensor:
        """Styles B×layers×n."""

    def synthesis(self, styles: Tensor, rng: torch.Generator | None = None) -> Tensor:
        """Images B×C×H×W."""


def add_path_length(
    state: TrainingState,
    passes: list[tuple[Tensor, Tensor]],
    loss: AdversarialLoss,
    *,
    rng: torch.Generator,
    fabric: Fabric,
) -> None:
    """Add the penalty's gradient to the generator's; `passes` are latents B×nz and class codes B.

    The penalty's weight is multiplied by the steps from one penalty to the next. The running mean starts as the plain
    mean of the lengths so far. The paper starts it at 0, which for some hundred steps pulls paths towards zero length
    far more strongly than the discriminator's gradient.

    Raises:
        LungsynthError: the generator has no styles.
    """
    generator, mean = state.generator, state.scalars["path_mean"]
    if not isinstance(generator, Styled):
        raise LungsynthError(f"training.loss.path_length: {generator.config.family} has no styles; set it to 0")
    weight = loss.path_every * loss.path_length
    pull = max(DECAY, 1 / (state.step // loss.path_every + 1))
    batch, batch_mean = sum(len(latents) for latents, _ in passes), torch.zeros_like(mean)
    for latents, labels in passes:
        count = max(1, len(latents) // SHRINK)
        styles = generator.mapping(latents[:count], labels[:count], rng)
        images = generator.synthesis(styles, rng)
        lengths = path_lengths(images, styles, torch.randn(images.shape, generator=rng, device=images.device))
        pass_mean, pass_weight = lengths.detach().mean(), len(latents) / batch
        (weight * pass_weight * path_length_penalty(lengths, mean.lerp(pass_mean, pull))).backward()
        batch_mean += pass_mean * pass_weight
    mean.lerp_(mean_of_processes(batch_mean, fabric), pull)
