"""Statistics of slice scores, clustered in patients: AUROC, Dice, paired differences, detectable effects."""

import math
from statistics import NormalDist
from typing import Literal, NamedTuple, Protocol, Self

import numpy as np
from scipy.stats import t as student_t

Measure = Literal["AUROC", "Dice"]
"""The measure by which arms are compared: AUROC of all slices, or the mean over patients of their mean Dice."""
Z975 = NormalDist().inv_cdf(0.975)
Z80 = NormalDist().inv_cdf(0.80)


class Estimate(NamedTuple):
    """A value with its 95 % interval and its standard error.

    `seed_se` is the part of `se` that comes from training seeds; more patients would not reduce it.
    """

    value: float
    low: float
    high: float
    se: float
    seed_se: float = 0.0


class Summary(Protocol):
    """One arm's scores summed by patient, from which a measure is computed for any multiplicities of patients."""

    def minus(self, other: Self) -> Self:
        """The summary of the difference of two arms on the same slices."""

    def by_seed(self, weights: np.ndarray) -> np.ndarray:
        """The measure B×S of each training seed, for each row of `weights` (B×P patient multiplicities)."""


class PairCounts(NamedTuple):
    """AUROC as a quadratic form in patient multiplicities w: wᵀ·concordant·w / wᵀ·pairs·w, for each training seed.

    `concordant` S×P×P and `pairs` P×P are over (patient of the positive slice, patient of the negative one);
    `concordant` counts the pairs that the scores rank correctly, ties as ½.
    """

    concordant: np.ndarray
    pairs: np.ndarray

    def minus(self, other: "PairCounts") -> "PairCounts":
        """The summary of the difference of AUROC."""
        return PairCounts(self.concordant - other.concordant, self.pairs)

    def by_seed(self, weights: np.ndarray) -> np.ndarray:
        """AUROC B×S."""
        concordant = np.stack([_form(matrix, weights) for matrix in self.concordant], axis=1)
        result: np.ndarray = concordant / _form(self.pairs, weights)[:, None]
        return result


class PatientMeans(NamedTuple):
    """Each patient's mean over slices, S×P, for each training seed: a linear form in patient multiplicities."""

    means: np.ndarray

    def minus(self, other: "PatientMeans") -> "PatientMeans":
        """The summary of the difference of the means."""
        return PatientMeans(self.means - other.means)

    def by_seed(self, weights: np.ndarray) -> np.ndarray:
        """The mean over patients B×S."""
        result: np.ndarray = weights @ self.means.T / weights.sum(axis=1, keepdims=True)
        return result


class Resamples(NamedTuple):
    """Multiplicities of patients, B×P, and of training seeds, B×S, in the bootstrap resamples."""

    patients: np.ndarray
    seeds: np.ndarray

    @property
    def with_sample(self) -> np.ndarray:
        """Multiplicities (1+B)×P of patients, of which the first row is the sample itself."""
        return np.vstack([np.ones(self.patients.shape[1]), self.patients])

    @property
    def varied(self) -> bool:
        """Whether patients vary between resamples; with one patient in each class they do not: there is no interval."""
        return bool(np.ptp(self.patients, axis=0).any())


def pair_counts(scores: np.ndarray, labels: np.ndarray, patients: np.ndarray) -> PairCounts:
    """Count the concordant pairs between each two patients.

    Args:
        scores: S×N, one row for each training seed; higher means the positive class.
        labels: N of 0 and 1.
        patients: N codes from 0 to P-1.
    """
    count = int(patients.max()) + 1
    positive, owner = labels == 1, patients[labels == 1]
    concordant = np.zeros((len(scores), count, count))
    for row, counts in zip(scores, concordant, strict=True):
        for patient in np.unique(patients[~positive]):
            negatives = np.sort(row[~positive & (patients == patient)])
            beaten = np.searchsorted(negatives, row[positive], "left") + np.searchsorted(
                negatives, row[positive], "right"
            )
            counts[:, patient] = np.bincount(owner, beaten / 2, count)
    pairs = np.outer(np.bincount(owner, minlength=count), np.bincount(patients[~positive], minlength=count))
    return PairCounts(concordant, pairs.astype(float))


