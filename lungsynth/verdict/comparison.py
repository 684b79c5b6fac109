"""The candidate's arm against another one, on test patients."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd

from lungsynth.evaluation.quantities import CHOSEN_ARM, COMPARED, GAIN
from lungsynth.evaluation.scorecard import Measurand, Metric
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
from lungsynth.verdict.record import Gain
from lungsynth.verdict.subgroups import part, within

CHOSEN = "chosen on val"
"""In place of an arm's name, where a number is about the arms that training seeds chose; these may be several."""


class Contender(NamedTuple):
    """What is compared with others: an arm, or for each training seed the arm that was chosen for it."""

    arm: str
    """The arm that is best on `val` over all seeds."""
    test: Scores
    """For each training seed, the scores of the arm that was chosen for it."""
    measure: Measure
    chosen: dict[str, int]
    """For each arm that some seed chose, how many did."""

    @property
    def name(self) -> str:
        """The arm; where seeds chose several, all of these with the seeds of each."""
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
        """Test patients with a slice of the negative class, and of the positive one; for Dice, with any slice."""
        return count_patients(self.test, self.measure)

    def score(self, resamples: int, seed: int) -> Metric:
        """What it achieved on `test`."""
        seeds = len(self.test.scores)
        drawn = resample(self.test.labels, self.test.patients, seeds, resamples=resamples, seed=seed)
        how = f"each seed's arm as the other seeds choose it on val, {bootstrap(seeds, resamples)}"
        measurand = Measurand(quantity=COMPARED[self.measure], arm=CHOSEN)
        return Metric.of(
            measurand, measure_interval(summary(self.test, self.measure), drawn), how, bounded=drawn.varied
        )

    def votes(self) -> tuple[Metric, ...]:
        """How many training seeds chose which arm."""
        how = f"of {len(self.test.scores)} training seeds, as the other seeds choose on val"
        return tuple(
            Metric(quantity=CHOSEN_ARM, arm=arm, value=count, computed_with=how) for arm, count in self.chosen.items()
        )


class Comparison(NamedTuple):
    """Candidate against another arm, on test patients."""

    measure: Measure
    role: str
    """`baseline`, `champion`, or the name of a baseline that is easier to beat."""
    arm: str
    gain: Estimate
    delong: Estimate | None
    """None where arms are compared by Dice."""
    detectable: float
    by_seed: np.ndarray
    """The gain of each training seed."""
    resamples: int

    @property
    def phrase(self) -> str:
        """The gain with its interval, in words."""
        gain = f"{self.gain.value:+.3f} (95 % interval {self.gain.low:+.3f} to {self.gain.high:+.3f})"
        return f"{gain} against {self.arm}"

    def record(self) -> Gain:
        """As a verdict holds it."""
        seeds, quantity = len(self.by_seed), GAIN[self.measure]
        boot = f"against {self.arm}, paired, {bootstrap(seeds, self.resamples)}"
        gain = Metric.of(Measurand(quantity=quantity, rival=self.role), self.gain, boot)
        delong, seed_sd, detectable = None, None, None
        if self.delong:
            check = f"against {self.arm}, DeLong, clustered by patient (Obuchowski 1997), for these classifiers alone"
            measurand = Measurand(quantity=quantity, rival=self.role, statistic="delong")
            delong = Metric.of(measurand, self.delong, check)
        if seeds > 1:  # one seed does not show how much another would have changed
            sd, how = float(np.std(self.by_seed, ddof=1)), f"SD of the gain over {seeds} training seeds"
            told = Measurand(quantity=quantity, rival=self.role, statistic="seed_sd")
            seed_sd = Metric(**dict(told), value=sd, computed_with=how)
            how = "above gate.min_gain; two-sided 5 %, power 80 %, bootstrap SE"
            told = Measurand(quantity=quantity, rival=self.role, statistic="smallest_detectable")
            detectable = Metric(**dict(told), value=self.detectable, computed_with=how)
        return Gain(gain=gain, delong=delong, seed_sd=seed_sd, smallest_detectable=detectable)


def contender(predictions: Predictions, arms: Sequence[str]) -> Contender:
    """Choose on `val`, for each training seed, the arm whose classifiers of all other seeds are best there.

    A seed has no vote on its own arm, since a classifier that is good by luck is good on both `val` and `test`: with a
    vote, the best of 5 arms without effect would show a gain (of 0.016, where AUROC's SD over seeds is 0.06).
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
    """What the measure is computed from, for any resample of patients."""
    return pair_counts(*scores) if measure == "AUROC" else patient_means(scores.scores, scores.patients)


def by_seed(scores: Scores, measure: Measure) -> np.ndarray:
    """The measure of each training seed."""
    result: np.ndarray = summary(scores, measure).by_seed(np.ones((1, int(scores.patients.max()) + 1)))[0]
    return result


def count_patients(scores: Scores, measure: Measure) -> tuple[int, ...]:
    """See `Contender.patients`."""
    if measure == "Dice":
        return (len(np.unique(scores.patients)),)
    return tuple(len(np.unique(scores.patients[scores.labels == code])) for code in range(2))


def compare(candidate: Contender, rival: Contender, role: str, *, resamples: int, seed: int) -> Comparison:
    """The gain of `candidate` over `rival`, on the same test slices."""
    ours, theirs = candidate.test, rival.test
    gain = paired_gain(ours, theirs, candidate.measure, resamples=resamples, seed=seed)
    check = None
    if candidate.measure == "AUROC":
        check = delong(ours.scores, theirs.scores, ours.labels, patients=ours.patients)
    by_each = by_seed(ours, candidate.measure) - by_seed(theirs, candidate.measure)
    detectable = smallest_detectable_effect(gain.se)
    return Comparison(candidate.measure, role, rival.name, gain, check, detectable, by_each, resamples)


def paired_gain(ours: Scores, theirs: Scores, measure: Measure, *, resamples: int, seed: int) -> Estimate:
    """The difference of the measure, on the same slices, with its interval."""
    drawn = resample(ours.labels, ours.patients, len(ours.scores), resamples=resamples, seed=seed)
    return gain_interval(summary(ours, measure), summary(theirs, measure), drawn)


class Subgroups(NamedTuple):
    """Groups of test patients, by name."""

    gains: dict[str, Estimate]
    """The gain in each group that is large enough."""
    small: dict[str, tuple[int, ...]]
    """The patients of each group that is too small, counted as in `Contender.patients`."""


def subgroup_gains(
    candidate: Contender,
    rival: Contender,
    groups: pd.DataFrame,
    *,
    keys: np.ndarray,
    least_patients: int,
    resamples: int,
    seed: int,
) -> Subgroups:
    """The gain in each group with `least_patients`, for AUROC of each class; `keys` and `groups` as in `within`."""
    found = Subgroups({}, {})
    for name, rows in within(candidate.test, keys, groups):
        ours, theirs = part(candidate.test, rows), part(rival.test, rows)
        counts = count_patients(ours, candidate.measure)
        if min(counts) < least_patients:
            found.small[name] = counts
        else:
            found.gains[name] = paired_gain(ours, theirs, candidate.measure, resamples=resamples, seed=seed)
    return found
