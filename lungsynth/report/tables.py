"""Tables of a report, made from the records of a run. None of them holds a patient identifier."""

from collections.abc import Hashable, Sequence
from typing import NamedTuple

import pandas as pd

from lungsynth.cohort.cohort import Cohort
from lungsynth.dataset.store import SliceDataset
from lungsynth.dataset.vocabulary import SPLITS
from lungsynth.evaluation.quantities import COMPARED, Topic
from lungsynth.evaluation.scorecard import Measurand, Metric, Scorecard
from lungsynth.evaluation.statistics import Measure
from lungsynth.registry.connection import shown
from lungsynth.verdict.arms import ARM_FORMULAS, ArmFormula


class MetricRow(NamedTuple):
    """A metric in words; see `Metric`."""

    name: str
    value: str
    interval: str
    floor: str
    n: str
    computed_with: str


def number(value: float) -> str:
    """A number for a reader: whole numbers as they are, others to about three significant digits."""
    if float(value).is_integer() and abs(value) < 1e9:
        return f"{value:.0f}"
    size = abs(value)
    if size >= 10:
        return f"{value:.1f}"
    return f"{value:.3f}" if size >= 0.01 else f"{value:.2g}"


def interval(metric: Metric) -> str:
    """The 95 % interval, or nothing where there is none."""
    return "" if metric.low is None or metric.high is None else f"{number(metric.low)} to {number(metric.high)}"


def metric_rows(metrics: Sequence[Metric]) -> list[MetricRow]:
    """One row for each metric, with its floor beside it if `metrics` has that."""
    floors = {metric.base_name: metric for metric in metrics if metric.floor}
    return [
        MetricRow(
            metric.name,
            number(metric.value),
            interval(metric),
            number(floors[metric.base_name].value) if metric.base_name in floors else "",
            ", ".join(f"{count} {what}" for what, count in metric.n.items()),
            metric.computed_with,
        )
        for metric in metrics
        if not metric.floor
    ]


class NormalisedRow(NamedTuple):
    """A distance under every normalisation, for synthetic and for held-out slices, by normalisation."""

    measurand: Measurand
    synthetic: dict[str, Metric]
    floor: dict[str, Metric]


def normalised_rows(scorecard: Scorecard) -> list[NormalisedRow]:
    """The distances that were measured under several normalisations; none if all were under the dataset's window."""
    rows: dict[str, NormalisedRow] = {}
    for metric in scorecard.metrics:
        if metric.floor or metric.normalisation is None or metric.quantity.unit != "distance":
            continue
        if (real := scorecard.floor_of(metric)) is None:
            continue
        own = Measurand(quantity=metric.quantity, extractor=metric.extractor)
        if own.name not in rows:
            window, real_window = (scorecard[one.name] for one in (own, own.model_copy(update={"floor": True})))
            rows[own.name] = NormalisedRow(own, {"window": window}, {"window": real_window})
        rows[own.name].synthetic[metric.normalisation] = metric
        rows[own.name].floor[metric.normalisation] = real
    return list(rows.values())


def arm_formulas(measure: Measure) -> list[ArmFormula]:
    """The columns of the arms' table: first what is in the unit that arms are compared by."""
    return sorted(ARM_FORMULAS[measure], key=lambda formula: formula.quantity.unit != measure)


def arm_rows(scorecard: Scorecard, measure: Measure) -> list[dict[str, object]]:
    """One row for each arm, with the metrics of `arm_formulas` that it has."""
    quantities = [formula.quantity for formula in arm_formulas(measure)]
    return [
        {"arm": arm, "cells": [_cell(scorecard.find(Measurand(quantity=one, arm=arm))) for one in quantities]}
        for arm in compared_arms(scorecard, measure)
    ]


def compared_arms(scorecard: Scorecard, measure: Measure) -> dict[str, Metric]:
    """AUROC or Dice of every arm."""
    return {metric.arm: metric for metric in scorecard.metrics if metric.arm and metric.quantity == COMPARED[measure]}


def _cell(metric: Metric | None) -> tuple[str, str]:
    return (number(metric.value), interval(metric)) if metric else ("", "")


