"""The denoising objective of diffusion models (EDM, Karras et al., arXiv 2206.00364, section 5)."""

from dataclasses import dataclass
from typing import ClassVar, Protocol, runtime_checkable

import torch
from torch import Tensor

from lungsynth.generators.family import GeneratorConfig, family
from lungsynth.training.devices import autocast, average_gradients
from lungsynth.training.inputs import Inputs
from lungsynth.training.losses import DenoisingLoss, does_not_train
from lungsynth.training.state import TrainingState


@runtime_checkable
class Denoiser(Protocol):
    """A generator that learns to remove noise from images."""

    sigma_data: float
    """The standard deviation that it takes images to have."""

    def denoise(self, x: Tensor, sigma: Tensor, labels: Tensor, *, rng: torch.Generator | None = None) -> Tensor:
        """The expected images B×C×H×W, given `x`: images plus normal noise of standard deviation `sigma` B."""


@dataclass(frozen=True)
class Denoising:
    """The `Objective` of generators without a discriminator.

    Nothing is augmented: a diffusion model generates whatever it was shown, unless it is told how that was changed.
    """

    loss: DenoisingLoss

    statistics: ClassVar[tuple[str, ...]] = ("loss",)
    """A network that returns zero has a loss of about 1, at any noise."""

    def check(self, generator: GeneratorConfig) -> None:
        """See `Objective`."""
        if family(generator.family).discriminator is not None:
            raise does_not_train(self.loss, generator.family)

    def step(self, state: TrainingState, inputs: Inputs) -> dict[str, Tensor]:
        """See `Objective`."""
        generator, real, draws = state.generator, inputs.real, inputs.draws
        assert isinstance(generator, Denoiser)
        sigma = (draws.normal(len(real)) * self.loss.log_noise_std + self.loss.log_noise_mean).exp()
        noise = draws.normal(*real.shape) * sigma[:, None, None, None]
        size = inputs.config.micro_batch or len(real)
        parts = zip(*(numbers.split(size) for numbers in (real, inputs.labels, sigma, noise)), strict=True)
        loss_sum = torch.zeros((), device=inputs.fabric.device)

        state.generator_optimizer.zero_grad()
        for part_images, part_labels, part_sigma, part_noise in parts:
            with autocast(inputs.fabric, False):
                denoised = generator.denoise(part_images + part_noise, part_sigma, part_labels, rng=draws.local)
                errors = (denoised - part_images).square().mean(dim=(1, 2, 3))
                loss = (loss_weight(part_sigma, generator.sigma_data) * errors).sum() / len(real)
            loss.backward()
            loss_sum += loss.detach()
        average_gradients(generator, inputs.fabric)
        state.generator_optimizer.step()
        return {"loss": loss_sum}


def loss_weight(sigma: Tensor, sigma_data: float) -> Tensor:
    """Weight of the squared error at the noise `sigma`: errors at every noise level count alike (table 1)."""
    return (sigma.square() + sigma_data**2) / (sigma * sigma_data).square()
