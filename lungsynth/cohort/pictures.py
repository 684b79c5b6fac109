"""Cohorts of radiographs and ready slices: a folder for each class, or a table of paths, labels and patients."""

import logging
import re
import warnings
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Literal

import pandas as pd
from pydantic import Field, field_validator, model_validator

from lungsynth.cohort.cohort import COLUMNS, FUNNEL_COLUMNS, SLICE_LABEL_COLUMNS, Cohort, funnel, picture_uid
from lungsynth.cohort.identity import PatientNames, names_nobody, normalised, one_label_each, one_name_each
from lungsynth.cohort.picture_folder import pictures_in_folder
from lungsynth.cohort.picture_table import TableColumns, pictures_in_table
from lungsynth.cohort.splits import SplitConfig, assign_splits, patient_key
from lungsynth.config import Config
from lungsynth.errors import LungsynthError, reason
from lungsynth.hashing import combine, file_sha256
from lungsynth.progress import Progress

log = logging.getLogger(__name__)

CLASS_NAME = re.compile(r"(?!floor$)\w[\w .+-]{0,63}")
"""Names of classes become parts of metric names, where `floor` and `/` mean something."""
TOO_MANY = 0.5
"""Fraction of the images from which on one name is hardly that of a single patient."""


class PictureSource(Config):
    """Settings that all sources of pictures have in common."""

    collection: str = Field("pictures", pattern=r"^[\w.-]+$", description="name of the collection in all records")
    classes: tuple[str, ...] = Field(
        (), description="classes that take part, in the order of their codes, the positive one last; none: all, by name"
    )
    patient_pattern: str | None = Field(
        None,
        description="regular expression whose group 1 is the patient: it starts with the file's name, or, if that does "
        "not fit all, with any part of the path below the folder, as in (patient\\d+)/",
    )
    patients: PatientNames = PatientNames()
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
        classes = tuple(map(normalised, classes))
        if len(classes) == 1 or len(set(classes)) < len(classes):
            raise ValueError("name at least two different classes, or none to take all")
        return classes


class PictureCohortConfig(PictureSource):
    """Images in `folder/<class>/`, or in a CSV or Parquet `table`.

    Masks lie at the place and by the stem of their image: in `masks/<class>/a.png`, `<class>/masks/a.png`, or, where
    one image has that name, `masks/a.png`. Folders such as `train/` and `test/` above the classes are pooled.
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
        LungsynthError: a folder, a file or a column is missing, masks or patients cannot be assigned, or fewer than two
            classes are left.
    """
    if config.folder:
        return cohort_of_pictures(*pictures_in_folder(config.folder, config.classes), config, splits=splits)
    assert config.table is not None  # checked by the configuration
    pictures = pictures_in_table(config.table, config.columns, patients=config.patient_pattern is None)
    return cohort_of_pictures(pictures, [], config, splits=splits)


