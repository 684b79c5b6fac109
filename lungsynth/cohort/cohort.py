"""The cohort record: who takes part, with what label, on which side of the split, and where the data lie."""

from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from lungsynth.errors import LungsynthError
from lungsynth.hashing import combine, table_sha256

COLUMNS = {
    "collection": "string",  # IDC collection_id, or "phantom"
    "patient": "string",  # PatientID; it never leaves this record
    "patient_key": "string",  # salted pseudonym, which all later records carry instead
    "study_uid": "string",
    "series_uid": "string",
    "modality": "string",  # CT, or SEG for a lesion segmentation
    "source_series_uid": "string",  # of a SEG: the CT series that it segments; else missing
    "manufacturer": "string",
    "label": "string",  # the patient's class: cancer where any slice of theirs can be `cancer`
    "evidence": "string",  # what the label rests on: `slice_labels`, `lesion_seg`, `no_lesion_seg` or `phantom`
    "split": "string",  # train, val or test
    "license": "string",
    "doi": "string",
    "instances": "Int64",
    "bytes": "Int64",  # missing where the source does not publish it
    "url": "string",  # s3://bucket/crdc_series_uuid/ or phantom://recipe/series_uid/; its last part names the folder
}
SLICE_LABEL_COLUMNS = {"series_uid": "string", "sop_uid": "string", "label": "string"}
SPLITS = ("train", "val", "test")


@dataclass(frozen=True)
class Cohort:
    """One row per series (`COLUMNS`), and labels of single slices where a table gave them (`SLICE_LABEL_COLUMNS`)."""

    series: pd.DataFrame
    slice_labels: pd.DataFrame

    def __post_init__(self) -> None:
        object.__setattr__(self, "series", _typed(self.series, COLUMNS, "cohort"))
        object.__setattr__(self, "slice_labels", _typed(self.slice_labels, SLICE_LABEL_COLUMNS, "slice labels"))

    @property
    def ct(self) -> pd.DataFrame:
        """The rows of CT series."""
        return self.series[self.series["modality"] == "CT"]

    @property
    def seg(self) -> pd.DataFrame:
        """The rows of lesion segmentations."""
        return self.series[self.series["modality"] == "SEG"]

    @property
    def sha256(self) -> str:
        """The key of all that is made from this cohort."""
        return combine([table_sha256(self.series), table_sha256(self.slice_labels)])

    def save(self, folder: Path) -> None:
        """Write `cohort.parquet` and `slice_labels.parquet` into `folder`."""
        folder.mkdir(parents=True, exist_ok=True)
        self.series.to_parquet(folder / "cohort.parquet", index=False)
        self.slice_labels.to_parquet(folder / "slice_labels.parquet", index=False)

    @classmethod
    def load(cls, folder: Path) -> "Cohort":
        """Read what `save` wrote."""
        return cls(pd.read_parquet(folder / "cohort.parquet"), pd.read_parquet(folder / "slice_labels.parquet"))


def no_slice_labels() -> pd.DataFrame:
    """The empty slice-label table, for cohorts whose slices are labelled by segmentations."""
    return pd.DataFrame({name: pd.Series(dtype=kind) for name, kind in SLICE_LABEL_COLUMNS.items()})


def _typed(table: pd.DataFrame, columns: dict[str, str], what: str) -> pd.DataFrame:
    missing = [name for name in columns if name not in table]
    if missing:
        raise LungsynthError(f"{what} table lacks the columns {', '.join(missing)}")
    key = [name for name in ("series_uid", "sop_uid") if name in columns]
    return table[list(columns)].astype(columns).sort_values(key, ignore_index=True)