def by_topic(scorecard: Scorecard) -> dict[Topic, list[MetricRow]]:
    """The scorecard's metrics by topic, without those under other normalisations; see `normalised_rows`."""
    shown = [metric for metric in scorecard.metrics if metric.normalisation is None]
    topics: tuple[Topic, ...] = ("fidelity", "privacy", "utility")
    return {topic: metric_rows([metric for metric in shown if metric.quantity.topic == topic]) for topic in topics}


def origin(cohort: Cohort) -> list[dict[Hashable, object]]:
    """Patients, series, licence and DOI of each collection and modality; segmentations and masks apart from images."""
    keys = ["collection", "modality", "license", "doi"]
    image, modality = cohort.series["role"] == "image", cohort.series["modality"]
    rows = cohort.series.assign(modality=modality.where(image, modality + " " + cohort.series["role"]))
    groups = rows.groupby(keys, dropna=False, sort=True)
    counts = groups.agg(
        patients=("patient_key", "nunique"), series=("series_uid", "count"), instances=("instances", "sum")
    )
    return counts.reset_index().fillna({"license": "", "doi": ""}).to_dict("records")


def splits(dataset: SliceDataset) -> list[dict[str, object]]:
    """Slices and patients of each split and class."""
    table = dataset.table
    rows = []
    for split in SPLITS:
        for name in dataset.meta.classes:
            part = table[(table["split"] == split) & (table["label"] == name)]
            rows.append({"split": split, "label": name, "slices": len(part), "patients": part["patient"].nunique()})
    return rows


def rejected(dataset: SliceDataset) -> list[dict[str, object]]:
    """For each reason, how many series gave no slices, with the detail of the first and the last try to fetch it."""
    groups = dataset.rejected.groupby("reason", sort=True)
    asked = _asked(dataset)
    return [
        {
            "reason": reason,
            "series": len(group),
            "detail": "; ".join(filter(None, [group["detail"].iloc[0], asked.get(group["series_uid"].iloc[0])])),
        }
        for reason, group in groups
    ]


def noted(dataset: SliceDataset) -> list[dict[str, object]]:
    """How many series have a note of each kind, with the first such note; notes of a kind differ only in numbers."""
    notes = dataset.series["notes"].fillna("").str.split("\n").explode()
    notes = notes[notes != ""]
    kinds = notes.str.replace(r"[\d.]+", "#", regex=True)
    groups = sorted(notes.groupby(kinds), key=lambda group: -len(group[1]))
    return [{"note": group.iloc[0], "series": group.index.nunique()} for _, group in groups]


def public_cohort(cohort: Cohort) -> pd.DataFrame:
    """The cohort without PatientID, study UID and file paths; the series UID stays, since it names the data used.

    Patients have numbers instead of their keys: the salt's default is public, and with the salt a key can be turned
    back into a PatientID by trying all of these. File names may name patients.
    """
    series = cohort.series.assign(patient=_numbered(cohort.series["patient_key"], cohort))
    url = series["url"].mask(series["url"].str.startswith("file:"))
    return series.drop(columns=["patient_key", "study_uid"]).assign(url=url)


def public_series(dataset: SliceDataset, cohort: Cohort) -> pd.DataFrame:
    """What became of each series, with patients numbered as in `public_cohort`, and the last try to fetch it."""
    series = dataset.series
    asked = series["series_uid"].map(_asked(dataset)).astype("string")
    return series.assign(patient=_numbered(series["patient"], cohort), asked=asked)


def _asked(dataset: SliceDataset) -> dict[str, str]:
    """By series UID, when a series that lacks files was last asked for, and the store's answer."""
    return {one.image_uid: f"last asked for on {one.asked}: {one.answer}" for one in dataset.undelivered}


def public_config(value: object) -> object:
    """A configuration, or a part of one, without the salt of the patients' keys and without passwords in URIs."""
    match value:
        case dict():
            return {key: public_config(part) for key, part in value.items() if key != "salt"}
        case list() | tuple():
            return [public_config(part) for part in value]
        case str():
            return shown(value)
    return value


def _numbered(keys: pd.Series, cohort: Cohort) -> pd.Series:
    """Numbers from 1 of patients, in the order of the cohort, in place of their keys."""
    numbers = {key: place for place, key in enumerate(cohort.series["patient_key"].unique(), 1)}
    return keys.map(numbers).astype("Int64")
