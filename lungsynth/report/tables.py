"""Tables of a report, made from the records of a run. None of them holds a patient identifier."""

from collections.abc import Hashable
from typing import NamedTuple

import pandas as pd

from lungsynth.cohort.cohort import Cohort
from lungsynth.dataset.store import SliceDataset
from lungsynth.dataset.vocabulary import SPLITS
from lungsynth.evaluation.scorecard import Metric, Scorecard
from lungsynth.evaluation.statistics import Measure
from lungsynth.registry.connection import shown

DISTANCES = ("fid_", "kid_")
FIDELITY = ("fid_", "kid_", "precision_", "recall_", "density_", "coverage_", "modes_", "ms_ssim")
ELSEWHERE = ("power/", "unjudged/")
"""Of the gate's numbers, those that a curve and a sentence show."""
ARM_MEASURES: dict[Measure, dict[str, str]] = {
    "AUROC": {
        "auroc": "AUROC",
        "auroc_patient": "AUROC by patient",
        "average_precision": "average precision",
        "sensitivity": "sensitivity",
        "specificity": "specificity",
        "brier": "Brier score",
        "calibration_error": "calibration error",
    },
    "Dice": {"dice": "Dice"},
}
"""Metrics of an arm, by what arms are compared by, with their names in a table."""


class MetricRow(NamedTuple):
    """A metric in words; `floor` is what real slices of other patients score."""

    name: str
    value: str
    interval: str
    floor: str
    n: str
    computed_with: str


def number(value: float) -> str:
    """A number as a reader wants it: counts whole, the rest with about three digits that mean something."""
    if float(value).is_integer() and abs(value) < 1e9:
        return f"{value:.0f}"
    size = abs(value)
    if size >= 10:
        return f"{value:.1f}"
    return f"{value:.3f}" if size >= 0.01 else f"{value:.2g}"


def interval(metric: Metric) -> str:
    """The 95 % interval, or nothing where there is none."""
    return "" if metric.low is None or metric.high is None else f"{number(metric.low)} to {number(metric.high)}"


def metric_rows(metrics: tuple[Metric, ...] | list[Metric]) -> list[MetricRow]:
    """One row for each metric; a `…/floor` stands beside the metric that it belongs to."""
    floors = {metric.name.removesuffix("/floor"): metric for metric in metrics if metric.name.endswith("/floor")}
    return [
        MetricRow(
            metric.name,
            number(metric.value),
            interval(metric),
            number(floors[metric.name].value) if metric.name in floors else "",
            ", ".join(f"{count} {what}" for what, count in metric.n.items()),
            metric.computed_with,
        )
        for metric in metrics
        if not metric.name.endswith("/floor")
    ]


class NormalisedRow(NamedTuple):
    """A distance under every normalisation: those of synthetic slices, and of held-out ones, by normalisation."""

    measure: str
    synthetic: dict[str, Metric]
    floor: dict[str, Metric]


def normalised_rows(scorecard: Scorecard) -> list[NormalisedRow]:
    """The distances that were measured under several normalisations; none if all were under the dataset's window."""
    found = {metric.name: metric for metric in scorecard.metrics}
    names = [
        name.split("@") for name in found if name.startswith(DISTANCES) and "@" in name and f"{name}/floor" in found
    ]
    rows = []
    for measure in dict.fromkeys(measure for measure, _ in names):
        under = {"window": measure} | {how: f"{measure}@{how}" for base, how in names if base == measure}
        floors = {how: found[f"{name}/floor"] for how, name in under.items()}
        rows.append(NormalisedRow(measure, {how: found[name] for how, name in under.items()}, floors))
    return rows


def arm_rows(utility: list[Metric], measure: Measure) -> list[dict[str, object]]:
    """One row for each arm, with the metrics of `ARM_MEASURES` that it has."""
    found, prefix = {metric.name: metric for metric in utility}, f"{measure.lower()}/"
    arms = [name.removeprefix(prefix) for name in found if name.startswith(prefix)]
    return [
        {"arm": arm, "cells": [_cell(found.get(f"{name}/{arm}")) for name in ARM_MEASURES[measure]]} for arm in arms
    ]


def _cell(metric: Metric | None) -> tuple[str, str]:
    return (number(metric.value), interval(metric)) if metric else ("", "")


def by_topic(scorecard: Scorecard) -> dict[str, list[Metric]]:
    """The scorecard's metrics under `fidelity`, `privacy` and `utility`."""
    topics: dict[str, list[Metric]] = {"fidelity": [], "privacy": [], "utility": []}
    for metric in scorecard.metrics:
        prefix = metric.name.partition("/")[0]
        topic = "privacy" if prefix == "privacy" else "fidelity" if prefix.startswith(FIDELITY) else "utility"
        if topic != "fidelity" or "@" not in metric.name:  # see `normalised_rows`
            topics[topic].append(metric)
    return topics


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
    """How many series gave no slices, for each reason, with the detail of the first, and when it was last asked for."""
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
    """How many series were odd in each way, with the first one's note; notes of one kind differ in numbers alone."""
    notes = dataset.series["notes"].fillna("").str.split("\n").explode()
    notes = notes[notes != ""]
    kinds = notes.str.replace(r"[\d.]+", "#", regex=True)
    groups = sorted(notes.groupby(kinds), key=lambda group: -len(group[1]))
    return [{"note": group.iloc[0], "series": group.index.nunique()} for _, group in groups]


def public_cohort(cohort: Cohort) -> pd.DataFrame:
    """The cohort without PatientID and study UID; the series UID stays, since it names the data that were used.

    Patients are numbered: with the salt, whose default everybody knows, trying all PatientIDs turns a key back into
    one. Paths of files go as well: their names may name patients.
    """
    series = cohort.series.assign(patient=_numbered(cohort.series["patient_key"], cohort))
    url = series["url"].mask(series["url"].str.startswith("file:"))
    return series.drop(columns=["patient_key", "study_uid"]).assign(url=url)


def public_series(dataset: SliceDataset, cohort: Cohort) -> pd.DataFrame:
    """What became of each series, with patients numbered as in `public_cohort`; of those not had, the last answer."""
    series = dataset.series
    asked = series["series_uid"].map(_asked(dataset)).astype("string")
    return series.assign(patient=_numbered(series["patient"], cohort), asked=asked)


def _asked(dataset: SliceDataset) -> dict[str, str]:
    """When it was last tried to have what an image series lacks, and the answer, by its UID."""
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
