"""Cohorts of radiographs and ready slices: a folder for each class, or a table of paths, labels and patients."""

import logging
import re
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Literal

import pandas as pd
from pydantic import Field, field_validator, model_validator

from lungsynth.cohort.cohort import COLUMNS, SLICE_LABEL_COLUMNS, Cohort, funnel
from lungsynth.cohort.splits import SplitConfig, assign_splits, patient_key
from lungsynth.config import Config
from lungsynth.errors import LungsynthError
from lungsynth.hashing import combine, file_sha256
from lungsynth.imaging.read_picture import picture_uid
from lungsynth.progress import Progress

log = logging.getLogger(__name__)

SUFFIXES = (".png", ".jpg", ".jpeg", ".tif", ".tiff", ".dcm")
MASK_FOLDER = "masks"
CLASS_NAME = re.compile(r"(?!floor$)\w[\w .+-]{0,63}")
"""Names of classes become parts of metric names, where `floor` and `/` mean something."""


class PictureSource(Config):
    """What the sources of pictures have in common."""

    collection: str = Field("pictures", pattern=r"^[\w.-]+$", description="name of the collection in all records")
    classes: tuple[str, ...] = Field(
        (), description="classes that take part, in the order of their codes, the positive one last; none: all, by name"
    )
    patient_pattern: str | None = Field(
        None, description="regular expression at the start of a file's stem; its group 1 is the patient"
    )
    license: str = Field("unknown", description="licence of the images, for the report")
    doi: str = Field("", description="DOI of the images, for the report")

    @field_validator("patient_pattern")
    @classmethod
    def _has_a_group(cls, pattern: str | None) -> str | None:
        try:
            groups = 1 if pattern is None else re.compile(pattern).groups
        except re.error as error:
            raise ValueError(f"is no regular expression: {error}") from error
        if groups < 1:
            raise ValueError(r"needs a group for the patient, as in (person\d+)_")
        return pattern

    @field_validator("classes")
    @classmethod
    def _two_or_none(cls, classes: tuple[str, ...]) -> tuple[str, ...]:
        if len(classes) == 1 or len(set(classes)) < len(classes):
            raise ValueError("name at least two different classes, or none to take all")
        return classes


class TableColumns(Config):
    """Names of the table's columns."""

    path: str = "path"
    """Path of an image, relative to the table's folder or absolute."""
    label: str = "label"
    patient: str | None = "patient"
    """None: the patient comes from `patient_pattern`, or each image is a patient of its own."""
    mask: str | None = None
    """Path of the image's mask, as `path`; none: no masks."""


class PictureCohortConfig(PictureSource):
    """Images in `folder/<class>/`, or in a CSV or Parquet `table`.

    Masks lie in `folder/masks/`, at the place and by the stem of their image: `masks/<class>/a.png`, or `masks/a.png`.
    """

    source: Literal["pictures"] = "pictures"
    folder: Path | None = Field(None, description="folder that holds one folder of images for each class")
    table: Path | None = Field(None, description="CSV or Parquet file with one row an image")
    columns: TableColumns = TableColumns()

    @model_validator(mode="after")
    def _one_place(self) -> "PictureCohortConfig":
        if (self.folder is None) == (self.table is None):
            raise ValueError("give either folder or table")
        return self


def select_pictures(config: PictureCohortConfig, splits: SplitConfig) -> Cohort:
    """One image row a picture, and one mask row where there is a mask.

    Raises:
        LungsynthError: a folder, a file or a column is missing, or fewer than two classes are left.
    """
    found = _in_folder(config.folder) if config.folder else _in_table(config)
    return cohort_of_pictures(found, config, splits)