def patient_means(scores: np.ndarray, patients: np.ndarray) -> PatientMeans:
    """Means within patients of scores S×N, one row for each training seed; `patients` are N codes from 0 to P-1."""
    return PatientMeans(np.stack([np.bincount(patients, row) for row in scores]) / np.bincount(patients))


def resample(labels: np.ndarray, patients: np.ndarray, seeds: int, *, resamples: int, seed: int) -> Resamples:
    """Draw patients with replacement among those with a positive slice, and among those without; and training seeds.

    Strata keep the number of patients with a positive slice fixed, as a designed test set would.
    """
    rng = np.random.default_rng(seed)
    with_positive = np.bincount(patients, labels) > 0
    weights = np.zeros((resamples, len(with_positive)))
    for stratum in (np.flatnonzero(with_positive), np.flatnonzero(~with_positive)):
        if len(stratum):
            weights[:, stratum] = rng.multinomial(len(stratum), np.full(len(stratum), 1 / len(stratum)), resamples)
    return Resamples(weights, rng.multinomial(seeds, np.full(seeds, 1 / seeds), resamples))


def bootstrap(seeds: int, resamples: int) -> str:
    """A description of `interval`; with one training seed it does not include the variation between seeds."""
    over = "mean over seeds, percentile bootstrap of patients and seeds"
    return f"{over if seeds > 1 else 'one seed, percentile bootstrap of patients alone'} ×{resamples}"


def interval(by_seed: np.ndarray, resamples: Resamples, least: float = 0.0) -> Estimate:
    """95 % percentile interval (Efron & Tibshirani 1993, ch. 13) of a mean over training seeds, from `least` to 1.

    Percentiles assume no symmetry, which an AUROC near 1 lacks. They do not correct for skew; in a paired difference
    most of it cancels, since both arms have the same patients.

    Args:
        by_seed: (1+B)×S values of the measure, of the sample and of the resamples of its patients, by training seed.
        resamples: its seeds are resampled inside each resample of patients. Their deviations are multiplied by
            √(S/(S-1)), since S seeds vary less around their own mean than around the mean of all seeds, and by the
            ratio of Student's t to the normal quantile, since S seeds estimate that variance with uncertainty.
    """
    replicates, count = by_seed[1:], by_seed.shape[1]
    means = fixed = replicates.mean(axis=1)
    if count > 1:
        over_seeds = (replicates * resamples.seeds).sum(axis=1) / count
        means = means + np.sqrt(count / (count - 1)) * student_t.ppf(0.975, count - 1) / Z975 * (over_seeds - means)
    low, high = np.nanquantile(means, (0.025, 0.975)).clip(least, 1)
    se, patient_se = (float(np.nanstd(side, ddof=1)) for side in (means, fixed))
    return Estimate(float(by_seed[0].mean()), float(low), float(high), se, math.sqrt(max(0.0, se**2 - patient_se**2)))


def percentile_interval(value: float, replicates: np.ndarray) -> Estimate:
    """95 % percentile interval of bootstrap `replicates` around the sample's own `value`."""
    low, high = np.quantile(replicates, (0.025, 0.975))
    return Estimate(float(value), float(low), float(high), float(replicates.std(ddof=1)))


def measure_interval(summary: Summary, resamples: Resamples) -> Estimate:
    """AUROC or Dice of all patients, mean over seeds, with its bootstrap interval."""
    return interval(summary.by_seed(resamples.with_sample), resamples)


def gain_interval(candidate: Summary, baseline: Summary, resamples: Resamples) -> Estimate:
    """The paired difference, candidate minus baseline, on the same slices; a resample serves both."""
    return interval(candidate.minus(baseline).by_seed(resamples.with_sample), resamples, least=-1.0)


