"""How a generator is trained. One kimg is a thousand real slices shown."""

from typing import Literal

from pydantic import Field, field_validator

from lungsynth.config import Config


class TrainingConfig(Config):
    """The defaults are for 64 px on two CPU cores in two minutes, chosen on CT slices by looking and measuring."""

    kimg: float = Field(default=40, gt=0, description="length, thousands of real slices shown")
    batch: int = Field(default=32, ge=4, description="slices a step, a multiple of 4")
    generator_lr: float = Field(default=1e-3, gt=0, description="Adam step size, falls to 0 over the last 30 %")
    discriminator_lr: float = Field(default=1e-3, gt=0, description="Adam step size, falls to 0 over the last 30 %")
    beta1: float = Field(default=0.5, ge=0, lt=1, description="Adam, first moment; DCGAN")
    beta2: float = Field(default=0.99, ge=0, lt=1, description="Adam, second moment; StyleGAN2")
    r1_gamma: float = Field(default=0.1, ge=0, description="weight of the gradient penalty; 0 is DCGAN as published")
    r1_every: int = Field(
        default=16, ge=1, description="steps from one penalty to the next, which makes up for it in weight; StyleGAN2"
    )
    ema_kimg: float = Field(default=1.5, gt=0, description="half-life of the weight average, kimg; after the warm-up")
    balanced: bool = Field(default=True, description="draw each class equally often, rather than as often as it occurs")
    translate: float = Field(default=0.0625, ge=0, le=0.5, description="largest shift, share of the side; DiffAugment")
    cutout: float = Field(
        default=0, ge=0, lt=1, description="side of the blanked square, share of the side; DiffAugment"
    )
    brightness: float = Field(default=0, ge=0, le=0.1, description="largest shift of grey, share of the window's width")
    snapshot_kimg: float = Field(default=2, gt=0, description="kimg between two frames of progress.gif")
    checkpoint_kimg: float = Field(default=10, gt=0, description="kimg between two checkpoints")
    seed: int = Field(default=0, ge=0, description="of weights, data order, latents and augmentation")
    device: Literal["auto", "cpu", "cuda"] = "auto"
    threads: int = Field(
        default=0, ge=0, description="CPU threads; 0: torch's choice; 1 is fastest where cores are busy"
    )

    @field_validator("batch")
    @classmethod
    def _groups_of_four(cls, batch: int) -> int:
        if batch % 4:
            raise ValueError("must be a multiple of 4, the discriminator's group size")
        return batch

    @property
    def steps(self) -> int:
        """Optimiser steps of the whole run."""
        return self.every(self.kimg)

    def every(self, kimg: float) -> int:
        """Steps that show `kimg`, at least one."""
        return max(1, round(kimg * 1000 / self.batch))
