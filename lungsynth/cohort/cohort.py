"""The cohort: one row for each series, with its patient's label and split, and where its data lie."""

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from lungsynth.dataset.vocabulary import CLASSES
from lungsynth.errors import LungsynthError
from lungsynth.hashing import combine, table_sha256

COLUMNS = {
    "collection": "string",  # IDC collection_id, "phantom", or the name of an image source
    "patient": "string",  # PatientID; it never leaves this record
    "patient_key": "string",  # salted pseudonym, which all later records carry instead
    "study_uid": "string",
    "series_uid": "string",  # of an image source: `image-` and 32 hex digits of its content's SHA-256
    "modality": "string",  # CT, SEG, or DX for a radiograph or a ready slice
    "role": "string",  # one of ROLES
    "source_series_uid": "string",  # of a segmentation or mask: the image series that it belongs to; else missing
    "manufacturer": "string",
    "kernel": "string",  # reconstruction kernel; missing where unknown
    "thickness_mm": "Float64",  # missing where unknown
    "sex": "string",  # M or F; missing where unknown
    "age": "Int64",  # years, at the study or at randomisation; missing where unknown
    "label": "string",  # the patient's class: the positive one where any slice of theirs can have it
    "evidence": "string",  # what the label rests on: one of EVIDENCE
    "split": "string",  # train, val or test
    "license": "string",
    "doi": "string",
    "instances": "Int64",
    "bytes": "Int64",  # missing where the source does not publish it
    "url": "string",  # s3://bucket/crdc_series_uuid/, phantom://patient_sha256/series_uid/ or file:///absolute/path
}
ROLES = ("image", "lesion", "lungs", "mask")
"""Roles of rows: `image` gives slices; `lesion` and `lungs` are DICOM SEG of a CT; `mask` is the mask of a picture."""
EVIDENCE = (
    "lesion_seg",  # a published segmentation of a lesion
    "clinical",  # the trial's clinical tables: diagnosed with lung cancer, or followed up and free of it
    "slice_labels",  # a table of slice labels
    "no_lesion_seg",  # presumed: nobody published a lesion of this patient
    "phantom",  # simulated
    "folder",  # the folder, table or dataset that the image came from
)
SLICE_LABEL_COLUMNS = {
    "series_uid": "string",
    "sop_uid": "string",  # missing where the evidence names the slice by number
    "instance_number": "Int64",  # missing where the evidence names the slice by UID
    "label": "string",
    "evidence": "string",  # one of EVIDENCE
    "lesion_mm": "Float64",  # longest diameter of the lesion in the slice; missing where the evidence does not say
}
FUNNEL_COLUMNS = {"rule": "string", "series": "Int64", "patients": "Int64"}
"""One row for each rule, in order: what was left after it. The first row counts all series before any rule."""


@dataclass(frozen=True)
class Cohort:
    """One row for each series (`COLUMNS`), labels of single slices where the evidence names slices, and the funnel.

    `classes` are the labels in the order of their codes; the last is the positive one. The hash leaves out the funnel:
    nothing that is made from a cohort depends on the series that were left out.
    """

    series: pd.DataFrame
    slice_labels: pd.DataFrame
    funnel: pd.DataFrame
    classes: tuple[str, ...] = CLASSES

    def __post_init__(self) -> None:
        series = _typed(self.series, COLUMNS, "cohort").sort_values("series_uid", ignore_index=True)
        object.__setattr__(self, "series", series)
        labels = _typed(self.slice_labels, SLICE_LABEL_COLUMNS, "slice labels")
        order = ["series_uid", "sop_uid", "instance_number"]
        object.__setattr__(self, "slice_labels", labels.sort_values(order, ignore_index=True))
        object.__setattr__(self, "funnel", _typed(self.funnel, FUNNEL_COLUMNS, "funnel"))

    @property
    def images(self) -> pd.DataFrame:
        """The rows that slices come from."""
        return self.series[self.series["role"] == "image"]

    @property
    def sha256(self) -> str:
        """Hash of series, slice labels and classes; the cache key of all that is made from this cohort."""
        return combine([table_sha256(self.series), table_sha256(self.slice_labels), *self.classes])

    def shards(self, count: int, numbers: Iterable[int] | None = None) -> Iterator["Cohort"]:
        """The cohort in `count` parts of whole patients, some perhaps empty: all parts, or those of `numbers`.

        A patient's key decides the part, so a cohort that grows changes few parts as long as `count` stays.
        """
        # Splits follow from another hash of the patient, so each part has patients of all splits.
        part = self.series["patient_key"].str[-8:].map(lambda digits: int(digits, 16) % count)
        series = dict(list(self.series.groupby(part)))
        part_of_label = self.slice_labels["series_uid"].map(dict(zip(self.series["series_uid"], part, strict=True)))
        labels = dict(list(self.slice_labels.groupby(part_of_label)))
        for index in range(count) if numbers is None else numbers:
            mine = series.get(index, self.series[:0]), labels.get(index, self.slice_labels[:0])
            yield Cohort(*mine, self.funnel, self.classes)

    def save(self, folder: Path) -> None:
        """Write `cohort.parquet`, `slice_labels.parquet`, `funnel.parquet` and `classes.json` into `folder`."""
        folder.mkdir(parents=True, exist_ok=True)
        self.series.to_parquet(folder / "cohort.parquet", index=False)
        self.slice_labels.to_parquet(folder / "slice_labels.parquet", index=False)
        self.funnel.to_parquet(folder / "funnel.parquet", index=False)
        (folder / "classes.json").write_text(json.dumps(self.classes))

    @classmethod
    def load(cls, folder: Path) -> "Cohort":
        """Read what `save` wrote."""
        series, labels, funnel = (
            pd.read_parquet(folder / f"{name}.parquet") for name in ("cohort", "slice_labels", "funnel")
        )
        return cls(series, labels, funnel, tuple(json.loads((folder / "classes.json").read_text())))


def funnel(*steps: tuple[str, pd.DataFrame]) -> pd.DataFrame:
    """The funnel from (rule, rows left after it), in order; rows have the columns collection and patient."""
    rows = [(rule, len(left), len(left[["collection", "patient"]].drop_duplicates())) for rule, left in steps]
    return pd.DataFrame(rows, columns=list(FUNNEL_COLUMNS))


def no_slice_labels() -> pd.DataFrame:
    """The empty slice-label table, for cohorts whose slices are labelled by segmentations."""
    return pd.DataFrame({name: pd.Series(dtype=kind) for name, kind in SLICE_LABEL_COLUMNS.items()})


def _typed(table: pd.DataFrame, columns: dict[str, str], what: str) -> pd.DataFrame:
    missing = [name for name in columns if name not in table]
    if missing:
        raise LungsynthError(f"{what} table lacks the columns {', '.join(missing)}")
    return table[list(columns)].astype(columns).reset_index(drop=True)


def picture_uid(sha256: str) -> str:
    """The series UID of the picture whose file has this SHA-256."""
    return f"image-{sha256[:32]}"
