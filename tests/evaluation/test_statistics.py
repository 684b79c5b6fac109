import numpy as np
import pytest
from scipy.stats import norm
from scipy.stats import t as student_t
from sklearn.metrics import average_precision_score, roc_auc_score, roc_curve

from lungsynth.evaluation.statistics import (
    Estimate,
    average_precision,
    delong,
    gain_interval,
    measure_interval,
    pair_counts,
    power,
    resample,
    smallest_detectable_effect,
    youden_threshold,
)

OVARIAN = """
3.0 5.8 10 0  3.2 6.3 5 1  3.9 6.8 3 1  2.8 4.8 6 0  3.2 5.8 3 1  0.9 4.0 5 0  2.5 5.7 8 0  1.6 5.6 5 1
3.8 5.7 5 1  3.7 6.7 6 1  3.2 5.4 4 1  3.8 6.6 6 1  4.1 6.6 5 1  3.6 5.7 5 1  4.3 7.0 4 1  3.6 6.7 4 0
2.3 4.4 6 1  4.2 7.6 4 0  4.0 6.6 6 0  3.5 5.8 6 1  3.8 6.8 7 1  3.0 4.7 8 0  4.5 7.4 5 1  3.7 7.4 5 1
3.1 6.6 6 1  4.1 8.2 6 1  4.3 7.0 5 1  4.3 6.5 4 1  3.2 5.1 5 1  2.6 4.7 6 1  3.3 6.8 6 0  1.7 4.0 7 0
3.7 6.1 5 1  3.3 6.3 7 1  4.2 7.7 6 1  3.5 6.2 5 1  2.9 5.7 9 0  2.1 4.8 7 1  2.8 6.2 8 0  4.0 7.0 7 1
3.3 5.7 6 1  3.7 6.9 5 1  3.6 6.6 5 1
"""


def clustered(rng: np.random.Generator, patients: int, separation: float, slices: int = 5):
    """Rounded scores (so with ties) whose slices share their patient's shift; every second patient has some cancer."""
    owner = np.repeat(np.arange(patients), slices)
    labels = ((owner % 2 == 0) & (rng.random(owner.size) < 0.6)).astype(int)
    scores = np.round(separation * labels + rng.normal(size=patients)[owner] + rng.normal(size=owner.size), 1)
    return scores, labels, owner


def test_auroc_and_average_precision_of_multiplicities_equal_sklearn_on_repeated_rows():
    rng = np.random.default_rng(0)
    scores, labels, patients = clustered(rng, 20, 1.0)
    weights = resample(labels, patients, 1, resamples=5, seed=1).patients
    ours = pair_counts(scores[None], labels, patients).by_seed(weights)[:, 0]
    precision = average_precision(scores, labels, weights[:, patients])
    for b, row in enumerate(weights.astype(int)):
        repeated = np.repeat(np.arange(len(labels)), row[patients])
        assert ours[b] == pytest.approx(roc_auc_score(labels[repeated], scores[repeated]), abs=1e-12)
        assert precision[b] == pytest.approx(average_precision_score(labels[repeated], scores[repeated]), abs=1e-12)


def test_auroc_of_seeds_and_their_mean():
    rng = np.random.default_rng(0)
    scores, labels, patients = clustered(rng, 20, 1.0)
    both = np.stack([scores, rng.normal(size=scores.size)])
    expected = [roc_auc_score(labels, row) for row in both]
    counts = pair_counts(both, labels, patients)
    assert counts.by_seed(np.ones((1, 20)))[0] == pytest.approx(expected, abs=1e-12)
    assert measure_interval(counts, resample(labels, patients, 2, resamples=50, seed=0)).value == pytest.approx(
        np.mean(expected)
    )


def test_resamples_keep_the_number_of_patients_with_and_without_cancer():
    _, labels, patients = clustered(np.random.default_rng(0), 21, 1.0)
    weights = resample(labels, patients, 3, resamples=50, seed=0).patients
    with_cancer = np.bincount(patients, labels) > 0
    assert (weights[:, with_cancer].sum(1) == with_cancer.sum()).all()
    assert (weights[:, ~with_cancer].sum(1) == (~with_cancer).sum()).all()
    again = resample(labels, patients, 3, resamples=50, seed=0)
    assert (weights == again.patients).all()
    assert (again.seeds.sum(1) == 3).all()


def test_bootstrap_interval_covers_the_true_auroc():
    truth = roc_auc_score(*reversed(clustered(np.random.default_rng(99), 20000, 1.0)[:2]))
    covered = 0
    for trial in range(100):
        scores, labels, patients = clustered(np.random.default_rng(trial), 60, 1.0)
        found = measure_interval(
            pair_counts(scores[None], labels, patients), resample(labels, patients, 1, resamples=300, seed=trial)
        )
        covered += found.low <= truth <= found.high
    assert 87 <= covered <= 99  # 95 %, less the percentile interval's known shortfall, within binomial error


def test_delong_without_clusters_equals_its_definition():
    rng = np.random.default_rng(3)
    labels = (rng.random(40) < 0.4).astype(int)
    a, b = np.round(labels + rng.normal(size=(2, 40)), 1)
    found = delong(a[None], b[None], labels, patients=np.arange(40))

    def components(scores):  # DeLong 1988, written out as pairs
        wins = scores[labels == 1][:, None] - scores[labels == 0]
        kernel = (wins > 0) + 0.5 * (wins == 0)
        return kernel.mean(1), kernel.mean(0)

    (a10, a01), (b10, b01) = components(a), components(b)
    variance = np.var(a10 - b10, ddof=1) / labels.sum() + np.var(a01 - b01, ddof=1) / (1 - labels).sum()
    assert found.value == pytest.approx(roc_auc_score(labels, a) - roc_auc_score(labels, b), abs=1e-12)
    assert found.se == pytest.approx(np.sqrt(variance), abs=1e-12)


