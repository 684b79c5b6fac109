"""The candidate's arm against another one, on test patients."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd

from lungsynth.evaluation.predictions import Predictions, Scores
from lungsynth.evaluation.scorecard import Metric
from lungsynth.evaluation.statistics import (
    Estimate,
    Measure,
    Summary,
    delong,
    gain_interval,
    pair_counts,
    patient_means,
    resample,
    smallest_detectable_effect,
)
from lungsynth.evaluation.subgroups import part, within


class Contender(NamedTuple):
    """An arm, the scores on `test` that stand for it, and what they are compared by."""

    arm: str
    test: Scores
    measure: Measure

    @property
    def mean(self) -> float:
        """The measure, mean over seeds."""
        return float(by_seed(self.test, self.measure).mean())

    @property
    def patients(self) -> tuple[int, ...]:
        """How many test patients have a slice of the negative class, and of the positive one; with Dice, of any."""
        return count_patients(self.test, self.measure)


class Comparison(NamedTuple):
    """Candidate against another arm, on test patients."""

    role: str
    """`baseline`, `champion`, or the name of a baseline that is easier to beat."""
    arm: str
    gain: Estimate
    delong: Estimate | None
    """None where the gain is no AUROC's."""
    detectable: float
    seed_sd: float
    resamples: int

    @property
    def phrase(self) -> str:
        """The gain with its interval, in words."""
        gain = f"{self.gain.value:+.3f} (95 % interval {self.gain.low:+.3f} to {self.gain.high:+.3f})"
        return f"{gain} against {self.arm}"

    def metrics(self) -> tuple[Metric, ...]:
        """As a scorecard would hold it."""
        boot = f"{self.arm}, mean over seeds, paired percentile bootstrap of patients and seeds ×{self.resamples}"
        check = f"against {self.arm}, DeLong, clustered by patient (Obuchowski 1997)"
        return (
            Metric.of(f"gain/{self.role}", self.gain, f"against {boot}"),
            *([Metric.of(f"gain/{self.role}/delong", self.delong, check)] if self.delong else []),
            Metric(
                name=f"gain/{self.role}/seed_sd", value=self.seed_sd, computed_with="SD of the gain over training seeds"
            ),
            Metric(
                name=f"gain/{self.role}/smallest_detectable",
                value=self.detectable,
                computed_with="two-sided 5 %, power 80 %, bootstrap SE",
            ),
        )


def contender(predictions: Predictions, arms: Sequence[str]) -> Contender:
    """The arm that is best on `val`; on `test`, each classifier of the arm that those of all other seeds prefer there.

    A classifier that happened to turn out well does so on `val` and on `test`. Were it to vote for its own arm, the
    best of several arms without effect would show a gain (0.016 of 5, where AUROC's SD over seeds is 0.06).
    """
    found = np.stack([by_seed(predictions.of(arm, "val"), predictions.measure) for arm in arms])
    total = found.sum(axis=1, keepdims=True)
    others = total - found if found.shape[1] > 1 else total
    tests = [predictions.of(arm, "test") for arm in arms]
    scores = np.stack([tests[arm].scores[seed] for seed, arm in enumerate(others.argmax(axis=0))])
    return Contender(arms[int(total.argmax())], tests[0]._replace(scores=scores), predictions.measure)


def summary(scores: Scores, measure: Measure) -> Summary:
    """What the measure of any resample of patients is computed from."""
    return pair_counts(*scores) if measure == "AUROC" else patient_means(scores.scores, scores.patients)


def by_seed(scores: Scores, measure: Measure) -> np.ndarray:
    """The measure of each training seed."""
    return summary(scores, measure).by_seed(np.ones((1, int(scores.patients.max()) + 1)))[0]


def count_patients(scores: Scores, measure: Measure) -> tuple[int, ...]:
    """See `Contender.patients`."""
    if measure == "Dice":
        return (len(np.unique(scores.patients)),)
    return tuple(len(np.unique(scores.patients[scores.labels == code])) for code in range(2))


def compare(candidate: Contender, rival: Contender, role: str, resamples: int, seed: int) -> Comparison:
    """The gain of `candidate` over `rival`, on the same test slices."""
    ours, theirs = candidate.test, rival.test
    drawn = resample(ours.labels, ours.patients, len(ours.scores), resamples, seed)
    sums = [summary(scores, candidate.measure) for scores in (ours, theirs)]
    gain = gain_interval(sums[0], sums[1], drawn)
    check = None
    if candidate.measure == "AUROC":
        check = delong(ours.scores, theirs.scores, ours.labels, ours.patients)
    found = [one.by_seed(np.ones((1, drawn.patients.shape[1])))[0] for one in sums]
    seed_sd = float(np.std(found[0] - found[1], ddof=1)) if len(found[0]) > 1 else 0.0
    return Comparison(role, rival.arm, gain, check, smallest_detectable_effect(gain.se), seed_sd, resamples)


def subgroup_gains(
    candidate: Contender,
    rival: Contender,
    keys: np.ndarray,
    groups: pd.DataFrame,
    *,
    least_patients: int,
    resamples: int,
    seed: int,
) -> dict[str, Estimate]:
    """The gain in each group with `least_patients`, of both classes for AUROC; else as in `subgroups.within`."""
    gains = {}
    for name, rows in within(candidate.test, keys, groups):
        ours, theirs = part(candidate.test, rows), part(rival.test, rows)
        if min(count_patients(ours, candidate.measure)) < least_patients:
            continue
        drawn = resample(ours.labels, ours.patients, len(ours.scores), resamples, seed)
        sums = [summary(scores, candidate.measure) for scores in (ours, theirs)]
        gains[name] = gain_interval(sums[0], sums[1], drawn)
    return gains
