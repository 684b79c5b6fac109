"""The run file's section `loss`; losses of scores B (higher is more real) and gradient penalties, as pure functions."""

import math
from collections.abc import Callable
from typing import Annotated, ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor
from torch.nn.functional import softplus

from lungsynth.config import Config
from lungsynth.errors import LungsynthError
from lungsynth.training.schedule import Scheduled


class AdversarialLoss(Config):
    """A loss and the terms that go with it; a term of weight 0 is not computed."""

    augments: ClassVar[bool] = True
    """Whether slices may be augmented."""

    kind: Literal["logistic", "relativistic", "wasserstein"] = "logistic"
    """The loss: DCGAN and StyleGAN2 `logistic`, R3GAN `relativistic`, PGGAN `wasserstein`."""
    r1_gamma: Scheduled = Field(
        default=0.1,
        description="weight of `zero_centred_penalty` at real slices [ADA's automatic setting at 128 px and a batch "
        "of 32]",
    )
    r2_gamma: Scheduled = Field(
        default=0.0, description="weight of `zero_centred_penalty` at synthetic slices [chosen here: off; R3GAN has it]"
    )
    slope: float = Field(default=0, ge=0, description="weight of `slope_penalty` [chosen here: off; WGAN-GP: 10]")
    penalty_every: int = Field(
        default=16, ge=1, description="steps from one penalty to the next, which makes up for it in weight [StyleGAN2]"
    )
    drift: float = Field(
        default=0, ge=0, description="weight of the squared scores of real slices [chosen here: off; PGGAN: 0.001]"
    )
    path_length: float = Field(
        default=0, ge=0, description="weight of the path length penalty [chosen here: off; StyleGAN2: 2]"
    )
    path_every: int = Field(default=4, ge=1, description="steps from one path length penalty to the next [StyleGAN2]")


class DenoisingLoss(Config):
    """EDM's loss (arXiv 2206.00364, table 1): which noise levels a diffusion model trains on."""

    augments: ClassVar[bool] = False

    kind: Literal["denoising"] = "denoising"
    log_noise_mean: float = Field(
        default=-1.2, description="natural logarithm of the noise, its mean, for images in [-1, 1] [EDM, table 1]"
    )
    log_noise_std: float = Field(
        default=1.2, gt=0, description="natural logarithm of the noise, its standard deviation [EDM, table 1]"
    )


Loss = Annotated[AdversarialLoss | DenoisingLoss, Field(discriminator="kind")]


def does_not_train(loss: Loss, family: str) -> LungsynthError:
    """The error where the generators of `family` cannot minimise `loss`."""
    return LungsynthError(f"training.loss.kind is {loss.kind}, which does not train {family}; leave it out")


def logistic_discriminator(real: Tensor, fake: Tensor) -> Tensor:
    """Binary cross-entropy: real slices are real, synthetic ones are not (arXiv 1406.2661)."""
    return softplus(-real).mean() + softplus(fake).mean()


def logistic_generator(fake: Tensor) -> Tensor:
    """The non-saturating form: synthetic slices should pass for real (arXiv 1406.2661)."""
    return softplus(-fake).mean()


def relativistic_discriminator(real: Tensor, fake: Tensor) -> Tensor:
    """Each real slice should look more real than the synthetic one beside it (R3GAN, arXiv 2501.05441, eq. 2)."""
    return softplus(fake - real).mean()


def relativistic_generator(real: Tensor, fake: Tensor) -> Tensor:
    """Each synthetic slice should look more real than the real one beside it."""
    return softplus(real - fake).mean()


def wasserstein_discriminator(real: Tensor, fake: Tensor) -> Tensor:
    """Raise the scores of real slices above those of synthetic ones (arXiv 1701.07875)."""
    return fake.mean() - real.mean()


def wasserstein_generator(fake: Tensor) -> Tensor:
    """Raise the scores of synthetic slices."""
    return -fake.mean()


DISCRIMINATOR_LOSSES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "logistic": logistic_discriminator,
    "relativistic": relativistic_discriminator,
    "wasserstein": wasserstein_discriminator,
}
"""(real scores B, fake scores B) -> scalar to minimise."""
GENERATOR_LOSSES: dict[str, Callable[[Tensor], Tensor]] = {
    "logistic": logistic_generator,
    "wasserstein": wasserstein_generator,
}
"""(fake scores B) -> scalar to minimise. `relativistic_generator` compares with real scores as well."""


def zero_centred_penalty(scores: Tensor, images: Tensor) -> Tensor:
    """Half the mean squared norm of the scores' gradient at `images` B×C×H×W: R1 and R2 (arXiv 1801.04406)."""
    (gradient,) = torch.autograd.grad(scores.sum(), images, create_graph=True)
    return gradient.square().sum(dim=(1, 2, 3)).mean() / 2


def path_lengths(images: Tensor, styles: Tensor, noise: Tensor) -> Tensor:
    """How far the `images` B×C×H×W of `styles` B×layers×n move with these, a number for each image.

    ‖Jᵀy‖ of StyleGAN2 (arXiv 1912.04958, eq. 4) at `noise` y, standard normal in the shape of `images` and divided by
    √(H·W) here: the root mean square over the layers.
    """
    y = noise / math.sqrt(noise[0, 0].numel())
    (gradient,) = torch.autograd.grad((images * y).sum(), styles, create_graph=True)
    return gradient.square().sum(dim=2).mean(dim=1).sqrt()


def path_length_penalty(lengths: Tensor, mean: Tensor) -> Tensor:
    """Mean squared distance of `lengths` B from `mean`, a scalar (arXiv 1912.04958, eq. 4)."""
    return (lengths - mean).square().mean()


def slope_penalty(score: Callable[[Tensor], Tensor], real: Tensor, fake: Tensor, *, mix: Tensor) -> Tensor:
    """Mean squared distance from 1 of the slope of `score` at blends of slices (WGAN-GP, arXiv 1704.00028).

    `mix` B is the weight of the real slice in each blend.
    """
    between = torch.lerp(fake, real, mix[:, None, None, None]).requires_grad_()
    (gradient,) = torch.autograd.grad(score(between).sum(), between, create_graph=True)
    result: Tensor = (torch.linalg.vector_norm(gradient, dim=(1, 2, 3)) - 1).square().mean()
    return result
