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
    """One run. Keys that a run file leaves out come from the family's recipe, see `with_recipe`, then from here."""

    kimg: float = Field(
        default=40,
        gt=0,
        description="kimg; length, thousands of real slices shown [chosen here: minutes on two cores for small "
        "networks]",
    )
    batch: int = Field(
        default=32,
        ge=GROUP,
        description="slices a step, over all processes; a multiple of 4 [ADA's automatic setting on one GPU]",
    )
    loss: Loss = AdversarialLoss()
    growth: GrowthConfig | None = Field(
        default=None, description="from a few pixels to full size; none: full size at once"
    )
    generator_lr: Scheduled = Field(default=1e-3, description="learning rate of Adam [PGGAN]")
    discriminator_lr: Scheduled = Field(default=1e-3, description="learning rate of Adam [PGGAN]")
    beta1: float = Field(default=0.5, ge=0, lt=1, description="decay rate of Adam's first moment [DCGAN]")
    beta2: Scheduled = Field(default=0.99, description="decay rate of Adam's second moment [StyleGAN2]")
    ema_kimg: Scheduled = Field(
        default=1.5,
        description="kimg; half-life of the weight average, after the warm-up [chosen here: 4 % of the default kimg]",
    )
    ema_warm_up: float = Field(
        default=0.2,
        gt=0,
        description="share of what has been shown; half-life at most [chosen here: for short runs; EDM and StyleGAN2: "
        "0.05]",
    )
    balanced: bool = Field(default=True, description="draw each class equally often, rather than as often as it occurs")
    augment: AugmentConfig = AugmentConfig()
    monitor: MonitorConfig = MonitorConfig()
    snapshot_kimg: float = Field(
        default=2,
        gt=0,
        description="kimg between two frames of progress.gif [chosen here: 20 frames in the default kimg]",
    )
    checkpoint_kimg: float = Field(
        default=10,
        gt=0,
        description="kimg between two checkpoints [chosen here: a crash costs at most a quarter of the default kimg]",
    )
    seed: Seed = Field(default=0, description="seed of weights, data order, latents and augmentation")
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Where to train; `auto`: on a GPU where there is one."""
    precision: Literal["auto", "float32", "bfloat16"] = Field(
        default="float32",
        description="of numbers in passes without a gradient penalty; weights are float32; auto: bfloat16 where native",
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
        default=0,
        ge=0,
        description="threads on a CPU; 0: what is fastest, see `pace`; equal weights need a fixed number [chosen "
        "here: measured in each run]",
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
