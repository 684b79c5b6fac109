"""How well a classifier's probabilities are calibrated."""

import numpy as np
from sklearn.linear_model import LogisticRegression

BINS = 10
"""Bins of the calibration error, each with as many slices (Naeini 2015, doi:10.1609/aaai.v29i1.9602)."""


def recalibrated(val: np.ndarray, val_labels: np.ndarray, test: np.ndarray) -> np.ndarray:
    """Probabilities N of `test` scores, by a logistic fit on `val` (Platt 1999).

    Training batches are balanced and test slices are not, so that the scores themselves are no probabilities there.
    """
    fit = LogisticRegression().fit(_logit(val)[:, None], val_labels)
    result: np.ndarray = fit.predict_proba(_logit(test)[:, None])[:, 1]
    return result


def brier(probabilities: np.ndarray, labels: np.ndarray, patients: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Mean squared error (Brier 1950) for each row of patient multiplicities B×P; B values."""
    result: np.ndarray = _per_slice(np.square(probabilities - labels), patients, weights) / _slices(patients, weights)
    return result


def calibration_error(
    probabilities: np.ndarray, labels: np.ndarray, patients: np.ndarray, weights: np.ndarray
) -> np.ndarray:
    """Expected calibration error: mean distance of probability and frequency over `BINS` bins; B values as `brier`."""
    edges = np.quantile(probabilities, np.linspace(0, 1, BINS + 1)[1:-1])
    bins = np.searchsorted(edges, probabilities)
    excess = probabilities - labels
    gaps = [np.abs(_per_slice(excess * (bins == place), patients, weights)) for place in range(BINS)]
    result: np.ndarray = np.sum(gaps, axis=0) / _slices(patients, weights)
    return result


def _per_slice(values: np.ndarray, patients: np.ndarray, weights: np.ndarray) -> np.ndarray:
    return weights @ np.bincount(patients, values, weights.shape[1])


def _slices(patients: np.ndarray, weights: np.ndarray) -> np.ndarray:
    return weights @ np.bincount(patients, minlength=weights.shape[1])


def _logit(scores: np.ndarray) -> np.ndarray:
    inside = scores.clip(1e-6, 1 - 1e-6)
    result: np.ndarray = np.log(inside / (1 - inside))
    return result
