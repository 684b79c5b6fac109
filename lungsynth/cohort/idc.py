"""Cohorts of the Imaging Data Commons: from its packaged index or BigQuery, by evidence and explicit rules."""

import logging
import re
from pathlib import Path
from typing import Literal, Self

import pandas as pd
from pydantic import Field, model_validator

from lungsynth.cohort.bigquery import BigQueryConfig, BigQuerySource
from lungsynth.cohort.cohort import COLUMNS, Cohort
from lungsynth.cohort.descriptions import describe
from lungsynth.cohort.labels import LabelConfig, find_lesion_segs, label_series, read_slice_labels
from lungsynth.cohort.rules import RuleConfig, Selection, choice_rules, series_rules
from lungsynth.cohort.sources import UID, IndexSource, Source
from lungsynth.cohort.splits import SplitConfig, assign_splits, patient_key
from lungsynth.config import Config
from lungsynth.dataset.vocabulary import CLASSES
from lungsynth.errors import LungsynthError

log = logging.getLogger(__name__)


class IdcCohortConfig(Config):
    """Which series of IDC take part, and what labels them.

    At most one of `query` and `series` selects; with neither, the table of slice labels does: the series that it names.
    """

    source: Literal["idc"] = "idc"
    bigquery: BigQueryConfig | None = Field(None, description="IDC in BigQuery; its packaged index if not given")
    query: Path | None = Field(None, description="SQL file that returns SERIES_COLUMNS of CT and SEG series alike")
    series: Path | None = Field(None, description="text file with one SeriesInstanceUID of a CT a line")
    labels: LabelConfig
    lung_seg: str | None = Field(
        None, description="analysis result of IDC whose lung masks are fetched: totalsegmentator_ct_segmentations"
    )
    rules: RuleConfig = RuleConfig()

    @model_validator(mode="after")
    def _one_selection(self) -> Self:
        if (self.query is not None) + (self.series is not None) > 1:
            raise ValueError("give query or series, not both")
        if self.query is None and self.series is None and self.labels.slice_csv is None:
            raise ValueError("give query or series; neither is needed only with labels.slice_csv")
        if self.query is None and self.bigquery is not None:
            raise ValueError("BigQuery needs a query, such as configs/cohorts/nlst_bigquery.sql")
        return self


def select_idc(config: IdcCohortConfig, splits: SplitConfig) -> Cohort:
    """The cohort that the configuration describes: its CT series, and the segmentations of their lesions and lungs.

    Raises:
        LungsynthError: a file, the SQL, a UID or the evidence is wrong, a rule leaves nothing, or a class stays empty.
    """
    selection = Selection()
    with _open(config) as source:
        queried = _find(source, config)
        selection.record("all that the query gives", queried)
        # An analysis result may hold CT too: copies of the collection's own series.
        queried = queried[(queried["modality"] != "CT") | queried["analysis_result"].isna()]
        selection.record("original CT", queried[queried["modality"] == "CT"])
        labelled = label_series(queried, config.labels, source, min_instances=config.rules.min_instances)
    for rule, left in labelled.steps:
        selection.record(rule, left)
    described = describe(labelled.images)
    selection.series = described.assign(patient_key=_patient_keys(described, splits.salt))
    selection.apply([*series_rules(config.rules), *choice_rules(config.rules, splits.salt)])
    if config.rules.controls is not None:
        selection.match(config.rules.controls, splits.salt)
    images = selection.series.assign(role="image")
    slices = labelled.slices[labelled.slices["series_uid"].isin(images["series_uid"])]
    _require_both_classes(selection, slices)
    images["split"] = assign_splits(images, splits)
    rows = [images, _segmentations(labelled.lesions, images, "lesion")]
    if config.lung_seg is not None:
        rows.append(_segmentations(_find_lung_segs(queried, images, config), images, "lungs"))
    log.info("selected %d CT series of %d patients", len(images), images["patient_key"].nunique())
    series = pd.concat([part.reindex(columns=list(COLUMNS)).astype(COLUMNS) for part in rows])
    return Cohort(series, slices, selection.funnel)


def _open(config: IdcCohortConfig) -> Source:
    tables = config.labels.clinical.tables if config.labels.clinical is not None else None
    return IndexSource(tables) if config.bigquery is None else BigQuerySource(config.bigquery, tables)


