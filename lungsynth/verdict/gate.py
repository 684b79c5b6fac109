"""The gate: a generator becomes champion for what its slices did for classifiers or segmenters, or not at all."""

from typing import Literal, Self

import pandas as pd
from pydantic import BaseModel, ConfigDict, Field, model_validator

from lungsynth.config import Config
from lungsynth.evaluation.scorecard import Metric, Scorecard
from lungsynth.evaluation.statistics import Estimate, Measure, bootstrap, power
from lungsynth.evaluation.utility.predictions import Predictions
from lungsynth.verdict.arms import score_arms
from lungsynth.verdict.comparison import CHOSEN, Comparison, compare, contender, subgroup_gains

POWER_STEPS = (1, 2, 4, 8, 16, 32)
"""How many times the test patients the power curve looks at."""
LEAST_SEEDS = 3
"""Training seeds of an arm that show their spread: one shows none, and two next to nothing."""
TRAINED: dict[Measure, str] = {"AUROC": "classifiers", "Dice": "segmenters"}
"""What an arm consists of."""
Outcome = Literal["promote", "reject", "underpowered", "blocked"]
Rule = Literal[
    "privacy",
    "test patients",
    "collapse",
    "training seeds",
    "gain",
    "worthwhile gain excluded",
    "smallest detectable effect",
    "no gain",
    "subgroup",
    "privacy patients",
]


class GateConfig(Config):
    """What a generator has to show."""

    min_gain: float = Field(
        0.0,
        ge=0,
        lt=1,
        description="AUROC or Dice; gain that the whole 95 % interval has to exceed [chosen here: better at all]",
    )
    worthwhile_gain: float = Field(
        0.02, gt=0, lt=1, description="AUROC or Dice; gain worth having [AUROC: Khosravi 2024]"
    )
    harm_margin: float = Field(
        0.05,
        ge=0,
        lt=1,
        description="AUROC or Dice that a subgroup of patients may lose; a surely lower one blocks [chosen here: more "
        "than worthwhile_gain, since subgroups are small]",
    )
    least_modes: float = Field(
        0.5,
        ge=0,
        le=1,
        description="ratio of modes drawn to those of held-out slices, below which a generator collapsed [chosen "
        "here: held-out slices have 1]",
    )
    resamples: int = Field(
        2000,
        ge=200,
        description="resamples of test patients [chosen here: chance moves a bound by 2 % of the interval]",
    )
    min_patients_per_class: int = Field(
        10, ge=2, description="test patients of each class, for Dice of any [chosen here: fewer make no bootstrap]"
    )
    seed: int = Field(0, ge=0, description="seed of the resamples")

    @model_validator(mode="after")
    def _worth_more_than_the_least(self) -> Self:
        if self.min_gain >= self.worthwhile_gain:
            raise ValueError(
                f"worthwhile_gain {self.worthwhile_gain:g} has to be above min_gain {self.min_gain:g}, or a gain worth "
                "having would not be promoted"
            )
        return self


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
    """See `protocol`: verdicts compare only where it is the same."""

    @property
    def score(self) -> float:
        """AUROC or Dice of what was compared, by which generators are ranked."""
        return next(metric.value for metric in self.numbers if metric.name.endswith(f"/{CHOSEN}"))


