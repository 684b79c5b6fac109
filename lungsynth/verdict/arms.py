"""What each arm's classifiers achieve on the test patients."""

import numpy as np

from lungsynth.evaluation.scorecard import Metric, Scorecard
from lungsynth.evaluation.statistics import (
    Estimate,
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


def score_arms(predictions: Predictions, resamples: int, seed: int) -> Scorecard:
    """AUROC, average precision, sensitivity, specificity, Brier and calibration error of every arm on `test`, or Dice.

    `auroc_patient` tells patients with a positive slice from those without, by their slices' mean score.

    All are means over training seeds. Sensitivity and specificity hold at the threshold that is best on `val` (Youden),
    Brier and calibration error after a logistic fit on `val`, both for each classifier. Where each class has but one
    patient there is no interval: nothing can be resampled, and one of no width would lie.
    """
    metrics = []
    for arm in predictions.arms:
        test = predictions.of(arm, "test")
        drawn = resample(test.labels, test.patients, len(test.scores), resamples, seed)
        n = {"slices": len(test.labels), "patients": drawn.patients.shape[1], "seeds": len(test.scores)}
        how = bootstrap(len(test.scores), resamples)
        if predictions.measure == "Dice":
            overlap = measure_interval(patient_means(test.scores, test.patients), drawn)
            found = {"dice": (f"mean of patients' means, {how}", overlap)}
        else:
            found = _of_classes(predictions.of(arm, "val"), test, drawn, how)
        for name, (method, (value, low, high, *_)) in found.items():
            bounds = {"low": low, "high": high} if drawn.varied else {}
            metrics.append(Metric(name=f"{name}/{arm}", value=value, **bounds, n=n, computed_with=method))
    return Scorecard(metrics=tuple(metrics), notes=predictions.notes)


def _of_classes(val: Scores, test: Scores, drawn: Resamples, how: str) -> dict[str, tuple[str, Estimate]]:
    """How each measure of a classifier was computed, and what it is."""
    at_val, fitted = f"threshold by Youden on val, {how}", f"recalibrated on val, {how}"
    sensitivity, specificity = _operating_point(val, test, drawn)
    squared, gap = _calibration(val, test, drawn)
    found = {
        "auroc": (how, measure_interval(pair_counts(*test), drawn)),
        "average_precision": (how, _average_precision(test, drawn)),
        "sensitivity": (at_val, sensitivity),
        "specificity": (at_val, specificity),
        "brier": (fitted, squared),
        "calibration_error": (fitted, gap),
    }
    whole = _by_patient(test)
    if np.ptp(whole.labels):
        of_means = f"each patient's mean over slices, {how}"
        found["auroc_patient"] = (of_means, measure_interval(pair_counts(*whole), drawn))
    return found


def _by_patient(test: Scores) -> Scores:
    """Each patient as one slice: positive with any positive slice, and scored by the mean over slices.

    Not by the greatest score, for of many slices that is greater than of few, and patients with a lesion have fewer
    labelled slices than those without.
    """
    means = patient_means(test.scores, test.patients).means
    positive = np.bincount(test.patients, test.labels) > 0
    return Scores(means, positive.astype(int), np.arange(len(positive)))


def _average_precision(test: Scores, drawn: Resamples) -> Estimate:
    weights = drawn.with_sample[:, test.patients]
    return interval(np.stack([average_precision(row, test.labels, weights) for row in test.scores], axis=1), drawn)


def _operating_point(val: Scores, test: Scores, drawn: Resamples) -> tuple[Estimate, Estimate]:
    """Sensitivity and specificity."""
    called = np.array([
        row >= youden_threshold(val_row, val.labels) for row, val_row in zip(test.scores, val.scores, strict=True)
    ])  # fmt: skip
    estimates = []
    for label, right in ((1, called), (0, ~called)):
        side = test.labels == label
        shares = [rate(row[side], test.patients[side], drawn.with_sample) for row in right]
        estimates.append(interval(np.stack(shares, axis=1), drawn))
    return estimates[0], estimates[1]


def _calibration(val: Scores, test: Scores, drawn: Resamples) -> tuple[Estimate, Estimate]:
    """Brier score and expected calibration error."""
    chances = [recalibrated(val_row, val.labels, row) for val_row, row in zip(val.scores, test.scores, strict=True)]
    found = [
        np.stack([measure(row, test.labels, test.patients, drawn.with_sample) for row in chances], axis=1)
        for measure in (brier, calibration_error)
    ]
    return interval(found[0], drawn), interval(found[1], drawn)
