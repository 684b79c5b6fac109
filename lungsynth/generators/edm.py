"""EDM (Karras et al., arXiv 2206.00364): a diffusion model, sampled in a few deterministic steps.

The only family without a discriminator. It is conditioned on labels, without guidance.
"""

from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise
from typing import Any, Literal

import torch
from pydantic import Field, model_validator
from torch import Tensor

from lungsynth.generators.edm_unet import Unet, UnetConfig
from lungsynth.generators.family import Family, GeneratorNetwork


class EdmConfig(UnetConfig):
    """Architecture and sampler. A latent vector is the noise that sampling starts from: a number for each pixel."""

    family: Literal["edm"] = "edm"
    nz: int = Field(
        default=64**2,
        ge=1,
        description="numbers in the latent vector, one for each pixel; left out: size², twice as many with masks [EDM]",
    )
    sigma_data: float = Field(
        default=0.5,
        gt=0,
        description="grey values; standard deviation that images in [-1, 1] are taken to have [EDM, table 1]",
    )
    steps: int = Field(
        default=18,
        ge=2,
        description="steps of the sampler, each but the last of two passes of the network [EDM, table 1, CIFAR-10]",
    )
    sigma_min: float = Field(
        default=0.002,
        gt=0,
        description="grey values; standard deviation of the noise before the last step, as sigma_data [EDM, table 1]",
    )
    sigma_max: float = Field(
        default=80,
        gt=0,
        description="grey values; standard deviation of the noise at the start, as sigma_data [EDM, table 1]",
    )
    rho: float = Field(
        default=7, ge=1, description="exponent, no unit; the higher, the more steps at little noise [EDM, table 1]"
    )

    @model_validator(mode="before")
    @classmethod
    def _one_number_a_pixel(cls, value: Any) -> Any:
        if not isinstance(value, Mapping):
            return value
        size, masks = (value.get(name, cls.model_fields[name].default) for name in ("size", "masks"))
        if isinstance(size, int) and isinstance(masks, int):  # else their own errors say what is wrong
            return {"nz": (1 + masks) * size**2, **value}
        return value

    @model_validator(mode="after")
    def _consistent(self) -> "EdmConfig":
        pixels = self.planes * self.size**2
        if self.nz != pixels:
            raise ValueError(
                f"nz is {self.nz}, but edm starts from one number for each pixel, channels·size² = {pixels}: "
                "leave nz out"
            )
        if self.sigma_min >= self.sigma_max:
            raise ValueError(f"sigma_min, {self.sigma_min:g}, must be less than sigma_max, {self.sigma_max:g}")
        return self


class Generator(GeneratorNetwork):
    """A denoiser, and a sampler that uses it to turn noise into slices."""

    def __init__(self, config: EdmConfig) -> None:
        super().__init__()
        self.config: EdmConfig = config
        self.sigma_data = config.sigma_data
        self.sigmas = noise_levels(config.steps, config.sigma_min, config.sigma_max, rho=config.rho)
        self.network = Unet(config)

    def forward(self, z: Tensor, labels: Tensor | None = None, rng: torch.Generator | None = None) -> Tensor:
        """Images B×C×H×W, about [-1, 1], of `z` B×nz and `labels` int64 B, which only classes need; nothing is random.

        One call is 2·`steps` - 1 passes of the network.
        """
        size = self.config.size
        noise = z.view(-1, self.config.planes, size, size) * self.sigmas[0]
        return solve(lambda x, sigma: self.denoise(x, x.new_full(x.shape[:1], sigma), labels), noise, self.sigmas)

    def denoise(self, x: Tensor, sigma: Tensor, labels: Tensor | None, *, rng: torch.Generator | None = None) -> Tensor:
        """The expected images B×C×H×W, given `x`: images plus normal noise of standard deviation `sigma` B.

        D of equation 7. With `rng`, as in training, features are dropped at random.
        """
        c_skip, c_out, c_in, c_noise = preconditioning(sigma, self.sigma_data)
        c_skip, c_out, c_in = (c[:, None, None, None] for c in (c_skip, c_out, c_in))
        result: Tensor = c_skip * x + c_out * self.network(c_in * x, c_noise, labels, rng).float()
        return result


def preconditioning(sigma: Tensor, sigma_data: float) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """c_skip, c_out, c_in and c_noise at the noise `sigma`, each in the shape of `sigma` (table 1, EDM's column).

    They give the network's input and target a variance of 1 at any noise (appendix B.6).
    """
    total = sigma.square() + sigma_data**2
    return sigma_data**2 / total, sigma * sigma_data / total.sqrt(), 1 / total.sqrt(), sigma.log() / 4


def noise_levels(steps: int, sigma_min: float, sigma_max: float, *, rho: float) -> list[float]:
    """The sampler's noise levels: `steps` levels from `sigma_max` to `sigma_min`, then 0 (equation 5)."""
    first, last = sigma_max ** (1 / rho), sigma_min ** (1 / rho)
    return [(first + step / (steps - 1) * (last - first)) ** rho for step in range(steps)] + [0.0]


def solve(denoise: Callable[[Tensor, float], Tensor], x: Tensor, sigmas: Sequence[float]) -> Tensor:
    """Images from noise `x` of standard deviation `sigmas[0]`, by Heun's method along `sigmas`, the last of which is 0.

    Algorithm 1, for noise that equals time. `denoise` gives the expected images for noisy images at a noise level.
    """
    for now, after in pairwise(sigmas):
        slope = (x - denoise(x, now)) / now
        ahead = x + (after - now) * slope
        if after:
            slope = (slope + (ahead - denoise(ahead, after)) / after) / 2
        x = x + (after - now) * slope
    return x


# The paper's training for 64 px (table 7, FFHQ and AFHQv2), without its learning rate warm-up of 10 million slices, and
# without its augmentation: a diffusion model learns to generate augmented slices, unless the network is told of the
# augmentation. Looks are rare, since a look at 500 slices costs as much as training on 6,000.
FAMILY = Family(
    config=EdmConfig,
    generator=Generator,
    discriminator=None,
    recipe={
        "loss": {"kind": "denoising"},
        "generator_lr": 2e-4,
        "beta1": 0.9,
        "beta2": 0.999,
        "batch": 256,
        "micro_batch": 64,
        "ema_kimg": 500,
        "ema_warm_up": 0.05,
        "snapshot_kimg": 50,
        "augment": {"translate": 0},
        "monitor": {"every_kimg": 100},
    },
)
