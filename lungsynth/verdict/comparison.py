"""The candidate's arm against another one, on test patients."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd

from lungsynth.evaluation.scorecard import Metric
from lungsynth.evaluation.statistics import (
    Estimate,
    Measure,
    Summary,
    bootstrap,
    delong,
    gain_interval,
    measure_interval,
    pair_counts,
    patient_means,
    resample,
    smallest_detectable_effect,
)
from lungsynth.evaluation.utility.predictions import Predictions, Scores
from lungsynth.verdict.subgroups import part, within

CHOSEN = "chosen on val"
"""Stands for an arm in the name of what the candidate's classifiers achieve, which may be of several arms."""


class Contender(NamedTuple):
    """An arm, the scores on `test` that stand for it, and what they are compared by.

    `chosen` is how many training seeds' scores are those of which arm, as `contender` chose them.
    """

    arm: str
    test: Scores
    measure: Measure
    chosen: dict[str, int]

    @property
    def name(self) -> str:
        """The arm, or all whose scores are in it, with the seeds of each."""
        if len(self.chosen) == 1:
            return self.arm
        seeds = len(self.test.scores)
        return " and ".join(f"{arm} ({count} of {seeds} seeds)" for arm, count in self.chosen.items())

    @property
    def mean(self) -> float:
        """The measure, mean over seeds."""
        return float(by_seed(self.test, self.measure).mean())

    @property
    def patients(self) -> tuple[int, ...]:
        """How many test patients have a slice of the negative class, and of the positive one; with Dice, of any."""
        return count_patients(self.test, self.measure)

    def metrics(self, resamples: int, seed: int) -> tuple[Metric, ...]:
        """What it achieved on `test`, and how many seeds chose which arm."""
        seeds = len(self.test.scores)
        drawn = resample(self.test.labels, self.test.patients, seeds, resamples, seed)
        value, low, high, *_ = measure_interval(summary(self.test, self.measure), drawn)
        bounds = {"low": low, "high": high} if drawn.varied else {}
        how = f"each seed's arm as the other seeds choose it on val, {bootstrap(seeds, resamples)}"
        votes = f"of {seeds} training seeds, as the other seeds choose on val"
        return (
            Metric(name=f"{self.measure.lower()}/{CHOSEN}", value=value, **bounds, computed_with=how),
            *(Metric(name=f"chosen/{arm}", value=count, computed_with=votes) for arm, count in self.chosen.items()),
        )


class Comparison(NamedTuple):
    """Candidate against another arm, on test patients."""

    role: str
    """`baseline`, `champion`, or the name of a baseline that is easier to beat."""
    arm: str
    gain: Estimate
    delong: Estimate | None
    """None where the gain is no AUROC's."""
    detectable: float
    by_seed: np.ndarray
    """The gain of each training seed."""
    resamples: int

    @property
    def phrase(self) -> str:
        """The gain with its interval, in words."""
        gain = f"{self.gain.value:+.3f} (95 % interval {self.gain.low:+.3f} to {self.gain.high:+.3f})"
        return f"{gain} against {self.arm}"

    def metrics(self) -> tuple[Metric, ...]:
        """As a scorecard would hold it."""
        seeds = len(self.by_seed)
        boot = f"against {self.arm}, paired, {bootstrap(seeds, self.resamples)}"
        check = f"against {self.arm}, DeLong, clustered by patient (Obuchowski 1997), for these classifiers alone"
        found = [Metric.of(f"gain/{self.role}", self.gain, boot)]
        if self.delong:
            found.append(Metric.of(f"gain/{self.role}/delong", self.delong, check))
        if seeds > 1:  # of one, nobody knows how much another would have changed
            seed_sd = float(np.std(self.by_seed, ddof=1))
            how = f"SD of the gain over {seeds} training seeds"
            sees = "above gate.min_gain; two-sided 5 %, power 80 %, bootstrap SE"
            found += [
                Metric(name=f"gain/{self.role}/seed_sd", value=seed_sd, computed_with=how),
                Metric(name=f"gain/{self.role}/smallest_detectable", value=self.detectable, computed_with=sees),
            ]
        return tuple(found)


def contender(predictions: Predictions, arms: Sequence[str]) -> Contender:
    """The arm that is best on `val`; on `test`, each classifier of the arm that those of all other seeds prefer there.

    A classifier that happened to turn out well does so on `val` and on `test`. Were it to vote for its own arm, the
    best of several arms without effect would show a gain (0.016 of 5, where AUROC's SD over seeds is 0.06).
    """
    found = np.stack([by_seed(predictions.of(arm, "val"), predictions.measure) for arm in arms])
    total = found.sum(axis=1, keepdims=True)
    others = total - found if found.shape[1] > 1 else total
    tests = [predictions.of(arm, "test") for arm in arms]
    best = others.argmax(axis=0)
    scores = np.stack([tests[arm].scores[seed] for seed, arm in enumerate(best)])
    chosen = {arms[place]: int(count) for place, count in zip(*np.unique(best, return_counts=True), strict=True)}
    return Contender(arms[int(total.argmax())], tests[0]._replace(scores=scores), predictions.measure, chosen)


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
    gain = paired_gain(ours, theirs, candidate.measure, resamples, seed)
    check = None
    if candidate.measure == "AUROC":
        check = delong(ours.scores, theirs.scores, ours.labels, ours.patients)
    by_each = by_seed(ours, candidate.measure) - by_seed(theirs, candidate.measure)
    return Comparison(role, rival.name, gain, check, smallest_detectable_effect(gain.se), by_each, resamples)


def paired_gain(ours: Scores, theirs: Scores, measure: Measure, resamples: int, seed: int) -> Estimate:
    """The difference of the measure, on the same slices, with its interval."""
    drawn = resample(ours.labels, ours.patients, len(ours.scores), resamples, seed)
    return gain_interval(summary(ours, measure), summary(theirs, measure), drawn)


class Subgroups(NamedTuple):
    """The gain in each group of test patients, and of groups too small for one, how many patients they have.

    `small` counts as `Contender.patients` does.
    """

    gains: dict[str, Estimate]
    small: dict[str, tuple[int, ...]]


def subgroup_gains(
    candidate: Contender,
    rival: Contender,
    keys: np.ndarray,
    groups: pd.DataFrame,
    *,
    least_patients: int,
    resamples: int,
    seed: int,
) -> Subgroups:
    """The gain in each group with `least_patients`, of both classes for AUROC; else as in `subgroups.within`."""
    found = Subgroups({}, {})
    for name, rows in within(candidate.test, keys, groups):
        ours, theirs = part(candidate.test, rows), part(rival.test, rows)
        counts = count_patients(ours, candidate.measure)
        if min(counts) < least_patients:
            found.small[name] = counts
        else:
            found.gains[name] = paired_gain(ours, theirs, candidate.measure, resamples, seed)
    return found
