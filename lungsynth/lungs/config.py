"""Which backend finds the lungs, and what counts as lungs."""

from pathlib import Path
from typing import Literal, Self

from pydantic import Field, model_validator

from lungsynth.config import Config


class QualityConfig(Config):
    """What a mask must be like to be believed; each limit is of the whole volume."""

    min_litres: float = Field(
        1.0, gt=0, description="litres of both lungs, at least [chosen here: a part of the chest still holds this much]"
    )
    max_litres: float = Field(
        10.0, gt=0, description="litres of both lungs, at most [chosen here: total lung capacity of tall men is 6 to 8]"
    )
    min_side_ratio: float = Field(
        0.2,
        ge=0,
        le=1,
        description="ratio of the smaller side's volume to the larger's; 0 admits patients of whom a lung was taken "
        "out, and turns max_bridge off, since one lung has no two sides [chosen here: far below the usual "
        "0.85]",
    )
    max_bridge: float = Field(
        0.7,
        gt=0,
        le=1,
        description="ratio of the mask's area in the sagittal plane between two lungs to the largest such area of the "
        "smaller lung [chosen here: little lies between two lungs]",
    )
    min_mean_hu: float = Field(
        -960.0,
        ge=-1024,
        description="HU, mean of the mask, at least [chosen here: bare gas lies below, the worst emphysema above]",
    )
    max_mean_hu: float = Field(
        -450.0, le=0, description="HU, mean of the mask, at most [chosen here: a mask of much soft tissue lies above]"
    )
    max_leak: float = Field(
        0.01,
        ge=0,
        le=1,
        description="share of the mask in air that is open to the image's border [chosen here: lungs have none; 1 % "
        "admits noise]",
    )

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if self.min_litres >= self.max_litres:
            raise ValueError("min_litres must be below max_litres")
        if self.min_mean_hu >= self.max_mean_hu:
            raise ValueError("min_mean_hu must be below max_mean_hu")
        return self


class LungConfig(Config):
    """How lungs are found.

    `threshold` needs nothing; `idc-seg` takes the masks that IDC publishes as DICOM SEG; `unet` takes a network that
    `lungsynth train-lungs` wrote to `weights`; `lungmask` takes the package of that name with its own weights.
    """

    backend: Literal["threshold", "idc-seg", "unet", "lungmask"] = "threshold"
    """What finds the lungs."""
    fallback: Literal["reject", "threshold"] = Field(
        "reject", description="where the backend has no plausible mask: give the series up, or take the threshold's"
    )
    threshold_hu: float = Field(
        -400,
        ge=-900,
        le=-200,
        description="HU; lung lies below, soft tissue above [chosen here: about midway between the two]",
    )
    weights: Path | None = Field(None, description="folder of the trained U-Net; of backend `unet` only")
    quality: QualityConfig = QualityConfig()

    @model_validator(mode="after")
    def _backend_has_what_it_needs(self) -> Self:
        if (self.backend == "unet") != (self.weights is not None):
            raise ValueError("weights belong to backend unet: give both or neither")
        return self
