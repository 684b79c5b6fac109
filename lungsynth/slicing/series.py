"""Records of cutting: the configuration, a series as the input, its slices as the result."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Self

import numpy as np
import pandas as pd
from pydantic import Field, model_validator

from lungsynth.config import Config
from lungsynth.lungs.config import LungConfig
from lungsynth.remote import Place

PREVIEW = 224
"""Pixels a side of a preview in the report of a build."""


class SliceConfig(Config):
    """What a slice of the dataset shows, which slices are taken, and how many processes work on it."""

    size: int = Field(128, ge=32, le=512, multiple_of=8, description="pixels; height and width of a slice [ct-gan-gen]")
    window_hu: tuple[float, float] = Field(
        (-1350.0, 150.0), description="HU that become 0 and 255 [the usual lung window: level -600, width 1500]"
    )
    view: Literal["lungs", "whole", "lesion"] = Field(
        "lungs",
        description="lungs: one square around both lungs for all slices of a series; whole: all of the slice; lesion: "
        "patches, around the lesion for the positive class and at random places of the lung for the negative one",
    )
    margin_mm: float = Field(
        5.0, ge=0, le=100, description="mm around the lungs' bounding box [chosen here: shows the chest wall]"
    )
    patch_mm: float = Field(
        64.0, ge=16, le=256, description="mm; side of a patch [chosen here: twice the diameter of a small mass]"
    )
    lesion_margin_mm: float = Field(
        10.0,
        ge=0,
        le=200,
        description="mm that negative patches and slices of a cancer patient keep from a lesion [chosen here: its "
        "border is uncertain]",
    )
    other_slices_of_cancer: Literal["drop", "non_cancer"] = Field(
        "drop",
        description="what becomes of slices of a cancer patient that no lesion segmentation covers and no other "
        "evidence labels",
    )
    min_lung_fraction: float = Field(
        0.05,
        ge=0,
        lt=1,
        description="share of a picture that is lung, at least; patches want 0.2 or more [chosen here: leaves out "
        "what lies above and below the lungs]",
    )
    stride_mm: float = Field(
        0, ge=0, description="mm between the slices of a class in a series [chosen here: 0 takes every slice]"
    )
    max_slices_per_series: int | None = Field(None, ge=1, description="slices of each class, evenly spaced; none: all")
    max_slices_per_patient: int | None = Field(None, ge=1, description="slices of each class, evenly spaced; none: all")
    masks: bool = Field(False, description="keep the lung masks beside the slices")
    lungs: LungConfig = LungConfig()
    root: Place = Field(
        Path("data/slices"),
        description="folder in which the shards lie, also a URL as s3://BUCKET/FOLDER for machines that share no disk",
    )
    workers: int = Field(
        2,
        ge=1,
        description="processes that each prepare one series at a time, in about 0.5 GB [chosen here: for two cores]",
    )
    patients_per_shard: int = Field(
        16,
        ge=1,
        description="patients; what a crash costs at most, for each worker [chosen here: little is lost, and shards "
        "stay few]",
    )

    @model_validator(mode="after")
    def _window_opens(self) -> Self:
        if not -32768 <= self.window_hu[0] < self.window_hu[1] <= 32767:
            raise ValueError("window_hu must be (low, high), within 16 bits")
        return self


@dataclass(frozen=True)
class SeriesJob:
    """One series or picture, with all inputs from which its slices are made.

    `label` and `evidence` are the patient's; `slice_labels` are the rows of `Cohort.slice_labels` for this series. Each
    lesion and lung folder holds one segmentation of the series; `mask_file` is the mask of a picture. About `previews`
    slices of a scan are kept for the contact sheet.
    """

    series_uid: str
    patient_key: str
    label: str
    evidence: str
    split: str
    manufacturer: str
    folder: Path
    lesion_folders: tuple[Path, ...]
    lung_folders: tuple[Path, ...]
    mask_file: Path | None
    slice_labels: pd.DataFrame
    previews: int = 1


@dataclass(frozen=True)
class Preview:
    """A slice as the contact sheet shows it: uint8 P×P, the lungs' outline (bool P×P), words, and its class."""

    image: np.ndarray
    outline: np.ndarray
    caption: str
    label: str


@dataclass(frozen=True)
class SeriesSlices:
    """The slices of one series, from feet to head.

    `images` is uint8 N×S×S, N ≥ 1; `masks` uint8 (0 or 1) N×S×S or none; `table` has `store.COLUMNS`; `notes` are what
    was odd; `hu_histogram` (int64) counts a sample of the voxels of the slices taken, in the bins `store.HU_BINS`;
    `lesion_mm` is as in `SliceLabels`, and of pictures NaN.
    """

    images: np.ndarray
    masks: np.ndarray | None
    table: pd.DataFrame
    notes: tuple[str, ...]
    hu_histogram: np.ndarray
    previews: list[Preview]
    lesion_mm: float = float("nan")
