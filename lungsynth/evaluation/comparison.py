"""The candidate's arm against another one, on test patients."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd

from lungsynth.evaluation.predictions import Predictions, Scores
from lungsynth.evaluation.scorecard import Metric
from lungsynth.evaluation.statistics import (
    Estimate,
    PairCounts,
    auroc,
    delong,
    gain_interval,
    pair_counts,
    resample,
    smallest_detectable_effect,
)
from lungsynth.evaluation.subgroups import part, within


class Contender(NamedTuple):
    """An arm, and the scores on `test` that stand for it."""

    arm: str
    test: Scores


class Comparison(NamedTuple):
    """Candidate against another arm, on test patients."""

    role: str
    """`baseline`, `champion`, or the name of a baseline that is easier to beat."""
    arm: str
    gain: Estimate
    delong: Estimate
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
            Metric.of(f"gain/{self.role}/delong", self.delong, check),
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
    by_seed = np.stack([_aurocs(pair_counts(*predictions.of(arm, "val"))) for arm in arms])
    total = by_seed.sum(axis=1, keepdims=True)
    others = total - by_seed if by_seed.shape[1] > 1 else total
    tests = [predictions.of(arm, "test") for arm in arms]
    scores = np.stack([tests[arm].scores[seed] for seed, arm in enumerate(others.argmax(axis=0))])
    return Contender(arms[int(total.argmax())], tests[0]._replace(scores=scores))


def mean_auroc(scores: Scores) -> float:
    """Mean over seeds."""
    return float(_aurocs(pair_counts(*scores)).mean())


def patients_per_class(scores: Scores) -> tuple[int, int]:
    """How many patients have a slice of the negative class, and of the positive one."""
    negative, positive = (len(np.unique(scores.patients[scores.labels == code])) for code in range(2))
    return negative, positive


def compare(candidate: Contender, rival: Contender, role: str, resamples: int, seed: int) -> Comparison:
    """The gain of `candidate` over `rival`, on the same test slices."""
    ours, theirs = candidate.test, rival.test
    counts = pair_counts(*ours), pair_counts(*theirs)
    gain = gain_interval(*counts, resample(ours.labels, ours.patients, len(ours.scores), resamples, seed))
    check = delong(ours.scores, theirs.scores, ours.labels, ours.patients)
    by_seed = _aurocs(counts[0]) - _aurocs(counts[1])
    seed_sd = float(np.std(by_seed, ddof=1)) if len(by_seed) > 1 else 0.0
    return Comparison(role, rival.arm, gain, check, smallest_detectable_effect(gain.se), seed_sd, resamples)


def _aurocs(counts: PairCounts) -> np.ndarray:
    """Of each seed."""
    return auroc(counts, np.ones((1, len(counts.pairs))))[0]


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
    """The gain in each group that has `least_patients` of both classes; other arguments as in `subgroups.within`."""
    gains = {}
    for name, rows in within(candidate.test, keys, groups):
        ours, theirs = part(candidate.test, rows), part(rival.test, rows)
        if min(patients_per_class(ours)) < least_patients:
            continue
        drawn = resample(ours.labels, ours.patients, len(ours.scores), resamples, seed)
        gains[name] = gain_interval(pair_counts(*ours), pair_counts(*theirs), drawn)
    return gains