def cohort_of_pictures(found: pd.DataFrame, config: PictureSource, splits: SplitConfig) -> Cohort:
    """The cohort of the images in `found`: path, stem, label, patient (missing: by stem) and mask (missing: none).

    A picture is known by its content, so that copies are found wherever they lie: one that has two labels is left out
    altogether, and of several copies, be they of one patient or of two, one is kept.

    Raises:
        LungsynthError: the patient pattern fits no name, or fewer than two classes are left.
    """
    files = found["path"].tolist()
    with ThreadPoolExecutor() as pool:
        found["sha256"] = list(Progress(pool.map(file_sha256, files), "hashing", len(files), unit="image", leave=False))
    found = found.assign(collection=config.collection, series_uid=found["sha256"].map(picture_uid))
    found["patient"] = _patients(found, config)

    steps = [("images", found)]
    if config.classes:
        steps.append(("of a class that was asked for", found := found[found["label"].isin(config.classes)]))
    if found["mask"].notna().any():
        steps.append(("with a mask", found := found[found["mask"].notna()]))
    labels = found.groupby("sha256")["label"].transform("nunique")
    steps.append(("of one label wherever they lie", found := found[labels == 1]))
    steps.append(("one copy of each", found := found.drop_duplicates("sha256")))
    table = funnel(*steps)
    classes = config.classes or tuple(sorted(found["label"].unique()))
    _check_classes(classes, found, table)
    log.info("%d images of %d patients; %s is the positive class", len(found), found["patient"].nunique(), classes[-1])

    # A patient's label is that of their most positive image; an image that differs keeps its own.
    codes = {name: code for code, name in enumerate(classes)}
    found = found.assign(own=found["label"])
    highest = found["own"].map(codes).groupby(found["patient"]).transform("max")
    found["label"] = highest.map(dict(enumerate(classes)))
    found["split"] = assign_splits(found, splits)
    found["patient_key"] = [patient_key(config.collection, patient, splits.salt) for patient in found["patient"]]
    found = found.assign(license=config.license, doi=config.doi, evidence="folder", modality="DX", instances=1)
    found = found.assign(study_uid=found["series_uid"], role="image")
    masks = found[found["mask"].notna()]
    rows = pd.concat([found, _mask_rows(masks)]) if len(masks) else found
    rows["bytes"] = [path.stat().st_size for path in rows["path"]]
    rows["url"] = [path.as_uri() for path in rows["path"]]
    own = found[found["own"] != found["label"]].assign(label=lambda rows: rows["own"])
    return Cohort(rows.reindex(columns=list(COLUMNS)), own.reindex(columns=list(SLICE_LABEL_COLUMNS)), table, classes)


def _in_folder(root: Path) -> pd.DataFrame:
    """Every picture below a class folder; hidden files are passed over, files of other kinds are told of."""
    root = root.absolute()
    if not root.is_dir():
        raise LungsynthError(f"{root}: no such folder; set cohort.folder to the one that holds the class folders")
    folders = sorted(path for path in root.iterdir() if path.is_dir() and not path.name.startswith("."))
    rows, others = [], 0
    masks = _by_stem(root / MASK_FOLDER)
    for folder in (folder for folder in folders if folder.name != MASK_FOLDER):
        for path in sorted(path for path in folder.rglob("*") if path.is_file() and not path.name.startswith(".")):
            if path.suffix.lower() not in SUFFIXES:
                others += 1
                continue
            place = path.relative_to(root).with_suffix("").as_posix()
            rows.append((path, path.stem, folder.name, pd.NA, masks.get(place, masks.get(path.stem, pd.NA))))
    if others:
        log.warning("passed over %d files below %s that are not %s", others, root, ", ".join(SUFFIXES))
    if not rows:
        raise LungsynthError(f"{root}: no images; expected {root.name}/<class>/ with {', '.join(SUFFIXES)} files")
    return pd.DataFrame(rows, columns=["path", "stem", "label", "patient", "mask"])


def _by_stem(folder: Path) -> dict[str, Path]:
    """Masks by their path below `folder` without suffix; none where there is no such folder."""
    files = folder.rglob("*") if folder.is_dir() else ()
    return {
        path.relative_to(folder).with_suffix("").as_posix(): path for path in files if path.suffix.lower() in SUFFIXES
    }


