"""Cohorts of the Imaging Data Commons, selected from the index that the `idc-index-data` package ships."""

import logging
from pathlib import Path
from typing import Literal

import duckdb
import pandas as pd
from pydantic import Field, model_validator

from lungsynth import CLASSES
from lungsynth.cohort.cohort import Cohort, no_slice_labels
from lungsynth.cohort.labels import LabelConfig, find_lesion_segs, label_by_segs, label_by_slices, read_slice_labels
from lungsynth.cohort.splits import SplitConfig, assign_splits, patient_key
from lungsynth.config import Config
from lungsynth.errors import LungsynthError

log = logging.getLogger(__name__)

# Select list from the index's columns to the cohort's. IDC's megabyte is decimal, so the bytes come out exact.
COLUMNS = """
    collection_id AS collection, PatientID AS patient, StudyInstanceUID AS study_uid, SeriesInstanceUID AS series_uid,
    Modality AS modality, Manufacturer AS manufacturer, license_short_name AS license, source_DOI AS doi,
    instanceCount AS instances, round(series_size_MB * 1e6)::BIGINT AS bytes, rtrim(series_aws_url, '*') AS url
"""


class IdcCohortConfig(Config):
    """Which series of IDC take part, and what labels them.

    At most one of `where`, `query` and `series` selects; with none of them, a table of slice labels does by the series
    that it names.
    """

    source: Literal["idc"] = "idc"
    where: str | None = Field(None, description="SQL condition over the index: collection_id = 'nlst' AND ...")
    query: Path | None = Field(None, description="SQL file over the table `index` that returns SeriesInstanceUID")
    series: Path | None = Field(None, description="text file with one SeriesInstanceUID a line")
    labels: LabelConfig
    min_instances: int = Field(20, ge=1, description="instances; fewer make a localizer, not a scan of the chest")
    series_per_patient: int = Field(1, ge=1, description="series; annotated ones first, then those of most instances")
    patients_per_class: int | None = Field(None, ge=1, description="patients; drawn by their salted hash")

    @model_validator(mode="after")
    def _one_selection(self) -> "IdcCohortConfig":
        given = sum(choice is not None for choice in (self.where, self.query, self.series))
        if given > 1 or (given == 0 and self.labels.slice_csv is None):
            raise ValueError("give exactly one of where, query and series; none only with labels.slice_csv")
        return self


def open_index() -> duckdb.DuckDBPyConnection:
    """A DuckDB connection with the packaged index, one row a series of IDC, as the view `index`.

    `idc_index.IDCClient` holds the same in pandas: a query takes it 18 s and 3.1 GB, and this 0.4 s and 0.2 GB.
    """
    from idc_index_data import IDC_INDEX_PARQUET_FILEPATH  # its import reads a dozen schema files

    connection = duckdb.connect()
    connection.read_parquet(str(IDC_INDEX_PARQUET_FILEPATH)).create_view("index")
    return connection


def select_idc(config: IdcCohortConfig, splits: SplitConfig) -> Cohort:
    """The cohort that the configuration describes: its CT series, and the lesion segmentations of those.

    Raises:
        LungsynthError: a file, the SQL, a UID or the slice labels are wrong, nothing matches, or a class stays empty.
    """
    slices, segs = no_slice_labels(), None
    with open_index() as index:
        if config.labels.slice_csv is not None:
            slices = read_slice_labels(config.labels.slice_csv)
        ct = _select_ct(index, config, slices)
        if config.labels.slice_csv is not None:
            ct = label_by_slices(ct, slices)
        elif config.labels.lesion_seg is not None:
            segs = find_lesion_segs(index, config.labels.lesion_seg, COLUMNS, config.min_instances)
            ct = label_by_segs(ct, segs)
    ct = _limit(ct, config, splits)
    slices = slices[slices["series_uid"].isin(ct["series_uid"])]
    _require_both_classes(ct if segs is not None else slices, "patients" if segs is not None else "slices")
    ct = ct.assign(split=assign_splits(ct, splits), source_series_uid=None)
    log.info("selected %d CT series of %d patients", len(ct), ct["patient_key"].nunique())
    return Cohort(ct if segs is None else pd.concat([ct, _seg_rows(segs, ct)]), slices)