def _find(source: Source, config: IdcCohortConfig) -> pd.DataFrame:
    """All rows that the configuration selects, CT and segmentations, in `SERIES_COLUMNS`."""
    if config.query is not None:
        return source.series(_read(config.query), f"the query {config.query}")
    if config.series is not None:
        return _find_listed(source, _read_uids(config.series), str(config.series))
    assert config.labels.slice_csv is not None  # checked by the configuration
    labelled = read_slice_labels(config.labels.slice_csv)["series_uid"]
    return _find_listed(source, sorted(set(labelled)), "the table of slice labels")


def _find_listed(source: Source, uids: list[str], where: str) -> pd.DataFrame:
    """The series of these UIDs, and all segmentations of the same patients."""
    if strange := [uid for uid in uids if not re.fullmatch(UID, uid)]:
        raise LungsynthError(f"{where} has {strange[0][:80]!r}, which is no SeriesInstanceUID: correct it")
    listed = ", ".join(f"'{uid}'" for uid in uids)
    patients = f"SELECT (collection, patient) FROM series WHERE series_uid IN ({listed})"
    segmentations = f"modality = 'SEG' AND (collection, patient) IN ({patients})"
    series = source.series(f"SELECT * FROM series WHERE series_uid IN ({listed}) OR ({segmentations})", where)
    if unknown := sorted(set(uids) - set(series["series_uid"])):
        raise LungsynthError(
            f"{where} names {len(unknown)} series that the IDC index does not know, the first is {unknown[0]}: "
            "correct or remove them, or install a newer idc-index-data"
        )
    return series


def _read_uids(path: Path) -> list[str]:
    uids = {uid for line in _read(path).splitlines() if (uid := line.partition("#")[0].strip())}
    if not uids:
        raise LungsynthError(f"the list {path} is empty: write one SeriesInstanceUID a line")
    return sorted(uids)


def _read(path: Path) -> str:
    try:
        return path.read_text()
    except (OSError, UnicodeDecodeError) as error:
        raise LungsynthError(f"cannot read {path}: {error}") from None


def _patient_keys(series: pd.DataFrame, salt: str) -> pd.Series:
    identities = series[["collection", "patient"]].drop_duplicates()
    pairs = zip(identities["collection"], identities["patient"], strict=True)
    identities["key"] = [patient_key(collection, patient, salt) for collection, patient in pairs]
    return series[["collection", "patient"]].merge(identities, how="left")["key"].set_axis(series.index)


def _require_both_classes(selection: Selection, slices: pd.DataFrame) -> None:
    """Raise an error if a class has neither patients nor single slices of other patients."""
    for name in CLASSES:
        if name in selection.lost and not (slices["label"] == name).any():
            raise LungsynthError(
                f"the cohort has no {name} patients after the rule «{selection.lost[name]}»: "
                "loosen it, widen the query, or check `labels`"
            )


def _find_lung_segs(series: pd.DataFrame, images: pd.DataFrame, config: IdcCohortConfig) -> pd.DataFrame:
    """The published lung masks of the chosen studies, each with the series that it may segment."""
    name, near = str(config.lung_seg), series[series["study_uid"].isin(images["study_uid"])]
    if not (near["analysis_result"] == name).any():
        raise LungsynthError(
            f"the query gives no segmentation of {name} for the chosen series: correct `lung_seg`, "
            "or let the query return series of modality SEG too"
        )
    return find_lesion_segs(near, (name,), config.rules.min_instances)


def _segmentations(segs: pd.DataFrame, images: pd.DataFrame, role: str) -> pd.DataFrame:
    """Rows of the segmentations of the chosen CT series; one that may belong to several is given to the longest.

    If two series of a study have the same number, a CT may get two segmentations; the files tell which one is its own.
    """
    shared = ["patient_key", "label", "evidence", "split", "sex", "age"]
    of_image = images[["series_uid", "instances", *shared]].rename(
        columns={"series_uid": "source_series_uid", "instances": "length"}
    )
    rows = segs.drop(columns=shared, errors="ignore").merge(of_image, on="source_series_uid")
    rows = rows.sort_values(["length", "source_series_uid"], ascending=[False, True])
    return rows.drop_duplicates("series_uid").assign(role=role)
