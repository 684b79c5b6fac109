"""The gate: a generator becomes champion for what its slices did for classifiers, or not at all."""

from collections.abc import Sequence
from typing import Literal, NamedTuple

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from lungsynth.config import Config
from lungsynth.evaluation.arms import score_arms
from lungsynth.evaluation.predictions import Predictions, Scores
from lungsynth.evaluation.scorecard import Metric, Scorecard
from lungsynth.evaluation.statistics import (
    Estimate,
    auroc,
    delong,
    gain_interval,
    pair_counts,
    resample,
    smallest_detectable_effect,
)

Outcome = Literal["promote", "reject", "underpowered", "blocked"]
Rule = Literal[
    "privacy", "collapse", "test patients", "gain", "worthwhile gain excluded", "smallest detectable effect", "no gain"
]


class GateConfig(Config):
    """What a generator has to show."""

    min_gain: float = Field(0.0, ge=0, lt=1, description="ΔAUROC that the whole 95 % interval has to exceed")
    worthwhile_gain: float = Field(0.02, gt=0, lt=1, description="ΔAUROC worth having; 0.02 as in Khosravi 2024")
    least_modes: float = Field(
        0.5, ge=0, le=1, description="modes drawn, against those of held-out slices, below which a generator collapsed"
    )
    resamples: int = Field(2000, ge=200, description="bootstrap resamples of test patients")
    min_patients_per_class: int = Field(10, ge=2, description="test patients of each class; fewer make no bootstrap")
    seed: int = Field(0, ge=0, description="of the resamples")


