"""What each arm's classifiers achieve on the test patients."""

import numpy as np

from lungsynth.evaluation.predictions import Predictions, Scores
from lungsynth.evaluation.scorecard import Metric, Scorecard
from lungsynth.evaluation.statistics import (
    Estimate,
    auroc_interval,
    average_precision,
    pair_counts,
    percentile_interval,
    rate,
    resample_patients,
    youden_threshold,
)


def score_arms(predictions: Predictions, resamples: int, seed: int) -> Scorecard:
    """AUROC, average precision, sensitivity and specificity of every arm on `test`: means over training seeds.

    Sensitivity and specificity hold at the threshold that is best on `val` (Youden), chosen for each classifier. Where
    each class has but one patient there is no interval: nothing can be resampled, and one of no width would lie.
    """
    metrics = []
    for arm in predictions.arms:
        val, test = predictions.of(arm, "val"), predictions.of(arm, "test")
        weights = resample_patients(test.labels, test.patients, resamples, seed)
        varied = bool(np.ptp(weights, axis=0).any())
        n = {"slices": len(test.labels), "patients": weights.shape[1], "seeds": len(test.scores)}
        how = f"mean over seeds, percentile bootstrap of patients ×{resamples}"
        at_val = f"threshold by Youden on val, {how}"
        sensitivity, specificity = _operating_point(val, test, weights)
        for name, method, (value, low, high, _) in (
            ("auroc", how, auroc_interval(pair_counts(*test), weights)),
            ("average_precision", how, _average_precision(test, weights)),
            ("sensitivity", at_val, sensitivity),
            ("specificity", at_val, specificity),
        ):
            bounds = {"low": low, "high": high} if varied else {}
            metrics.append(Metric(name=f"{name}/{arm}", value=value, **bounds, n=n, computed_with=method))
    return Scorecard(metrics=tuple(metrics))


def _average_precision(test: Scores, weights: np.ndarray) -> Estimate:
    once_and_resampled = np.vstack([np.ones(weights.shape[1]), weights])[:, test.patients]
    draws = np.mean([average_precision(row, test.labels, once_and_resampled) for row in test.scores], axis=0)
    return percentile_interval(draws[0], draws[1:])


def _operating_point(val: Scores, test: Scores, weights: np.ndarray) -> tuple[Estimate, Estimate]:
    """Sensitivity and specificity."""
    called = np.array([
        row >= youden_threshold(val_row, val.labels) for row, val_row in zip(test.scores, val.scores, strict=True)
    ])  # fmt: skip
    once_and_resampled = np.vstack([np.ones(weights.shape[1]), weights])
    estimates = []
    for label, right in ((1, called.mean(0)), (0, 1 - called.mean(0))):
        side = test.labels == label
        draws = rate(right[side], test.patients[side], once_and_resampled)
        estimates.append(percentile_interval(draws[0], draws[1:]))
    return estimates[0], estimates[1]