def cohort_of_pictures(
    images: pd.DataFrame, left_before: list[tuple[str, int]], config: PictureSource, *, splits: SplitConfig
) -> Cohort:
    """The cohort of a table of images with the columns path, place, label, patient and mask.

    Where all patients are missing, `place` or the DICOM files name them; a missing mask means that there is none.
    Images are identified by their content, so that copies are found wherever they lie. An image with two labels is left
    out. Of several copies, of one patient or of several, one is kept.

    Args:
        left_before: the funnel's first rows: (rule, files left after it).

    Raises:
        LungsynthError: a file cannot be read, the patients cannot be told, or fewer than two classes are left.
    """
    images = images.assign(sha256=_hashes(images["path"]), label=one_label_each(images["label"], config.classes))
    images = images.assign(collection=config.collection, series_uid=images["sha256"].map(picture_uid))
    images["patient"] = _patients(images, config)

    steps = [("images", images)]
    if config.classes:
        steps.append(("of a class that was asked for", images := images[images["label"].isin(config.classes)]))
    if images["mask"].notna().any():
        steps.append(("with a mask", images := images[images["mask"].notna()]))
    labels = images.groupby("sha256")["label"].transform("nunique")
    steps.append(("of one label wherever they lie", images := images[labels == 1]))
    steps.append(("one copy of each", images := images.drop_duplicates(["sha256", "patient"])))
    if shared := _tell_of_shared(images):
        steps.append((shared, images := images.drop_duplicates("sha256")))
    table = pd.concat([_files(left_before), funnel(*steps)], ignore_index=True) if left_before else funnel(*steps)
    classes = config.classes or tuple(sorted(images["label"].unique()))
    _check_classes(classes, images, table)
    log.info(
        "%d images of %d patients; %s is the positive class", len(images), images["patient"].nunique(), classes[-1]
    )

    # A patient's label is that of their most positive image; an image that differs keeps its own.
    codes = {name: code for code, name in enumerate(classes)}
    images = images.assign(own=images["label"])
    highest = images["own"].map(codes).groupby(images["patient"]).transform("max")
    images["label"] = highest.map(dict(enumerate(classes)))
    images["split"] = assign_splits(images, splits)
    images["patient_key"] = [patient_key(config.collection, patient, splits.salt) for patient in images["patient"]]
    images = images.assign(license=config.license, doi=config.doi, evidence="folder", modality="DX", instances=1)
    images = images.assign(study_uid=images["series_uid"], role="image")
    masks = images[images["mask"].notna()]
    rows = pd.concat([images, _mask_rows(masks)]) if len(masks) else images
    rows["bytes"] = [path.stat().st_size for path in rows["path"]]
    rows["url"] = [path.as_uri() for path in rows["path"]]
    own = images[images["own"] != images["label"]].assign(label=lambda rows: rows["own"])
    return Cohort(rows.reindex(columns=list(COLUMNS)), own.reindex(columns=list(SLICE_LABEL_COLUMNS)), table, classes)


def _hashes(paths: pd.Series) -> list[str]:
    """SHA-256 of each file.

    Raises:
        LungsynthError: some cannot be read; the error counts them, since file names may name patients.
    """
    with ThreadPoolExecutor() as pool:
        hashes = list(Progress(pool.map(_hash, paths), "hashing", len(paths), unit="image", leave=False))
    if failed := [error for error in hashes if isinstance(error, OSError)]:
        raise LungsynthError(
            f"{len(failed)} of {len(hashes)} files cannot be read: {reason(failed[0])}; "
            "give this user the right to, or take them out"
        )
    return [text for text in hashes if isinstance(text, str)]


def _hash(path: Path) -> str | OSError:
    try:
        return file_sha256(path)
    except OSError as error:
        return error


def _patients(images: pd.DataFrame, config: PictureSource) -> pd.Series:
    """The patient of each image: by the pattern, as given, of its DICOM file, or else the image itself."""
    given = images["patient"]
    if config.patient_pattern is not None:
        given = pd.Series(_by_pattern(images["place"].tolist(), config.patient_pattern), images.index)
    in_files = bool(given.isna().all())
    if in_files:
        given = pd.Series(_of_dicom(images["path"].tolist()), images.index, dtype=object)
    names = one_name_each(given, config.patients)
    _check_crowd(names, in_files=in_files)
    if names.isna().any():
        log.warning(
            "neither pattern, table nor DICOM's PatientID says which patient %d of %d images are of, so their splits "
            "are by image: images of one patient may fall to train and test; set cohort.patient_pattern, which may fit "
            "names of files or of folders, or name the patients in a table, if there are such",
            names.isna().sum(),
            len(names),
        )
    return names.fillna(images["series_uid"].astype("string"))


def _by_pattern(places: list[str], pattern: str) -> list[str]:
    """Group 1 of the pattern: at the start of every file's name, or else at that of some part of every path."""
    compiled = re.compile(pattern)
    by_name = [_group(compiled.match(place.rpartition("/")[2])) for place in places]
    if all(by_name):
        return by_name
    by_path = [next(filter(None, (_group(match) for match in _matches(compiled, place))), "") for place in places]
    if all(by_path):
        return by_path
    # File names may name patients, so none is shown.
    raise LungsynthError(
        f"cohort.patient_pattern {pattern!r} fits {sum(map(bool, by_name))} of the {len(places)} file names and "
        f"{sum(map(bool, by_path))} of their paths: make it fit all; where the patient is a folder, as in "
        r"patient00001/study1/view1.png, (patient\d+)/ fits"
    )