class Verdict(BaseModel):
    """What the gate decided, by which rule, and every number that it used."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    outcome: Outcome
    reason: str
    """One sentence for a reader who has seen nothing else."""
    rule: Rule
    candidate_arm: str
    baseline_arm: str
    numbers: tuple[Metric, ...]
    protocol_sha256: str
    """Hash of the gate's and the classifiers' configuration: verdicts compare only where it is the same."""


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
        gain, check = self.gain, self.delong
        return (
            Metric(
                name=f"gain/{self.role}",
                value=gain.value,
                low=gain.low,
                high=gain.high,
                computed_with=f"against {boot}",
            ),
            Metric(
                name=f"gain/{self.role}/delong",
                value=check.value,
                low=check.low,
                high=check.high,
                computed_with=f"against {self.arm}, DeLong, clustered by patient (Obuchowski 1997)",
            ),
            Metric(
                name=f"gain/{self.role}/seed_sd", value=self.seed_sd, computed_with="SD of the gain over training seeds"
            ),
            Metric(
                name=f"gain/{self.role}/smallest_detectable",
                value=self.detectable,
                computed_with="two-sided 5 %, power 80 %, bootstrap SE",
            ),
        )


def decide(
    predictions: Predictions, fidelity: Scorecard, privacy: Scorecard, config: GateConfig, protocol_sha256: str
) -> tuple[Scorecard, Verdict]:
    """The whole scorecard, and the verdict.

    Which synthetic arm stands for the generator is chosen by AUROC on `val`; `test` decides. It has to beat every arm
    without synthetic slices, so that none of these needs to be chosen (an intersection-union test, which asks for no
    correction; Berger 1982, doi:10.1080/00401706.1982.10487790); the better one on `test` is called the baseline.

    The first rule that applies wins: a privacy breach blocks; a collapse rejects; too few test patients are
    underpowered; gains whose intervals all lie above `min_gain`, also against the champion's slices, promote; an
    interval below `worthwhile_gain` rejects; too coarse a test is underpowered; all else rejects.

    Args:
        fidelity: of it only a collapse decides, by `modes_lung`: FID does not predict usefulness.
        privacy: with `privacy/breach`.
        protocol_sha256: hash of the configurations that make verdicts comparable.
    """
    card = fidelity + privacy + score_arms(predictions, config.resamples, config.seed)
    candidate = _contender(predictions, predictions.arms_of("candidate"))
    patients = _patients_per_class(predictions, candidate.arm)
    comparisons: list[Comparison] = []
    rivals = [Contender(arm, predictions.of(arm, "test")) for arm in predictions.arms_of("baseline")]
    rivals.sort(key=lambda rival: -_mean_auroc(rival.test))
    roles = ["baseline", *(rival.arm for rival in rivals[1:])]
    if previous := predictions.arms_of("champion"):
        rivals, roles = [*rivals, _contender(predictions, previous)], [*roles, "champion"]
    if min(patients.values()) >= config.min_patients_per_class:
        comparisons = [_compare(candidate, rival, role, config) for role, rival in zip(roles, rivals, strict=True)]
    outcome, rule, reason = _judge(fidelity, privacy, patients, comparisons, config)
    counts = tuple(
        Metric(name=f"test_patients/{name}", value=count, computed_with="patients with a slice of the class")
        for name, count in patients.items()
    )
    numbers = sum((comparison.metrics() for comparison in comparisons), counts)
    return card, Verdict(
        outcome=outcome,
        reason=reason,
        rule=rule,
        candidate_arm=candidate.arm,
        baseline_arm=rivals[0].arm,
        numbers=numbers,
        protocol_sha256=protocol_sha256,
    )


def _judge(
    fidelity: Scorecard,
    privacy: Scorecard,
    patients: dict[str, int],
    comparisons: list[Comparison],
    config: GateConfig,
) -> tuple[Outcome, Rule, str]:
    breach = privacy["privacy/breach"]
    if breach.value:
        shares = ", ".join(
            f"{m.name.removeprefix('privacy/')} {m.value:.3g}" for m in privacy.metrics if m.low is not None
        )
        return "blocked", "privacy", f"Synthetic slices give training patients away: {shares} ({breach.computed_with})."
    if reason := _collapse(fidelity, config):
        return "reject", "collapse", reason
    if not comparisons:
        found = " and ".join(f"{count} with {name} slices" for name, count in patients.items())
        needed = f"{config.min_patients_per_class} of each are needed for an interval to mean anything"
        return "underpowered", "test patients", f"The test split has {found}; {needed}."

    failed = [c for c in comparisons if c.gain.low <= config.min_gain]
    if not failed:
        gains = " and ".join(c.phrase for c in comparisons)
        return (
            "promote",
            "gain",
            f"Synthetic slices changed test AUROC by {gains}: surely more than {config.min_gain:g}.",
        )
    worthwhile = f"{config.worthwhile_gain:g}, the least gain worth having"
    for c in failed:
        if c.gain.high < config.worthwhile_gain:
            reason = f"Synthetic slices changed test AUROC by {c.phrase}: that excludes {worthwhile}."
            return "reject", "worthwhile gain excluded", reason
    for c in failed:
        if c.detectable > config.worthwhile_gain:
            sees = f"this test only sees gains of {c.detectable:.3f} or more, not {worthwhile}; add test patients"
            reason = f"Synthetic slices changed test AUROC by {c.phrase}: {sees}."
            return "underpowered", "smallest detectable effect", reason
    reason = f"Synthetic slices changed test AUROC by {failed[0].phrase}: not surely more than {config.min_gain:g}."
    return "reject", "no gain", reason


def _collapse(fidelity: Scorecard, config: GateConfig) -> str | None:
    """What shows that the generator collapsed; None if nothing does, or too few slices were there to tell."""
    found = {metric.name: metric for metric in fidelity.metrics}
    if "modes_lung" not in found:
        return None
    modes, floor = found["modes_lung"], found["modes_lung/floor"]
    if modes.high is None or modes.high >= config.least_modes * floor.value:
        return None
    return (
        f"The generator collapsed: its slices hit {modes.value:.0%} of the modes of real slices (95 % interval "
        f"{modes.low:.0%} to {modes.high:.0%}), where held-out slices hit {floor.value:.0%}."
    )


def _contender(predictions: Predictions, arms: Sequence[str]) -> Contender:
    """The arm that is best on `val`; on `test`, each classifier of the arm that those of all other seeds prefer there.

    A classifier that happened to turn out well does so on `val` and on `test`. Were it to vote for its own arm, the
    best of several arms without effect would show a gain (0.016 of 5, where AUROC's SD over seeds is 0.06).
    """
    by_seed = np.stack([_aurocs(predictions.of(arm, "val")) for arm in arms])
    total = by_seed.sum(axis=1, keepdims=True)
    others = total - by_seed if by_seed.shape[1] > 1 else total
    tests = [predictions.of(arm, "test") for arm in arms]
    scores = np.stack([tests[arm].scores[seed] for seed, arm in enumerate(others.argmax(axis=0))])
    return Contender(arms[int(total.argmax())], tests[0]._replace(scores=scores))


def _aurocs(scores: Scores) -> np.ndarray:
    """Of each seed."""
    counts = pair_counts(*scores)
    return auroc(counts, np.ones((1, len(counts.pairs))))[0]


def _mean_auroc(scores: Scores) -> float:
    return float(_aurocs(scores).mean())


def _compare(candidate: Contender, rival: Contender, role: str, config: GateConfig) -> Comparison:
    ours, theirs = candidate.test, rival.test
    drawn = resample(ours.labels, ours.patients, len(ours.scores), config.resamples, config.seed)
    gain = gain_interval(pair_counts(*ours), pair_counts(*theirs), drawn)
    check = delong(ours.scores, theirs.scores, ours.labels, ours.patients)
    by_seed = _aurocs(ours) - _aurocs(theirs)
    seed_sd = float(np.std(by_seed, ddof=1)) if len(by_seed) > 1 else 0.0
    return Comparison(role, rival.arm, gain, check, smallest_detectable_effect(gain.se), seed_sd, config.resamples)


def _patients_per_class(predictions: Predictions, arm: str) -> dict[str, int]:
    _, labels, patients = predictions.of(arm, "test")
    return {name: len(np.unique(patients[labels == code])) for code, name in enumerate(predictions.classes)}