def decide(
    predictions: Predictions,
    fidelity: Scorecard,
    privacy: Scorecard,
    groups: pd.DataFrame,
    config: GateConfig,
    protocol_sha256: str,
) -> tuple[Scorecard, Verdict]:
    """The whole scorecard, and the verdict.

    Which synthetic arm stands for the generator is chosen on `val`, by AUROC or Dice, for each training seed by the
    others; `test` decides. What was chosen may be of several arms, and its own AUROC or Dice is among the numbers, for
    no arm's differs from the baseline's by just the gain. It has to beat every arm without synthetic slices, so that
    none of these needs to be chosen (an intersection-union test, which asks for no correction; Berger 1982,
    doi:10.1080/00401706.1982.10487790); the best one on `test` is called the baseline.

    The first rule that applies wins: a privacy breach blocks; too few test patients are underpowered; a collapse
    rejects; fewer than `LEAST_SEEDS` are underpowered; gains whose intervals all lie above `min_gain`, also against
    the champion's slices, promote; an interval below `worthwhile_gain` rejects; too coarse a test is underpowered; all
    else rejects. What would be promoted is blocked where a subgroup of patients surely loses, and more than
    `harm_margin`, against the baseline; and it is underpowered where privacy could not be judged. A subgroup with too
    few patients is not judged, but is among the numbers.

    Args:
        fidelity: of it only a collapse decides, by `modes_lung`: FID does not predict usefulness.
        privacy: with `privacy/breach`, which says what failed, and `privacy/unjudged` where patients were too few.
        groups: of patients; see `patient_groups`.
        protocol_sha256: hash of the configurations that make verdicts comparable.
    """
    card = fidelity + privacy + score_arms(predictions, config.resamples, config.seed)
    candidate = contender(predictions, predictions.arms_of("candidate"))
    measure, seeds = predictions.measure, len(candidate.test.scores)
    counted = predictions.classes if measure == "AUROC" else ("all",)
    patients = dict(zip(counted, candidate.patients, strict=True))
    comparisons: list[Comparison] = []
    rivals = [contender(predictions, [arm]) for arm in predictions.arms_of("baseline")]
    rivals.sort(key=lambda rival: -rival.mean)
    roles = ["baseline", *(rival.arm for rival in rivals[1:])]
    if previous := predictions.arms_of("champion"):
        rivals, roles = [*rivals, contender(predictions, previous)], [*roles, "champion"]
    if min(patients.values()) >= config.min_patients_per_class:
        comparisons = [
            compare(candidate, rival, role, config.resamples, config.seed)
            for role, rival in zip(roles, rivals, strict=True)
        ]
    subgroups = subgroup_gains(
        candidate,
        rivals[0],
        predictions.patients("test"),
        groups,
        least_patients=config.min_patients_per_class,
        resamples=config.resamples,
        seed=config.seed,
    )
    outcome, rule, reason = _judge(fidelity, privacy, patients, seeds, measure, comparisons, config)
    if outcome == "promote" and (objection := _objection(privacy, subgroups.gains, measure, rivals[0].arm, config)):
        outcome, rule, reason = objection
    with_slice = "patients with a slice of the class" if measure == "AUROC" else "patients with a slice"
    numbers = [
        Metric(name=f"test_patients/{name}", value=count, computed_with=with_slice) for name, count in patients.items()
    ]
    numbers += candidate.metrics(config.resamples, config.seed)
    for comparison in comparisons:
        numbers += comparison.metrics()
    how = f"against {rivals[0].arm}, this group of patients alone, {bootstrap(seeds, config.resamples)}"
    numbers += [Metric.of(f"gain/baseline/{name}", gain, how) for name, gain in subgroups.gains.items()]
    for name, counts in subgroups.small.items():
        few = _too_few(dict(zip(counted, counts, strict=True)), config)
        numbers.append(Metric(name=f"unjudged/{name}", value=min(counts), computed_with=f"test patients: {few}"))
    if comparisons and seeds >= LEAST_SEEDS:
        numbers += _power(comparisons[0], len(predictions.patients("test")), config)
    return card, Verdict(
        outcome=outcome,
        reason=reason,
        rule=rule,
        candidate_arm=candidate.arm,
        baseline_arm=rivals[0].arm,
        numbers=tuple(numbers),
        protocol_sha256=protocol_sha256,
    )


