import numpy as np
import pytest
from sklearn.metrics import brier_score_loss

from lungsynth.verdict.calibration import brier, calibration_error, recalibrated


def test_brier_and_calibration_error_of_multiplicities_are_those_of_repeated_rows():
    rng = np.random.default_rng(0)
    chance, patients = rng.random(200), np.arange(200) % 20
    labels = (rng.random(200) < chance).astype(int)
    weights = rng.multinomial(20, np.full(20, 1 / 20), 4).astype(float)
    errors = calibration_error(chance, labels, patients, weights)
    edges = np.quantile(chance, np.arange(0.1, 0.95, 0.1))
    for row, times in enumerate(weights.astype(int)):
        repeated = np.repeat(np.arange(200), times[patients])
        expected = brier_score_loss(labels[repeated], chance[repeated])
        assert brier(chance, labels, patients, weights)[row] == pytest.approx(expected)
        bins = np.searchsorted(edges, chance[repeated])
        gaps = [np.abs((chance - labels)[repeated][bins == place].sum()) for place in range(10)]
        assert errors[row] == pytest.approx(sum(gaps) / len(repeated))


def test_scores_of_balanced_batches_become_probabilities():
    rng = np.random.default_rng(1)
    labels = (rng.random(4000) < 0.1).astype(int)
    scores = 1 / (1 + np.exp(-(2 * labels - 1 + rng.normal(size=4000))))  # as if both classes were as common
    val, test = slice(2000), slice(2000, 4000)
    once, patients = np.ones((1, 2000)), np.arange(2000)
    found = recalibrated(scores[val], labels[val], scores[test])
    assert calibration_error(scores[test], labels[test], patients, once)[0] > 0.1
    assert calibration_error(found, labels[test], patients, once)[0] < 0.03