def _select_ct(index: duckdb.DuckDBPyConnection, config: IdcCohortConfig, slices: pd.DataFrame) -> pd.DataFrame:
    """The selected series that are CT and long enough, in the cohort's columns."""
    if config.series is not None:
        index.register("selected", _read_series(index, config.series))
        what = f"the list {config.series}"
    elif config.query is not None:
        what = f"the query {config.query}"
        index.register("selected", _run(index, _read(config.query), what))
    elif config.where is not None:
        what = f"the condition {config.where}"
        index.register("selected", _run(index, f"SELECT * FROM index WHERE ({config.where}\n)", what))
    else:
        what = f"the slice labels {config.labels.slice_csv}"
        index.register("selected", slices[["series_uid"]].rename(columns={"series_uid": "SeriesInstanceUID"}))
    ct = index.execute(
        f"""
        SELECT {COLUMNS} FROM index
        WHERE SeriesInstanceUID IN (SELECT SeriesInstanceUID FROM selected)
          AND Modality = 'CT' AND instanceCount >= $min_instances AND PatientID IS NOT NULL
        """,
        {"min_instances": config.min_instances},
    ).df()
    if ct.empty:
        raise LungsynthError(
            f"no CT series of at least {config.min_instances} instances matches {what}: "
            f"compare its values with those of the IDC index, or lower min_instances"
        )
    return ct


def _run(index: duckdb.DuckDBPyConnection, sql: str, what: str) -> pd.DataFrame:
    try:
        relation = index.sql(sql)
        if relation is None or "SeriesInstanceUID" not in relation.columns:
            raise LungsynthError(f"{what} returns no column SeriesInstanceUID: select it")
        return relation.select("SeriesInstanceUID").df()
    except duckdb.Error as error:
        reason = " ".join(str(error).partition("\nLINE ")[0].split())
        raise LungsynthError(f"{what} is no valid SQL over the IDC index: {reason}") from None


def _read_series(index: duckdb.DuckDBPyConnection, path: Path) -> pd.DataFrame:
    uids = [uid for line in _read(path).splitlines() if (uid := line.partition("#")[0].strip())]
    if not uids:
        raise LungsynthError(f"the list {path} is empty: write one SeriesInstanceUID a line")
    table = pd.DataFrame({"SeriesInstanceUID": uids})
    index.register("listed", table)
    unknown = index.sql("SELECT SeriesInstanceUID FROM listed ANTI JOIN index USING (SeriesInstanceUID)").fetchall()
    if unknown:
        raise LungsynthError(
            f"{path} lists {len(unknown)} series that the IDC index does not know, the first is {unknown[0][0]}: "
            "correct or remove them, or install a newer idc-index-data"
        )
    return table


def _read(path: Path) -> str:
    try:
        return path.read_text()
    except (OSError, UnicodeDecodeError) as error:
        raise LungsynthError(f"cannot read {path}: {error}") from None


def _limit(ct: pd.DataFrame, config: IdcCohortConfig, splits: SplitConfig) -> pd.DataFrame:
    """The best series of each patient, and of each class the patients whose pseudonyms come first."""
    keys = [patient_key(*patient, splits.salt) for patient in zip(ct["collection"], ct["patient"], strict=True)]
    ct = ct.assign(patient_key=keys)
    best = ["patient_key", "annotated", "instances", "series_uid"]
    ct = ct.sort_values(best, ascending=[True, False, False, True])
    ct = ct.groupby("patient_key", sort=False).head(config.series_per_patient)
    if config.patients_per_class is None:
        return ct
    patients = ct[["label", "patient_key"]].drop_duplicates()
    drawn = patients.groupby("label", sort=False).head(config.patients_per_class)
    return ct[ct["patient_key"].isin(drawn["patient_key"])]


def _require_both_classes(table: pd.DataFrame, what: str) -> None:
    for name in CLASSES:
        if not (table["label"] == name).any():
            raise LungsynthError(f"the cohort has no {name} {what}: widen the selection, or check `labels`")


def _seg_rows(segs: pd.DataFrame, ct: pd.DataFrame) -> pd.DataFrame:
    """Rows of the segmentations of the chosen CT series; one that may belong to several goes to the longest."""
    shared = ct[["series_uid", "instances", "patient_key", "label", "evidence", "split"]]
    rows = segs.merge(shared, left_on="source_series_uid", right_on="series_uid", suffixes=("", "_of_ct"))
    rows = rows.sort_values(["instances_of_ct", "series_uid_of_ct"], ascending=[False, True])
    return rows.drop_duplicates("series_uid")
