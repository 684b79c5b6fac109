"""A network of its own for each class, of any family, behind the interface of one."""

import torch
from torch import Tensor, nn

from lungsynth.generators.family import GeneratorConfig, GeneratorNetwork, family


class PerClass(GeneratorNetwork):
    """Draws each slice by the network of its class.

    Every network draws every slice, and one of them is kept: a choice by the labels before could not be exported.
    """

    def __init__(self, config: GeneratorConfig) -> None:
        super().__init__()
        self.config = config
        self.networks = nn.ModuleList(new_network(config.of_one_class) for _ in config.classes)

    def forward(self, z: Tensor, labels: Tensor | None = None, rng: torch.Generator | None = None) -> Tensor:
        """Images B×C×H×W of `z` B×nz and `labels` int64 B."""
        assert labels is not None
        first, *others = (network(z, None, rng) for network in self.networks)
        for code, images in enumerate(others, start=1):
            first = torch.where((labels == code)[:, None, None, None], images, first)
        return first


def new_network(config: GeneratorConfig) -> GeneratorNetwork:
    """A new generator of this architecture."""
    return PerClass(config) if config.per_class else family(config.family).generator(config)
