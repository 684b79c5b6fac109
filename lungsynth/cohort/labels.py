"""What says that a patient or a slice shows cancer: a table of slice labels, or published lesion segmentations."""

import logging
from pathlib import Path

import duckdb
import pandas as pd
from pydantic import Field, field_validator, model_validator

from lungsynth import CLASSES
from lungsynth.config import Config
from lungsynth.errors import LungsynthError

log = logging.getLogger(__name__)

CSV_COLUMNS = {
    "collection_id": "collection",
    "PatientID": "patient",
    "SeriesInstanceUID": "series_uid",
    "SOPInstanceUID": "sop_uid",
    "label": "label",
}


class LabelConfig(Config):
    """Where the labels come from: exactly one of the two.

    With `lesion_seg`, patients who have such a segmentation are `cancer`, and all others are *presumed* non-cancer.
    Each name is an analysis result of IDC, such as `nlstseg`, or a collection whose own segmentations are meant.
    """

    slice_csv: Path | None = Field(None, description=f"CSV file with the columns {', '.join(CSV_COLUMNS)}")
    lesion_seg: tuple[str, ...] | None = Field(None, min_length=1, description="one name or a list of names")

    @field_validator("lesion_seg", mode="before")
    @classmethod
    def _one_name(cls, value: object) -> object:
        return (value,) if isinstance(value, str) else value

    @model_validator(mode="after")
    def _exactly_one(self) -> "LabelConfig":
        if (self.slice_csv is None) == (self.lesion_seg is None):
            raise ValueError("give exactly one of slice_csv and lesion_seg")
        return self


def read_slice_labels(path: Path) -> pd.DataFrame:
    """The table of slice labels under the names that the cohort uses: the values of `CSV_COLUMNS`.

    Raises:
        LungsynthError: the file or a column is missing, a label is not one of CLASSES, or a slice has two labels.
    """
    try:
        table = pd.read_csv(path, dtype="string")
    except (OSError, UnicodeDecodeError, pd.errors.ParserError, pd.errors.EmptyDataError) as error:
        raise LungsynthError(f"cannot read the slice labels {path}: {error}") from None
    missing = [name for name in CSV_COLUMNS if name not in table]
    if missing:
        raise LungsynthError(f"{path} lacks the column(s) {', '.join(missing)}: name them in its header")
    table = table[list(CSV_COLUMNS)].rename(columns=CSV_COLUMNS).drop_duplicates()
    if table.isna().any(axis=None):
        raise LungsynthError(
            f"{path} has {table.isna().any(axis=1).sum()} row(s) with an empty cell: fill or remove them"
        )
    strange = table.loc[~table["label"].isin(CLASSES), "label"]
    if len(strange):
        raise LungsynthError(f"{path} has the label {strange.iloc[0]!r}: it must be {' or '.join(CLASSES)}")
    twice = table.loc[table["sop_uid"].duplicated(), "sop_uid"]
    if len(twice):
        raise LungsynthError(f"{path} names the slice {twice.iloc[0]} in rows that differ: keep one of them")
    return table


def label_by_slices(ct: pd.DataFrame, slices: pd.DataFrame) -> pd.DataFrame:
    """The CT series that have labelled slices, with the patient's `label`, its `evidence`, and whether `annotated`."""
    labelled = ct[ct["series_uid"].isin(slices["series_uid"])].copy()
    if labelled.empty:
        raise LungsynthError(f"none of the {len(ct)} selected CT series has a labelled slice: select series of the CSV")
    if len(labelled) < len(ct):
        log.warning("%d of %d selected CT series have no labelled slice: left out", len(ct) - len(labelled), len(ct))
    cancer = slices[slices["label"] == "cancer"]
    has_cancer = _patients(labelled).isin(_patients(cancer))
    return labelled.assign(
        label=has_cancer.map({True: "cancer", False: "non-cancer"}),
        evidence="slice_labels",
        annotated=labelled["series_uid"].isin(cancer["series_uid"]),
    )


def find_lesion_segs(
    index: duckdb.DuckDBPyConnection, names: tuple[str, ...], columns: str, min_instances: int
) -> pd.DataFrame:
    """All lesion segmentations of these names, with each CT series that they may segment: one row a pair.

    The packaged index does not name the segmented series, so it is found within the study: by the series number in the
    description (`NLSTSeg Segmentation of Series: 2`), else every CT series of the study remains possible. Frames are
    matched to slices by plane position later on. The result has `columns` (an SQL select list) and `source_series_uid`,
    which is missing where no CT series was found.

    Raises:
        LungsynthError: the index has no segmentation of one of the names.
    """
    segs = index.execute(
        rf"""
        WITH seg AS (
            SELECT {columns}, coalesce(analysis_result_id, collection_id) AS found_as,
                   regexp_extract(SeriesDescription, '[Ss]eries:? *(\d+)', 1) AS number
            FROM index WHERE Modality = 'SEG' AND list_contains($names, found_as)
        )
        SELECT seg.*, ct.SeriesInstanceUID AS source_series_uid, coalesce(ct.SeriesNumber = number, false) AS is_named
        FROM seg LEFT JOIN index AS ct
          ON ct.StudyInstanceUID = study_uid AND ct.Modality = 'CT' AND ct.instanceCount >= $min_instances
        QUALIFY is_named = bool_or(is_named) OVER (PARTITION BY series_uid)
        """,
        {"names": list(names), "min_instances": min_instances},
    ).df()
    unknown = set(names) - set(segs["found_as"])
    if unknown:
        raise LungsynthError(
            f"the IDC index has no segmentation of {', '.join(sorted(unknown))}: "
            "`lesion_seg` takes an analysis_result_id such as nlstseg, or a collection_id"
        )
    return segs


def label_by_segs(ct: pd.DataFrame, segs: pd.DataFrame) -> pd.DataFrame:
    """The CT series that may take part, with the patient's `label`, its `evidence`, and whether `annotated`.

    A patient with a lesion segmentation anywhere in IDC is `cancer`, and only their segmented series stay: what an
    unsegmented one shows is not known.
    """
    has_lesion = _patients(ct).isin(_patients(segs))
    annotated = ct["series_uid"].isin(segs["source_series_uid"])
    return ct.assign(
        label=has_lesion.map({True: "cancer", False: "non-cancer"}),
        evidence=has_lesion.map({True: "lesion_seg", False: "no_lesion_seg"}),
        annotated=annotated,
    )[annotated | ~has_lesion]


def _patients(table: pd.DataFrame) -> pd.Series:
    return table["collection"] + "\0" + table["patient"]
