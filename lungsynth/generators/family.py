"""What a family of generators is, and how one is found.

A family is a module of this package that defines `FAMILY`, and is named after the module. A run file selects it by
`generator: {family: NAME, ...}`; training, sampling and the registry need no other code for it.
"""

import pkgutil
import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from importlib import import_module
from importlib.machinery import SourceFileLoader
from typing import Any, Self

import torch
from pydantic import BaseModel, Field, JsonValue, ModelWrapValidatorHandler, model_validator
from torch import Tensor, nn

from lungsynth import generators
from lungsynth.config import Config
from lungsynth.dataset.vocabulary import CLASSES
from lungsynth.errors import LungsynthError

DEFAULT = "dcgan"
"""The family of a run file that names none."""


class GeneratorConfig(Config):
    """Keys of every family's architecture. Validating a mapping gives the configuration class of its `family`."""

    family: str = DEFAULT
    """Name of the family, which decides what else stands here."""
    size: int = Field(ge=4, description="pixels; height and width of a slice, a power of two")
    nz: int = Field(ge=1, description="numbers in the latent vector")
    masks: bool = Field(default=False, description="generate a mask with each slice, as one more channel")
    classes: tuple[str, ...] = Field(
        default=CLASSES, description="names in the order of their codes; none: unconditional"
    )
    per_class: bool = Field(
        default=False, description="a network of its own for each class, trained one after the other, not one for all"
    )

    def __new__(cls, **fields: Any) -> "GeneratorConfig":
        """Make `GeneratorConfig(family=...)` an instance of the family's class: ZenML builds step parameters so."""
        if cls is GeneratorConfig and fields:
            return object.__new__(family(str(fields.get("family", DEFAULT))).config)
        return object.__new__(cls)

    @classmethod
    def for_content(cls, content: Mapping[str, Any]) -> type[BaseModel]:
        """The configuration of the family that `content` names."""
        name = content.get("family", DEFAULT)
        return family(name).config if cls is GeneratorConfig and name in families() else cls

    @property
    def planes(self) -> int:
        """Channels of what the networks generate and score: the slice and, with `masks`, its mask after it."""
        return 1 + self.masks

    @property
    def of_one_class(self) -> Self:
        """The architecture of each class's network, with `per_class`."""
        return self.model_copy(update={"classes": (), "per_class": False})

    @model_validator(mode="after")
    def _classes_to_part(self) -> Self:
        if self.per_class and not self.classes:
            raise ValueError("per_class needs classes")
        return self

    @model_validator(mode="wrap")
    @classmethod
    def _of_its_family(cls, value: Any, handler: ModelWrapValidatorHandler[Self]) -> Self:
        if cls is not GeneratorConfig or not isinstance(value, Mapping):
            return handler(value)
        try:
            own: Any = family(str(value.get("family", DEFAULT))).config
        except LungsynthError as error:
            raise ValueError(str(error)) from None
        chosen: Self = own.model_validate(value)
        return chosen


class GeneratorNetwork(nn.Module, ABC):
    """Base of the networks that generate slices."""

    config: GeneratorConfig

    @abstractmethod
    def forward(self, z: Tensor, labels: Tensor | None = None, rng: torch.Generator | None = None) -> Tensor:
        """Images B×C×H×W, about [-1, 1], of latents `z` B×nz, standard normal, and class codes `labels` int64 B.

        C are the configuration's `planes`; a mask is -1 outside and 1 inside.

        Without `rng` the images depend on `z` and `labels` alone. Training passes `rng`, on the network's device, for
        a family's own randomness (style mixing, noise).
        """

    def grow(self, level: float) -> None:
        """Generate 2^⌈level⌉ pixels a side, faded in by the fraction of `level`; a new network is fully grown."""
        raise LungsynthError(f"{self.config.family} does not grow: leave training.growth out")


class DiscriminatorNetwork(nn.Module, ABC):
    """Base of the networks that tell real slices from synthetic ones."""

    config: GeneratorConfig

    @abstractmethod
    def forward(self, images: Tensor, labels: Tensor) -> Tensor:
        """Scores B, higher is more real, of `images` B×C×H×W said to be of the classes `labels` int64 B."""

    def grow(self, level: float) -> None:
        """See `GeneratorNetwork.grow`."""
        raise LungsynthError(f"{self.config.family} does not grow: leave training.growth out")


@dataclass(frozen=True)
class Family:
    """The parts of a family. One without a discriminator is a diffusion model: its generator has a `denoise`."""

    config: type[GeneratorConfig]
    generator: Callable[[Any], GeneratorNetwork]
    discriminator: Callable[[Any], DiscriminatorNetwork] | None
    recipe: Mapping[str, JsonValue] = field(default_factory=dict)
    """The published settings of `training`, in the form of a run file; a run file's own settings override them."""


def family(name: str) -> Family:
    """The family of this name.

    Raises:
        LungsynthError: there is none.
    """
    if name in families():
        result: Family = import_module(f"{generators.__name__}.{name}").FAMILY
        return result
    raise LungsynthError(f"{name!r} is no family of generators; there are {', '.join(families())}")


def families() -> tuple[str, ...]:
    """Names of all families, in alphabetical order."""
    modules = (module for module in pkgutil.iter_modules(generators.__path__) if not module.ispkg)
    return tuple(sorted(module.name for module in modules if _defines_family(module)))


def _defines_family(module: pkgutil.ModuleInfo) -> bool:
    # The source is searched, since importing every family would slow down each start of the program.
    spec = module.module_finder.find_spec(module.name, None)
    source = spec.loader.get_source(module.name) if spec and isinstance(spec.loader, SourceFileLoader) else None
    return re.search(r"^FAMILY\b", source or "", re.MULTILINE) is not None
