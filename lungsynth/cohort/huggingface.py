"""Cohorts of a Hugging Face image dataset, by name or from a folder or Parquet file on disk."""

import hashlib
import os
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any, Literal

import pandas as pd
from pydantic import Field, model_validator

from lungsynth.cohort.cohort import Cohort
from lungsynth.cohort.identity import normalised
from lungsynth.cohort.picture_walk import SUFFIXES
from lungsynth.cohort.pictures import PictureSource, cohort_of_pictures
from lungsynth.cohort.splits import SplitConfig
from lungsynth.errors import LungsynthError, first_line
from lungsynth.files import whole_file
from lungsynth.progress import Progress, on_terminal

if TYPE_CHECKING:
    from datasets import Dataset


class HuggingFaceCohortConfig(PictureSource):
    """A dataset with an image and a label in each row. Its own splits are pooled: patients are dealt anew."""

    source: Literal["huggingface"] = "huggingface"
    dataset: str = Field(
        "hf-vision/chest-xray-pneumonia", description="owner/name on the hub, or a local folder or Parquet file"
    )
    revision: str | None = Field(
        None, pattern=r"^[0-9a-f]{40}$", description="commit of the dataset on the hub; needed there, for branches move"
    )
    splits: tuple[str, ...] = Field((), description="splits of the dataset to take; none: all of them")
    image_column: str = "image"
    """Column of the images."""
    label_column: str = "label"
    """Column of their classes."""
    patient_column: str | None = None
    """Column of their patients; none: by `patient_pattern` over the names of the files, or each image is a patient."""
    mask_column: str | None = None
    """Column of their masks; none: no masks."""
    cache: Path = Field(Path("data/pictures"), description="folder for the images, each a file named by its content")

    @model_validator(mode="after")
    def _pinned(self) -> "HuggingFaceCohortConfig":
        if self.revision is None and not Path(self.dataset).exists():
            raise ValueError(f"revision is needed, the commit of {self.dataset}; no such file or folder is here")
        return self


def select_huggingface(config: HuggingFaceCohortConfig, splits: SplitConfig) -> Cohort:
    """One image row for each row of the dataset, with a mask row where it has a mask; images are written to `cache`.

    Raises:
        LungsynthError: the package `datasets` is not installed, the dataset cannot be had, or a column is missing.
    """
    parts = _load(config)
    unknown = [name for name in config.splits if name not in parts]
    if unknown:
        raise LungsynthError(f"{config.dataset} has no split {unknown[0]!r}, only {', '.join(parts)}")
    taken = config.splits or tuple(parts)
    images = pd.concat([_export(parts[name], config) for name in taken], ignore_index=True)
    return cohort_of_pictures(images, [], config, splits=splits)


def _load(config: HuggingFaceCohortConfig) -> "dict[str, Dataset]":
    """The dataset's splits, from the hub's or the local files, by way of a cache of `datasets` below `cache`."""
    if not on_terminal():  # asked when it is imported
        os.environ |= {"HF_DATASETS_DISABLE_PROGRESS_BARS": "1", "HF_HUB_DISABLE_PROGRESS_BARS": "1"}
    try:
        from datasets import load_dataset  # an optional extra
    except ImportError:
        raise LungsynthError(
            "cohort.source huggingface needs the package datasets: pip install 'lungsynth[huggingface]'"
        ) from None
    cache = str(config.cache / "datasets")
    path = Path(config.dataset)
    try:
        if path.is_file():
            splits: dict[str, Dataset] = load_dataset("parquet", data_files=str(path), cache_dir=cache)
        else:
            splits = load_dataset(config.dataset, revision=config.revision, cache_dir=cache)
        return splits
    except Exception as error:  # its own, the hub's, Arrow's and the HTTP client's have no common base
        raise LungsynthError(
            f"the Hugging Face dataset {config.dataset} cannot be had: {first_line(error)}; check name, revision "
            "and network, or download it and give its folder as cohort.dataset"
        ) from error


def _export(part: "Dataset", config: HuggingFaceCohortConfig) -> pd.DataFrame:
    """Write the images and masks of one split to the cache, and return the table for `cohort_of_pictures`."""
    from datasets import Image  # an optional extra

    columns = {
        "image_column": config.image_column,
        "label_column": config.label_column,
        "patient_column": config.patient_column,
        "mask_column": config.mask_column,
    }
    wanted = {field: name for field, name in columns.items() if name is not None}
    for field, name in wanted.items():
        if name not in part.column_names:
            raise LungsynthError(
                f"{config.dataset} has no column {name!r}, only {', '.join(part.column_names)}: set cohort.{field}"
            )
    part = part.select_columns(list(dict.fromkeys(wanted.values())))
    part = part.cast_column(config.image_column, Image(decode=False))
    if config.mask_column is not None:
        part = part.cast_column(config.mask_column, Image(decode=False))
    names = getattr(part.features[config.label_column], "names", None)
    rows: list[dict[str, object]] = []
    for row in Progress(part, "images", unit="image", leave=False):
        image, label = row[config.image_column], row[config.label_column]
        mask = row[config.mask_column] if config.mask_column else None
        if image is None or label is None or label == -1:  # the hub's mark of a hidden label
            raise LungsynthError(f"{config.dataset}: row {len(rows)} has no image or no label; leave its split out")
        patient = row[config.patient_column] if config.patient_column else pd.NA
        if config.patient_column and (pd.isna(patient) or not normalised(str(patient))):
            raise LungsynthError(
                f"{config.dataset}: row {len(rows)} has no value in the column {config.patient_column!r}; leave its "
                "split out, or unset cohort.patient_column and set cohort.patient_pattern"
            )
        rows.append(
            {
                "path": _file(image, config.cache),
                "place": PurePosixPath(image["path"] or "").stem,
                "label": names[label] if names else str(label),
                "patient": str(patient) if config.patient_column else pd.NA,
                "mask": _file(mask, config.cache) if mask else pd.NA,
            }
        )
    return pd.DataFrame(rows, columns=["path", "place", "label", "patient", "mask"])


def _file(image: dict[str, Any], cache: Path) -> Path:
    """The cached file of an image, named by the hash of its content and written once."""
    content = image["bytes"] if image["bytes"] is not None else Path(image["path"]).read_bytes()
    suffix = PurePosixPath(image["path"] or "").suffix.lower()
    name = hashlib.sha256(content).hexdigest()
    path = cache.absolute() / name[:2] / f"{name}{suffix if suffix in SUFFIXES else ''}"
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        with whole_file(path) as part:
            part.write_bytes(content)
    return path
