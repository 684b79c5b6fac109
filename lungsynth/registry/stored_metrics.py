"""How metrics lie in MLflow, which keeps numbers by name alone: written here, and found again here."""

import re
from collections.abc import Iterable, Mapping
from typing import NamedTuple

from lungsynth.evaluation.fidelity.formulas import distances
from lungsynth.evaluation.quantities import Quantity
from lungsynth.evaluation.scorecard import Measurand, Metric


class Stored(NamedTuple):
    """A number and its 95 % interval, as far as MLflow has them."""

    value: float | None
    low: float | None
    high: float | None


def to_store(metrics: Iterable[Metric]) -> dict[str, float]:
    """Values and interval bounds by the names under which MLflow keeps them."""
    numbers: dict[str, float | None] = {}
    for metric in metrics:
        numbers |= zip(_names(metric), (metric.value, metric.low, metric.high), strict=True)
    return {name: value for name, value in numbers.items() if value is not None}


def find(stored: Mapping[str, float], measurand: Measurand) -> Stored:
    """What MLflow has of one measurand."""
    return Stored(*(stored.get(name) for name in _names(measurand)))


def stored_distances() -> dict[str, Quantity]:
    """Every name that a distance of all slices can have, and what it measures."""
    return {_names(measurand)[0]: measurand.quantity for measurand in distances()}


def _names(measurand: Measurand) -> tuple[str, str, str]:
    """Of the value, of the lower and of the upper bound, in characters that MLflow allows."""
    name = re.sub(r"[^\w\-. :/]", "_", measurand.name)
    return name, f"{name}.low", f"{name}.high"
