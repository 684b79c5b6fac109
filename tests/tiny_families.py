"""An untrained generator of each family, so small that it draws in milliseconds."""

from pathlib import Path

import torch

from lungsynth.dataset.vocabulary import CLASSES
from lungsynth.generators.family import GeneratorConfig
from lungsynth.generators.package import GeneratorCard, GeneratorPackage
from lungsynth.generators.per_class import new_discriminator, new_network

TINY: dict[str, dict[str, object]] = {
    "dcgan": {"family": "dcgan", "nz": 16, "ngf": 4, "ndf": 4},
    "dcgan per class": {"family": "dcgan", "nz": 16, "ngf": 4, "ndf": 4, "per_class": True},
    "pggan": {"family": "pggan", "nz": 16, "width": 16, "fmap_base": 256},
    "r3gan": {"family": "r3gan", "nz": 8, "channel_base": 512, "channel_max": 32, "group": 8, "blocks": 1},
    "stylegan2": {
        "family": "stylegan2",
        "nz": 16,
        "nw": 16,
        "mapping_layers": 2,
        "channel_base": 256,
        "channel_max": 8,
    },
    "edm": {"family": "edm", "width": 8, "multipliers": (1, 1), "blocks": 1, "steps": 2},
}


def tiny_package(name: str, folder: Path) -> GeneratorPackage:
    """The generator `name` of `TINY`, of 32 pixels and two classes, with weights that draw more than grey."""
    config = GeneratorConfig.model_validate({"size": 32, "classes": CLASSES} | TINY[name])
    with torch.random.fork_rng():
        torch.manual_seed(7)
        generator, discriminator = new_network(config).eval(), new_discriminator(config)
        with torch.no_grad():
            for parameter in generator.parameters():
                parameter.add_(0.1 * torch.randn(parameter.shape))
    card = GeneratorCard(generator=config, window_hu=(-1350, 150))
    return GeneratorPackage.write(folder, generator, card, discriminator=discriminator)
