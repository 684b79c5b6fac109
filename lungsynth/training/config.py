"""How a generator is trained. One kimg is a thousand real slices shown."""

from collections.abc import Mapping
from typing import Any, Literal, Self

from pydantic import Field, SerializeAsAny, ValidationError, field_validator, model_validator

from lungsynth.config import Config, Seed
from lungsynth.errors import LungsynthError
from lungsynth.generators.family import GeneratorConfig, family
from lungsynth.generators.layers import GROUP
from lungsynth.training.augment import AugmentConfig
from lungsynth.training.growth import GrowthConfig
from lungsynth.training.losses import AdversarialLoss, Loss
from lungsynth.training.monitor import MonitorConfig
from lungsynth.training.schedule import Scheduled


class TrainingConfig(Config):
    """One run. Defaults are first those of the family's recipe, see `with_recipe`, then those below."""

    kimg: float = Field(default=40, gt=0, description="length, thousands of real slices shown")
    batch: int = Field(default=32, ge=GROUP, description="slices a step, over all processes; a multiple of 4")
    loss: Loss = AdversarialLoss()
    growth: GrowthConfig | None = Field(
        default=None, description="from a few pixels to full size; none: full size at once"
    )
    generator_lr: Scheduled = Field(default=1e-3, description="Adam step size")
    discriminator_lr: Scheduled = Field(default=1e-3, description="Adam step size")
    beta1: float = Field(default=0.5, ge=0, lt=1, description="Adam, first moment; DCGAN")
    beta2: Scheduled = Field(default=0.99, description="Adam, second moment; StyleGAN2")
    ema_kimg: Scheduled = Field(default=1.5, description="half-life of the weight average, kimg; after the warm-up")
    ema_warm_up: float = Field(
        default=0.2, gt=0, description="half-life at most, share of what has been shown; EDM's and StyleGAN2's: 0.05"
    )
    balanced: bool = Field(default=True, description="draw each class equally often, rather than as often as it occurs")
    augment: AugmentConfig = AugmentConfig()
    monitor: MonitorConfig = MonitorConfig()
    snapshot_kimg: float = Field(default=2, gt=0, description="kimg between two frames of progress.gif")
    checkpoint_kimg: float = Field(default=10, gt=0, description="kimg between two checkpoints")
    seed: Seed = Field(default=0, description="of weights, data order, latents and augmentation")
    device: Literal["auto", "cpu", "cuda"] = "auto"
    precision: Literal["auto", "float32", "bfloat16"] = Field(
        default="float32",
        description="of the passes without a gradient penalty; weights are float32; auto: bfloat16 where it is native",
    )
    compile: bool = Field(
        default=False, description="torch.compile, for all passes without a gradient penalty; minutes at the start"
    )
    micro_batch: int | None = Field(
        default=None,
        ge=GROUP,
        description="slices in one pass of one process, fewer than it has of a batch to save memory",
    )
    threads: int = Field(
        default=0, ge=0, description="CPU threads; 0: what is fastest, see `pace`; equal weights need a fixed number"
    )

    @property
    def largest_batch(self) -> int:
        """Slices of the largest step, over all processes."""
        return max([self.batch, *self.growth.batches.values()]) if self.growth else self.batch

    @field_validator("batch", "micro_batch")
    @classmethod
    def _groups(cls, batch: int | None) -> int | None:
        if batch is not None and batch % GROUP:
            raise ValueError(f"must be a multiple of {GROUP}, the slices whose spread a discriminator measures")
        return batch

    @model_validator(mode="after")
    def _augments_nothing_to_denoise(self) -> Self:
        if self.augment.kinds and not self.loss.augments:
            raise ValueError(
                f"augment: {', '.join(self.augment.kinds)} would be drawn by a network that learns to denoise; set to 0"
            )
        return self


class TrainingSections(Config):
    """The sections of a run file that training needs."""

    generator: SerializeAsAny[GeneratorConfig]
    training: TrainingConfig

    @model_validator(mode="before")
    @classmethod
    def _recipe(cls, sections: Any) -> Any:
        if not isinstance(sections, Mapping):
            return sections
        sections = {"generator": {}, "training": {}} | dict(sections)
        try:
            generator = GeneratorConfig.model_validate(sections["generator"])
        except ValidationError:  # reported with the other sections
            return sections | {"training": {}}
        if isinstance(sections["training"], Mapping):
            sections["training"] = with_recipe(generator, sections["training"])
        return sections

    @model_validator(mode="after")
    def _grows_to_its_size(self) -> Self:
        if self.training.growth:
            try:
                self.training.growth.check(self.generator.size, self.training.kimg)
            except LungsynthError as error:
                raise ValueError(str(error)) from None
        return self


def with_recipe(generator: GeneratorConfig, training: Mapping[str, Any]) -> dict[str, Any]:
    """The section `training` of a run file, over the recipe of the generator's family."""
    return _merge(family(generator.family).recipe, training)


def _merge(under: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """`under`, updated by `over`, and so are sections within; one of another `kind` replaces the section in `under`."""
    merged = dict(under)
    for key, value in over.items():
        below = under.get(key)
        if isinstance(value, Mapping) and isinstance(below, Mapping) and value.get("kind") in (None, below.get("kind")):
            value = _merge(below, value)
        merged[key] = value
    return merged
