"""A CSV or Parquet table of pictures: where each lies, its label, its patient, its mask."""

from pathlib import Path
from typing import Any

import pandas as pd
from PIL import Image

from lungsynth.cohort.csv_file import read_csv
from lungsynth.cohort.identity import normalised_column
from lungsynth.config import Config
from lungsynth.errors import LungsynthError, first_line
from lungsynth.text import readable


class TableColumns(Config):
    """Names of the table's columns."""

    path: str = "path"
    """Path of an image, relative to the table's folder or absolute."""
    label: str = "label"
    """Class of an image."""
    patient: str | None = "patient"
    """Patient of an image; none: by `patient_pattern`, by DICOM, or each image is a patient of its own."""
    mask: str | None = None
    """Path of the image's mask, as `path`; none: no masks."""


def pictures_in_table(path: Path, columns: TableColumns, *, patients: bool) -> pd.DataFrame:
    """The rows of the table: path, place (the path as the table has it, without suffix), label, patient, mask.

    Args:
        path: of a CSV or Parquet file.
        columns: their names in it.
        patients: whether to read the column of the patients.

    Raises:
        LungsynthError: the table, a column, a value or a file is missing, or several images have one mask.
    """
    path = path.absolute()
    table = _read(path)
    wanted = {"path": columns.path, "label": columns.label, "mask": columns.mask}
    if patients:
        wanted["patient"] = columns.patient
    pictures = pd.DataFrame(index=table.index)
    for name in ("path", "label", "patient", "mask"):
        column = wanted.get(name)
        if column is not None and column not in table:
            there = ", ".join(map(str, table.columns))
            raise LungsynthError(f"{path} has no column {column!r}, only {there}: set cohort.columns.{name}")
        pictures[name] = pd.Series(pd.NA, table.index, dtype=object) if column is None else _texts(table[column])
        if name != "mask" and column is not None and pictures[name].isna().any():
            row = int(pictures[name].isna().to_numpy().argmax()) + 1
            raise LungsynthError(f"{path}: row {row} has no value in the column {column!r}; fill it in or drop the row")
    if pictures.empty:
        raise LungsynthError(f"{path}: the table has no rows")
    pictures["place"] = [_place(value, path.parent) for value in pictures["path"]]
    for name in ("path", "mask"):
        files = [_existing(value, path, row) for row, value in enumerate(pictures[name], start=1)]
        pictures[name] = pd.Series(files, index=pictures.index, dtype=object)
    _check_masks(pictures, path)
    return pictures


def _read(path: Path) -> pd.DataFrame:
    if path.suffix != ".parquet":
        return read_csv(path)
    try:
        return pd.read_parquet(path)
    except (OSError, ValueError) as error:  # Arrow's own errors are ValueErrors
        raise LungsynthError(f"{path}: not a readable CSV or Parquet table: {first_line(error)}") from error


def _texts(column: pd.Series) -> pd.Series:
    """Values as text, and missing where they are empty or nothing but white space."""
    texts = pd.Series([_text(cell) for cell in column], column.index, dtype=object)
    return texts.mask(normalised_column(texts).isna(), pd.NA)


def _text(cell: Any) -> object:
    if isinstance(cell, bytes):  # as some writers of Parquet have text
        return cell.decode("utf-8", "surrogateescape")
    return pd.NA if pd.isna(cell) else str(cell)


def _place(value: str, folder: Path) -> str:
    place = Path(readable(value).strip())
    return (place.relative_to(folder) if place.is_relative_to(folder) else place).with_suffix("").as_posix()


def _existing(value: str, table: Path, row: int) -> Path | None:
    """The file that a row names. Errors give the row, since file names may contain names of patients."""
    if pd.isna(value):
        return None
    for name in dict.fromkeys((value, value.strip(), readable(value.strip()))):
        if (path := table.parent / name).is_file():
            return path
    raise LungsynthError(f"{table}: the file of row {row} does not exist; paths are relative to {table.parent}")


def _check_masks(pictures: pd.DataFrame, table: Path) -> None:
    """Raise an error if images have the same mask, unless it is empty: one may serve all images that show nothing."""
    first: dict[Path, tuple[int, Path]] = {}
    empty: set[Path] = set()
    for row, (image, mask) in enumerate(zip(pictures["path"], pictures["mask"], strict=True), start=1):
        if pd.isna(mask) or mask in empty or first.setdefault(mask, (row, image))[1] == image:
            continue
        if not _is_empty(mask):
            raise LungsynthError(
                f"{table}: the images of rows {first[mask][0]} and {row} have the same mask; give each image its own"
            )
        empty.add(mask)


def _is_empty(mask: Path) -> bool:
    try:
        with Image.open(mask) as image:
            return image.getbbox(alpha_only=False) is None
    except Exception:  # whatever a decoder raises; a DICOM among it
        return False