def _matches(pattern: re.Pattern[str], place: str) -> list[re.Match[str] | None]:
    return [pattern.match(place, start) for start in (0, *(slash.end() for slash in re.finditer("/", place)))]


def _group(match: re.Match[str] | None) -> str:
    return normalised(match[1] or "") if match else ""


def _of_dicom(files: list[Path]) -> list[str | None]:
    """The PatientID of each file that is DICOM and names somebody."""
    if not any(path.suffix.lower() == ".dcm" for path in files):
        return [None] * len(files)
    from lungsynth.cohort.dicom_patient import patient_id  # pydicom takes half a second to come

    with ThreadPoolExecutor() as pool, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # pydicom's, about tags that are not used here
        return list(pool.map(lambda path: patient_id(path) if path.suffix.lower() == ".dcm" else None, files))


def _check_crowd(names: pd.Series, *, in_files: bool) -> None:
    """Check that no single name has half of the images: it is probably a dummy, and would put them all into one split.

    Raises:
        LungsynthError: the name comes from DICOM files; for names that the user gave there is a warning only.
    """
    known = names.dropna()
    if len(known) < 3:
        return
    largest = int(known.value_counts().iloc[0])
    if in_files and largest >= TOO_MANY * len(known):
        raise LungsynthError(
            f"{largest} of {len(known)} DICOM files have the same PatientID, which looks like a dummy: set "
            "cohort.patient_pattern, or give a table that names the patients"
        )
    nameless = int(known.map(names_nobody).sum())
    if nameless or largest >= max(10, TOO_MANY * len(known)):
        log.warning(
            "%d of %d images are of one patient, who stays in one split; if that is a dummy such as NA or ANONYMOUS, "
            "name the patients, or leave these images out",
            nameless or largest,
            len(known),
        )


def _tell_of_shared(images: pd.DataFrame) -> str:
    """Warn of pictures that several patients have, and return the funnel's rule about them; empty if there are none."""
    patients = images.groupby("sha256")["patient"].transform("nunique")
    shared = images[patients > 1]
    if shared.empty:
        return ""
    log.warning(
        "%d pictures lie under several patients, %d in all: one copy of each is kept; if these are one patient under "
        "several names, other pictures of theirs may fall to train and test: give them one name",
        shared["sha256"].nunique(),
        shared["patient"].nunique(),
    )
    return "one copy of what several patients have"


def _files(steps: list[tuple[str, int]]) -> pd.DataFrame:
    """Rows of the funnel for files, before their patients are known."""
    return pd.DataFrame([(rule, left, pd.NA) for rule, left in steps], columns=list(FUNNEL_COLUMNS))


def _check_classes(classes: tuple[str, ...], images: pd.DataFrame, table: pd.DataFrame) -> None:
    for name in classes:
        if not CLASS_NAME.fullmatch(name):
            raise LungsynthError(f"the class name {name!r} cannot be used: give it letters, digits, spaces, . + or -")
    counts = images["label"].value_counts().reindex(list(classes), fill_value=0)
    if len(classes) < 2 or not counts.all():
        story = ", ".join(f"{row.series} {row.rule}" for row in table.itertuples())
        have = ", ".join(f"{count} {name}" for name, count in counts.items()) or "none"
        raise LungsynthError(f"images of at least two classes are needed, there are {have} ({story})")


def _mask_rows(images: pd.DataFrame) -> pd.DataFrame:
    """The masks' rows. A mask's UID includes its image's hash, since empty masks are all equal."""
    uids = [
        f"mask-{combine([sha256, mask])[:32]}"
        for sha256, mask in zip(images["sha256"], _hashes(images["mask"]), strict=True)
    ]
    return images.assign(source_series_uid=images["series_uid"], series_uid=uids, role="mask", path=images["mask"])