def _in_table(config: PictureCohortConfig) -> pd.DataFrame:
    assert config.table is not None
    path, columns = config.table.absolute(), config.columns
    try:
        table = pd.read_parquet(path) if path.suffix == ".parquet" else pd.read_csv(path, dtype=str)
    except (OSError, ValueError) as error:  # pandas' and Arrow's own errors are ValueErrors
        raise LungsynthError(f"{path}: not a readable CSV or Parquet table: {_first_line(error)}") from error
    wanted = {"path": columns.path, "label": columns.label, "mask": columns.mask}
    if config.patient_pattern is None:
        wanted["patient"] = columns.patient
    found = pd.DataFrame(index=table.index)
    for name in ("path", "label", "patient", "mask"):
        column = wanted.get(name)
        if column is not None and column not in table:
            there = ", ".join(map(str, table.columns))
            raise LungsynthError(f"{path} has no column {column!r}, only {there}: set cohort.columns.{name}")
        found[name] = pd.NA if column is None else table[column].astype("string")
        if name != "mask" and column is not None and found[name].isna().any():
            row = int(found[name].isna().to_numpy().argmax()) + 1
            raise LungsynthError(f"{path}: row {row} has no value in the column {column!r}; fill it in or drop the row")
    if found.empty:
        raise LungsynthError(f"{path}: the table has no rows")
    for name in ("path", "mask"):
        files = [_existing(value, path, row) for row, value in enumerate(found[name], start=1)]
        found[name] = pd.Series(files, index=found.index, dtype=object)
    return found.assign(stem=[image.stem for image in found["path"]])


def _existing(value: str | None, table: Path, row: int) -> Path | None:
    """The file that a table names in its row. Its name may name a patient, so the row stands for it in the error."""
    if pd.isna(value):
        return None
    path = table.parent / str(value)
    if not path.is_file():
        raise LungsynthError(f"{table}: the file of row {row} does not exist; paths are relative to {table.parent}")
    return path


def _patients(found: pd.DataFrame, config: PictureSource) -> pd.Series:
    """The patient of each image: as given, or by the pattern, or else the image itself."""
    if config.patient_pattern is not None:
        matches = [re.match(config.patient_pattern, stem) for stem in found["stem"]]
        lacking = sum(match is None or not match[1] for match in matches)
        if lacking:
            # File names may name patients, so none is shown.
            raise LungsynthError(
                f"cohort.patient_pattern {config.patient_pattern!r} fits {len(matches) - lacking} of the "
                f"{len(matches)} file names: make it fit all, or unset it if each image is a patient of its own"
            )
        return pd.Series([match[1] for match in matches if match], index=found.index, dtype="string")
    if found["patient"].isna().all():
        log.warning(
            "nothing says which patient an image is of, so splits are by image: images of one patient may fall to "
            "train and test; set cohort.patient_pattern, or name the patients in a table, if there are such"
        )
        return found["series_uid"]
    return found["patient"]


def _check_classes(classes: tuple[str, ...], found: pd.DataFrame, table: pd.DataFrame) -> None:
    for name in classes:
        if not CLASS_NAME.fullmatch(name):
            raise LungsynthError(f"the class name {name!r} cannot be used: give it letters, digits, spaces, . + or -")
    counts = found["label"].value_counts().reindex(list(classes), fill_value=0)
    if len(classes) < 2 or not counts.all():
        story = ", ".join(f"{row.series} {row.rule}" for row in table.itertuples())
        have = ", ".join(f"{count} {name}" for name, count in counts.items()) or "none"
        raise LungsynthError(f"images of at least two classes are needed, there are {have} ({story})")


def _mask_rows(images: pd.DataFrame) -> pd.DataFrame:
    """The masks' rows. Empty masks are all alike, so their identity holds the image's as well."""
    uids = [
        f"mask-{combine([sha256, file_sha256(mask)])[:32]}"
        for sha256, mask in zip(images["sha256"], images["mask"], strict=True)
    ]
    return images.assign(source_series_uid=images["series_uid"], series_uid=uids, role="mask", path=images["mask"])


def _first_line(error: Exception) -> str:
    return str(error).strip().partition("\n")[0]
