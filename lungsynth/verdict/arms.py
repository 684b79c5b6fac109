"""What each arm's classifiers or segmenters achieve on the test patients."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property, partial
from typing import NamedTuple

import numpy as np

from lungsynth.evaluation.quantities import COMPARED, Quantity
from lungsynth.evaluation.scorecard import Measurand, Metric, Scorecard
from lungsynth.evaluation.statistics import (
    Estimate,
    Measure,
    Resamples,
    average_precision,
    bootstrap,
    interval,
    measure_interval,
    pair_counts,
    patient_means,
    rate,
    resample,
    youden_threshold,
)
from lungsynth.evaluation.utility.predictions import Predictions, Scores
from lungsynth.verdict.calibration import brier, calibration_error, recalibrated


@dataclass(frozen=True)
class ArmScores:
    """An arm's scores, and resamples of the test patients. What several formulas need is computed once."""

    val: Scores
    test: Scores
    drawn: Resamples

    @cached_property
    def called(self) -> np.ndarray:
        """Which test slices each classifier calls positive, bool S×N: from the score on that is best on its `val`."""
        return np.array([
            row >= youden_threshold(val_row, self.val.labels)
            for row, val_row in zip(self.test.scores, self.val.scores, strict=True)
        ])  # fmt: skip

    @cached_property
    def probabilities(self) -> np.ndarray:
        """Probabilities S×N of test slices, after a logistic fit on `val` for each classifier."""
        return np.array([
            recalibrated(val_row, self.val.labels, row)
            for val_row, row in zip(self.val.scores, self.test.scores, strict=True)
        ])  # fmt: skip


def score_arms(predictions: Predictions, resamples: int, seed: int) -> Scorecard:
    """Every one of `ARM_FORMULAS` for every arm on `test`, as means over training seeds.

    Where each class has but one patient there is no interval: nothing can be resampled, and an interval without width
    would be false.
    """
    metrics = []
    for arm in predictions.arms:
        test = predictions.of(arm, "test")
        drawn = resample(test.labels, test.patients, len(test.scores), resamples=resamples, seed=seed)
        n = {"slices": len(test.labels), "patients": drawn.patients.shape[1], "seeds": len(test.scores)}
        scores = ArmScores(predictions.of(arm, "val"), test, drawn)
        for formula in ARM_FORMULAS[predictions.measure]:
            if estimate := formula.compute(scores):
                how = ", ".join([*formula.first, bootstrap(len(test.scores), resamples)])
                measurand = Measurand(quantity=formula.quantity, arm=arm)
                metrics.append(Metric.of(measurand, estimate, how, n=n, bounded=drawn.varied))
    return Scorecard(metrics=tuple(metrics), notes=predictions.notes)


def _auroc(scores: ArmScores) -> Estimate:
    return measure_interval(pair_counts(*scores.test), scores.drawn)


def _average_precision(scores: ArmScores) -> Estimate:
    test, weights = scores.test, scores.drawn.with_sample[:, scores.test.patients]
    by_seed = [average_precision(row, test.labels, weights) for row in test.scores]
    return interval(np.stack(by_seed, axis=1), scores.drawn)


def _rate(scores: ArmScores, *, label: int) -> Estimate:
    """Share of the slices of one class that classifiers call rightly."""
    side, weights = scores.test.labels == label, scores.drawn.with_sample
    shares = [rate(row[side], scores.test.patients[side], weights) for row in scores.called == label]
    return interval(np.stack(shares, axis=1), scores.drawn)


def _error(
    scores: ArmScores, *, of: Callable[[np.ndarray, np.ndarray, np.ndarray, np.ndarray], np.ndarray]
) -> Estimate:
    """An error of the probabilities; `of`: see `calibration`."""
    test, weights = scores.test, scores.drawn.with_sample
    by_seed = [of(row, test.labels, test.patients, weights) for row in scores.probabilities]
    return interval(np.stack(by_seed, axis=1), scores.drawn)


def _auroc_by_patient(scores: ArmScores) -> Estimate | None:
    """AUROC of patients: positive with any positive slice, scored by the mean over slices; None for one class alone.

    The greatest score would not do: it is greater of many slices than of few, and patients with a lesion have fewer
    labelled slices than those without.
    """
    test = scores.test
    means = patient_means(test.scores, test.patients).means
    positive = np.bincount(test.patients, test.labels) > 0
    whole = Scores(means, positive.astype(int), np.arange(len(positive)))
    return measure_interval(pair_counts(*whole), scores.drawn) if np.ptp(whole.labels) else None


def _dice(scores: ArmScores) -> Estimate:
    return measure_interval(patient_means(scores.test.scores, scores.test.patients), scores.drawn)


class ArmFormula(NamedTuple):
    """What is measured of an arm, its title in a report, and the function; `first`: what is done before, in words."""

    quantity: Quantity
    title: str
    compute: Callable[[ArmScores], Estimate | None]
    first: tuple[str, ...] = ()


THRESHOLD, FITTED = ("threshold by Youden on val",), ("recalibrated on val",)
ARM_FORMULAS: dict[Measure, tuple[ArmFormula, ...]] = {
    "AUROC": (
        ArmFormula(COMPARED["AUROC"], "AUROC", _auroc),
        ArmFormula(Quantity("average_precision", "utility", "share"), "average precision", _average_precision),
        ArmFormula(Quantity("sensitivity", "utility", "share"), "sensitivity", partial(_rate, label=1), THRESHOLD),
        ArmFormula(Quantity("specificity", "utility", "share"), "specificity", partial(_rate, label=0), THRESHOLD),
        ArmFormula(Quantity("brier", "utility", "squared error"), "Brier score", partial(_error, of=brier), FITTED),
        ArmFormula(
            Quantity("calibration_error", "utility", "probability"),
            "calibration error",
            partial(_error, of=calibration_error),
            FITTED,
        ),
        ArmFormula(
            Quantity("auroc_patient", "utility", "AUROC"),
            "AUROC by patient",
            _auroc_by_patient,
            ("each patient's mean over slices",),
        ),
    ),
    "Dice": (ArmFormula(COMPARED["Dice"], "Dice", _dice, ("mean of patients' means",)),),
}
"""By what arms are compared by, all that is measured of each arm. A row here takes a new measure into scorecard,
report and MLflow."""