def _judge(
    fidelity: Scorecard,
    privacy: Scorecard,
    patients: dict[str, int],
    seeds: int,
    measure: Measure,
    comparisons: list[Comparison],
    config: GateConfig,
) -> tuple[Outcome, Rule, str]:
    breach = privacy["privacy/breach"]
    if breach.value:
        return "blocked", "privacy", f"Synthetic slices give training patients away: {breach.computed_with}."
    if not comparisons:
        return "underpowered", "test patients", f"The test split has {_too_few(patients, config)}."
    if reason := _collapse(fidelity, config):
        return "reject", "collapse", reason
    if seeds < LEAST_SEEDS:
        reason = (
            f"Each arm has {seeds} training seed{'s' if seeds > 1 else ''}: with fewer than {LEAST_SEEDS} a gain "
            "cannot be told from luck in training; raise utility.seeds, best to 5."
        )
        return "underpowered", "training seeds", reason
    failed = [c for c in comparisons if c.gain.low <= config.min_gain]
    if not failed:
        gains = " and ".join(c.phrase for c in comparisons)
        return (
            "promote",
            "gain",
            f"Synthetic slices changed test {measure} by {gains}: surely more than {config.min_gain:g}.",
        )
    worthwhile = f"{config.worthwhile_gain:g}, the least gain worth having"
    for c in failed:
        if c.gain.high < config.worthwhile_gain:
            reason = f"Synthetic slices changed test {measure} by {c.phrase}: that excludes {worthwhile}."
            return "reject", "worthwhile gain excluded", reason
    for c in failed:
        if (sure := config.min_gain + c.detectable) > config.worthwhile_gain:
            most = c.gain.seed_se**2 > c.gain.se**2 / 2
            remedy = f"train more {TRAINED[measure]} in each arm" if most else "add test patients"
            sees = f"this test only sees gains of {sure:.3f} or more, not {worthwhile}; {remedy}"
            reason = f"Synthetic slices changed test {measure} by {c.phrase}: {sees}."
            return "underpowered", "smallest detectable effect", reason
    reason = f"Synthetic slices changed test {measure} by {failed[0].phrase}: not surely more than {config.min_gain:g}."
    return "reject", "no gain", reason


def _collapse(fidelity: Scorecard, config: GateConfig) -> str | None:
    """What shows that the generator collapsed; None if nothing does, or too few slices were there to tell.

    Noise hits few modes too: slices must also be surely more alike than real ones, in some class.
    """
    found = {metric.name: metric for metric in fidelity.metrics}
    if "modes_lung" not in found:
        return None
    modes, floor = found["modes_lung"], found["modes_lung/floor"]
    alike = [
        name
        for name, metric in found.items()
        if name.startswith("ms_ssim/")
        and (real := found.get(f"{name}/floor"))
        and (metric.low or 0) > (real.high or real.value)
    ]
    if not alike or (modes.high or modes.value) >= config.least_modes * floor.value:
        return None
    return (
        f"The generator collapsed: its slices hit {modes.value:.0%} of the modes of real slices, where held-out slices "
        f"hit {floor.value:.0%}, and they are more alike (MS-SSIM {found[alike[0]].value:.2f}, real "
        f"{found[alike[0] + '/floor'].value:.2f})."
    )


def _power(comparison: Comparison, patients: int, config: GateConfig) -> list[Metric]:
    """The chance of a promotion at the least gain worth having, by how many test patients there were."""
    how = f"if {config.worthwhile_gain:g} were gained; patients of the same kind, {comparison.arm} to beat, same seeds"
    return [
        Metric(
            name=f"power/{patients * more}",
            value=power(config.worthwhile_gain - config.min_gain, comparison.gain, more),
            computed_with=how,
        )
        for more in POWER_STEPS
    ]


def _too_few(patients: dict[str, int], config: GateConfig) -> str:
    """How many test patients there are, by class or in `all`, and how many it would take."""
    needed = f"{config.min_patients_per_class} of each are needed for an interval to mean anything"
    if "all" in patients:
        return f"{patients['all']} patients; {needed.replace(' of each', '')}"
    return f"{' and '.join(f'{count} with {name} slices' for name, count in patients.items())}; {needed}"


def _objection(
    privacy: Scorecard, gains: dict[str, Estimate], measure: Measure, arm: str, config: GateConfig
) -> tuple[Outcome, Rule, str] | None:
    """What keeps back a generator whose gain would promote it: harm to a subgroup, or privacy that nobody could judge.

    Args:
        gains: of subgroups, against the baseline `arm`.
    """
    for name, gain in gains.items():
        if gain.value < -config.harm_margin and gain.high < 0:
            return "blocked", "subgroup", _harm(name, gain, measure, arm, config)
    unjudged = next((metric for metric in privacy.metrics if metric.name == "privacy/unjudged"), None)
    if unjudged and unjudged.value:
        reason = "Synthetic slices help, but whether they give training patients away could not be judged: "
        return "underpowered", "privacy patients", f"{reason}{unjudged.computed_with}."
    return None


def _harm(name: str, gain: Estimate, measure: Measure, arm: str, config: GateConfig) -> str:
    return (
        f"Synthetic slices help on average, but changed the test {measure} of patients with {name} by "
        f"{gain.value:+.3f} (95 % interval {gain.low:+.3f} to {gain.high:+.3f}) against {arm}: more than "
        f"{config.harm_margin:g} is lost."
    )