def test_clustered_delong_and_patient_bootstrap_agree():
    rng = np.random.default_rng(4)
    scores, labels, patients = clustered(rng, 200, 1.0)
    other = scores + rng.normal(0, 1.0, 200)[patients]
    counts = [pair_counts(row[None], labels, patients) for row in (scores, other)]
    boot = gain_interval(*counts, resample(labels, patients, 1, resamples=1000, seed=0))
    check = delong(scores[None], other[None], labels, patients=patients)
    assert check.value == pytest.approx(boot.value, abs=1e-12)
    assert check.se == pytest.approx(boot.se, rel=0.15)
    assert (
        delong(scores[None], other[None], labels, patients=np.arange(len(labels))).se < 0.8 * check.se
    )  # slices are no patients


def test_youden_threshold_is_that_of_the_roc_curve():
    scores, labels, _ = clustered(np.random.default_rng(5), 30, 1.0)
    false_alarms, hits, cuts = roc_curve(labels, scores, drop_intermediate=False)
    best = (hits - false_alarms).max()
    cut = youden_threshold(scores, labels)
    assert hits[cuts == cut] - false_alarms[cuts == cut] == pytest.approx(best)


def test_smallest_detectable_effect_is_found_four_times_in_five():
    rng = np.random.default_rng(6)
    draws = rng.normal(smallest_detectable_effect(0.01), 0.01, 200_000)
    assert np.mean(draws - 1.959964 * 0.01 > 0) == pytest.approx(0.8, abs=0.005)


def test_delong_equals_the_published_example():
    """Ovarian cancer of DeLong 1988, as PROC LOGISTIC of SAS/STAT shows it: albumin and total protein against K-G."""
    numbers = np.array(OVARIAN.split(), float).reshape(-1, 4)
    albumin, protein, score, labels = numbers[:, 0], numbers[:, 1], 10 - numbers[:, 2], numbers[:, 3].astype(int)
    found = [delong(test[None], score[None], labels, patients=np.arange(43)) for test in (albumin, protein)]
    assert np.round(found[0][:4], 4) == pytest.approx([0.0108, -0.1761, 0.1976, 0.0953])
    assert np.round(found[1][:4], 4) == pytest.approx([-0.0780, -0.2830, 0.1271, 0.1046])


def test_seeds_that_differ_widen_the_interval_and_few_widen_it_more():
    rng = np.random.default_rng(7)
    scores, labels, patients = clustered(rng, 200, 1.0)
    shift = rng.normal(0, 0.6, 8)
    seeds = scores + shift[:, None] * labels
    same = measure_interval(
        pair_counts(scores[None], labels, patients), resample(labels, patients, 1, resamples=1000, seed=0)
    )
    wide = {
        count: measure_interval(
            pair_counts(seeds[:count], labels, patients), resample(labels, patients, count, resamples=1000, seed=0)
        ).se
        for count in (3, 8)
    }
    by_seed = pair_counts(seeds, labels, patients).by_seed(np.ones((1, 200)))[0]
    for count in wide:
        expected = student_t.ppf(0.975, count - 1) / 1.959964 * by_seed[:count].std(ddof=1) / np.sqrt(count)
        assert wide[count] == pytest.approx(np.hypot(same.se, expected), rel=0.1)


def hanley_mcneil(area: float, count: int) -> float:
    """Standard error of an AUROC of as many positives as negatives (Hanley & McNeil 1982)."""
    first, second = area / (2 - area), 2 * area**2 / (1 + area)
    return np.sqrt((area * (1 - area) + (count - 1) * (first + second - 2 * area**2)) / count**2)


@pytest.mark.parametrize("count", [50, 200])
def test_the_bootstrap_has_the_standard_error_of_hanley_and_mcneil(count):
    rng = np.random.default_rng(8)
    found, areas = [], []
    for _ in range(20):
        labels, patients = np.repeat([0, 1], count), np.arange(2 * count)
        scores = rng.exponential(np.where(labels, 3.0, 1.0))  # for which their formula is exact
        estimate = measure_interval(
            pair_counts(scores[None], labels, patients), resample(labels, patients, 1, resamples=400, seed=0)
        )
        found.append(estimate.se)
        areas.append(estimate.value)
    assert np.mean(found) == pytest.approx(hanley_mcneil(float(np.mean(areas)), count), rel=0.06)


def test_power_grows_with_patients_as_the_standard_error_falls_and_seeds_limit_it():
    gain = Estimate(0.0, -0.1, 0.1, se=0.05)
    for more in (1, 4, 16):
        expected = norm.cdf(0.06 / (0.05 / np.sqrt(more)) - 1.959964)
        assert power(0.06, gain, more) == pytest.approx(expected, abs=1e-6)
    assert power(0.06, gain._replace(seed_se=0.03), 1e9) == pytest.approx(norm.cdf(2 - 1.959964), abs=1e-6)
    assert power(smallest_detectable_effect(0.05), gain, 1) == pytest.approx(0.8)
