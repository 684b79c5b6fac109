"""The adversarial method: pure functions of scores (B, higher is more real).

`hinge`: Lim and Ye, arXiv 1705.02894. `bce`: the non-saturating loss of DCGAN (Goodfellow et al., arXiv 1406.2661).
"""

from typing import Literal

from torch import Tensor
from torch.nn.functional import relu, softplus

Loss = Literal["hinge", "bce"]


def discriminator_loss(kind: Loss, real: Tensor, fake: Tensor) -> Tensor:
    """Scalar to minimise by the discriminator, from its scores of real and of generated slices."""
    if kind == "hinge":
        return relu(1 - real).mean() + relu(1 + fake).mean()
    return softplus(-real).mean() + softplus(fake).mean()


def generator_loss(kind: Loss, fake: Tensor) -> Tensor:
    """Scalar to minimise by the generator, from the scores of its slices."""
    if kind == "hinge":
        return -fake.mean()
    return softplus(-fake).mean()
