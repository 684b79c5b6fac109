"""The adversarial method: the non-saturating loss of DCGAN (arXiv 1406.2661) and a gradient penalty.

Pure functions of scores, B, where higher is more real.
"""

import torch
from torch import Tensor
from torch.nn.functional import softplus


def discriminator_loss(real: Tensor, fake: Tensor) -> Tensor:
    """Scalar to minimise by the discriminator: binary cross-entropy of its scores of real and of generated slices."""
    return softplus(-real).mean() + softplus(fake).mean()


def generator_loss(fake: Tensor) -> Tensor:
    """Scalar to minimise by the generator: cross-entropy of its slices' scores with the answer "real"."""
    return softplus(-fake).mean()


def r1_penalty(scores: Tensor, images: Tensor) -> Tensor:
    """Half the mean squared norm of the scores' gradient at real `images` B×C×H×W (Mescheder, arXiv 1801.04406)."""
    (gradient,) = torch.autograd.grad(scores.sum(), images, create_graph=True)
    return gradient.square().sum(dim=(1, 2, 3)).mean() / 2
