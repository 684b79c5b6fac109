"""One step of a diffusion model (EDM, Karras et al., arXiv 2206.00364, section 5)."""

from typing import Protocol, runtime_checkable

import torch
from lightning_fabric import Fabric
from torch import Tensor

from lungsynth.training.config import TrainingConfig
from lungsynth.training.devices import autocast, average_gradients
from lungsynth.training.draws import Draws
from lungsynth.training.losses import DenoisingLoss
from lungsynth.training.state import TrainingState

STATISTICS = ("loss",)
"""What a step reports. The loss of a network that gives zero is about 1, at any noise."""


@runtime_checkable
class Denoiser(Protocol):
    """A generator that learns to take noise off images."""

    sigma_data: float
    """The standard deviation that it takes images to have."""

    def denoise(self, x: Tensor, sigma: Tensor, labels: Tensor, rng: torch.Generator | None = None) -> Tensor:
        """The images B×C×H×W to expect behind `x`, which are images plus `sigma` B times normal noise."""


def denoising_step(
    state: TrainingState, real: Tensor, labels: Tensor, draws: Draws, config: TrainingConfig, fabric: Fabric
) -> Tensor:
    """Train the generator on `real` B×C×H×W in [-1, 1] of the classes `labels`; gives `STATISTICS`, on the device.

    Nothing is augmented: what a diffusion model is shown, it draws, unless it is told how it was changed.
    """
    generator, loss = state.generator, config.loss
    assert isinstance(loss, DenoisingLoss)
    assert isinstance(generator, Denoiser)
    sigma = (draws.normal(len(real)) * loss.log_noise_std + loss.log_noise_mean).exp()
    noise = draws.normal(*real.shape) * sigma[:, None, None, None]
    size = config.micro_batch or len(real)
    parts = list(zip(*(numbers.split(size) for numbers in (real, labels, sigma, noise)), strict=True))
    statistics = torch.zeros(len(STATISTICS), device=fabric.device)

    state.generator_optimizer.zero_grad()
    for images, codes, sigmas, noises in parts:
        with autocast(fabric, False):
            found = generator.denoise(images + noises, sigmas, codes, draws.local)
            errors = (found - images).square().mean(dim=(1, 2, 3))
            total = (loss_weight(sigmas, generator.sigma_data) * errors).sum() / len(real)
        total.backward()
        statistics[0] += total.detach()
    average_gradients(generator, fabric)
    state.generator_optimizer.step()
    return statistics


def loss_weight(sigma: Tensor, sigma_data: float) -> Tensor:
    """Weight of the squared error at the noise `sigma`, which makes errors at all noise count alike (table 1)."""
    return (sigma.square() + sigma_data**2) / (sigma * sigma_data).square()
