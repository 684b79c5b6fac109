"""Networks of any family, one for each class, behind the interface of a single one."""

import torch
from torch import Tensor, nn

from lungsynth.generators.family import DiscriminatorNetwork, GeneratorConfig, GeneratorNetwork, family


class PerClass(GeneratorNetwork):
    """Generates each slice by the network of its class.

    Every network generates every slice, and that of the class is kept: selecting networks first could not be exported.
    """

    def __init__(self, config: GeneratorConfig) -> None:
        super().__init__()
        self.config = config
        self.networks = nn.ModuleList(new_network(config.of_one_class) for _ in config.classes)

    def forward(self, z: Tensor, labels: Tensor | None = None, rng: torch.Generator | None = None) -> Tensor:
        """Images B×C×H×W of `z` B×nz and `labels` int64 B."""
        assert labels is not None
        images: Tensor
        images, *others = (network(z, None, rng) for network in self.networks)
        for code, of_class in enumerate(others, start=1):
            images = torch.where((labels == code)[:, None, None, None], of_class, images)
        return images


class PerClassDiscriminator(DiscriminatorNetwork):
    """Scores each slice by the discriminator of its class."""

    def __init__(self, config: GeneratorConfig) -> None:
        super().__init__()
        self.config = config
        of_class = (new_discriminator(config.of_one_class) for _ in config.classes)
        self.networks = nn.ModuleList(filter(None, of_class))

    def forward(self, images: Tensor, labels: Tensor) -> Tensor:
        """Scores B of `images` B×C×H×W said to be of the classes `labels` int64 B."""
        of_each = torch.stack([network(images, torch.zeros_like(labels)) for network in self.networks])
        return of_each.gather(0, labels[None])[0]


def new_discriminator(config: GeneratorConfig) -> DiscriminatorNetwork | None:
    """A new discriminator of this architecture; None for a diffusion model."""
    build = family(config.family).discriminator
    if build is None:
        return None
    return PerClassDiscriminator(config) if config.per_class else build(config)


def new_network(config: GeneratorConfig) -> GeneratorNetwork:
    """A new generator of this architecture."""
    return PerClass(config) if config.per_class else family(config.family).generator(config)