def average_precision(scores: np.ndarray, labels: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Average precision (step-wise, tied scores as one threshold) for each row of slice weights B×N; B values."""
    order = np.argsort(-scores, kind="stable")
    last_of_tie = np.flatnonzero(np.append(np.diff(scores[order]) != 0, True))
    results = np.empty(len(weights))
    for b, row in enumerate(weights):  # one at a time: B×N cumulative sums need not fit in memory
        weight = row[order]
        hits, called = np.cumsum(weight * labels[order])[last_of_tie], np.cumsum(weight)[last_of_tie]
        precision = hits / np.maximum(called, 1e-12)
        results[b] = np.sum(np.diff(hits, prepend=0) * precision) / hits[-1]
    return results


def youden_threshold(scores: np.ndarray, labels: np.ndarray) -> float:
    """The threshold from which a slice is called positive that maximises sensitivity + specificity (Youden 1950)."""
    cuts = np.unique(scores)
    positives, negatives = np.sort(scores[labels == 1]), np.sort(scores[labels == 0])
    sensitivity = 1 - np.searchsorted(positives, cuts, "left") / len(positives)
    specificity = np.searchsorted(negatives, cuts, "left") / len(negatives)
    return float(cuts[np.argmax(sensitivity + specificity)])


def rate(hit: np.ndarray, patients: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Proportion of slices that are hits, for each of B resamples: `weights` are patient multiplicities B×P.

    `hit` and `patients` have one entry for each slice of the class in question.
    """
    count = weights.shape[1]
    return (weights @ np.bincount(patients, hit, count)) / (weights @ np.bincount(patients, minlength=count))


def delong(candidate: np.ndarray, baseline: np.ndarray, labels: np.ndarray, *, patients: np.ndarray) -> Estimate:
    """Paired ΔAUROC, mean over seeds, of scores S×N, with DeLong's variance for slices that are clustered in patients.

    Placement values by midranks as in Sun & Xu 2014 (doi:10.1109/LSP.2014.2337313), summed within patients as in
    Obuchowski 1997 (doi:10.2307/2533958). With one slice a patient it is DeLong's own (DeLong 1988) estimate.
    """
    positive = labels == 1
    by_arm = [np.mean([_placements(row, positive) for row in scores], axis=0) for scores in (candidate, baseline)]
    placement = by_arm[0] - by_arm[1]
    gain = float(placement[positive].mean())
    excess = placement - gain
    sums = [np.bincount(patients[side], excess[side], int(patients.max()) + 1) for side in (positive, ~positive)]
    clusters = [len(np.unique(patients[side])) for side in (positive, ~positive)]
    both = len(np.unique(patients))
    variance = sum(
        k / (k - 1) * np.sum(s**2) / side.sum() ** 2
        for s, k, side in zip(sums, clusters, (positive, ~positive), strict=True)
    ) + 2 * both / (both - 1) * np.sum(sums[0] * sums[1]) / (positive.sum() * (~positive).sum())
    se = float(np.sqrt(max(variance, 0.0)))
    return Estimate(gain, gain - Z975 * se, gain + Z975 * se, se)


def smallest_detectable_effect(se: float) -> float:
    """The true gain that a two-sided 5 % test with this standard error finds with 80 % power."""
    return (Z975 + Z80) * se


def power(effect: float, gain: Estimate, more: float) -> float:
    """Probability of an interval above 0 if the true gain is `effect`, with `more` times the patients of `gain`."""
    se = math.sqrt((gain.se**2 - gain.seed_se**2) / more + gain.seed_se**2)
    return NormalDist().cdf(effect / se - Z975) if se else float(effect > 0)


def _form(matrix: np.ndarray, weights: np.ndarray) -> np.ndarray:
    result: np.ndarray = np.sum((weights @ matrix) * weights, axis=1)
    return result


def _placements(scores: np.ndarray, positive: np.ndarray) -> np.ndarray:
    """For each positive the fraction of negatives below it, for each negative the fraction of positives above it."""
    placement = np.empty(len(scores))
    all_ranks = _midranks(scores)
    m, n = positive.sum(), (~positive).sum()
    placement[positive] = (all_ranks[positive] - _midranks(scores[positive])) / n
    placement[~positive] = 1 - (all_ranks[~positive] - _midranks(scores[~positive])) / m
    return placement


def _midranks(values: np.ndarray) -> np.ndarray:
    ordered = np.sort(values)
    return (np.searchsorted(ordered, values, "left") + np.searchsorted(ordered, values, "right") + 1) / 2
