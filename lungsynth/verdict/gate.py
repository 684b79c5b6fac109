"""The gate: the rules by which a generator becomes champion, and what they look at."""

from collections.abc import Callable
from typing import NamedTuple, Self

from pydantic import Field, model_validator

from lungsynth.config import Config
from lungsynth.evaluation.quantities import BREACH, LUNG, MODES, MS_SSIM, UNJUDGED_CHECKS
from lungsynth.evaluation.scorecard import Measurand, Scorecard
from lungsynth.evaluation.statistics import Measure
from lungsynth.verdict.comparison import Comparison, Contender, Subgroups
from lungsynth.verdict.record import Outcome, Rule

LEAST_SEEDS = 3
"""Training seeds of an arm that show their spread: one shows none, and two next to nothing."""
TRAINED: dict[Measure, str] = {"AUROC": "classifiers", "Dice": "segmenters"}
"""What an arm consists of."""


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


class Contest(NamedTuple):
    """The candidate and its rivals on test patients."""

    candidate: Contender
    baseline: Contender
    """The best arm without synthetic slices on `test`."""
    patients: dict[str, int]
    """Test patients by class; for Dice, in `all`."""
    comparisons: list[Comparison]
    """With every rival, the baseline first; none where test patients are too few."""
    subgroups: Subgroups

    @property
    def seeds(self) -> int:
        """Training seeds of each arm."""
        return len(self.candidate.test.scores)


class Evidence(NamedTuple):
    """All that rules look at."""

    contest: Contest
    fidelity: Scorecard
    privacy: Scorecard


class Ruling(NamedTuple):
    """What a rule decides, and why, in one sentence."""

    outcome: Outcome
    rule: Rule
    reason: str


def judge(evidence: Evidence, config: GateConfig) -> Ruling:
    """The first of `RULES` that applies; the last one always does."""
    return next(ruling for rule in RULES if (ruling := rule(evidence, config)))


def privacy_breach(evidence: Evidence, config: GateConfig) -> Ruling | None:
    """Block a generator that gives training patients away."""
    breach = evidence.privacy[Measurand(quantity=BREACH).name]
    if not breach.value:
        return None
    return Ruling("blocked", "privacy", f"Synthetic slices give training patients away: {breach.computed_with}.")


def few_test_patients(evidence: Evidence, config: GateConfig) -> Ruling | None:
    """Where there are too few test patients, nothing was compared."""
    if evidence.contest.comparisons:
        return None
    few = too_few(evidence.contest.patients, config)
    return Ruling("underpowered", "test patients", f"The test split has {few}.")


def collapse(evidence: Evidence, config: GateConfig) -> Ruling | None:
    """Reject a generator that draws few modes, and in some class slices that are surely more alike than real ones.

    Few modes alone do not show a collapse: noise hits few modes too. Without the modes, too few slices could be drawn.
    """
    fidelity = evidence.fidelity
    modes = fidelity.find(Measurand(quantity=MODES, extractor=LUNG))
    if modes is None:
        return None
    floor = fidelity[Measurand(quantity=MODES, extractor=LUNG, floor=True).name]
    alike = [
        (metric, real)
        for metric in fidelity.metrics
        if metric.quantity == MS_SSIM and not metric.floor and (real := fidelity.floor_of(metric))
        if (metric.low or 0) > (real.high or real.value)
    ]
    if not alike or (modes.high or modes.value) >= config.least_modes * floor.value:
        return None
    synthetic, real = alike[0]
    reason = (
        f"The generator collapsed: its slices hit {modes.value:.0%} of the modes of real slices, where held-out slices "
        f"hit {floor.value:.0%}, and they are more alike (MS-SSIM {synthetic.value:.2f}, real {real.value:.2f})."
    )
    return Ruling("reject", "collapse", reason)


def few_training_seeds(evidence: Evidence, config: GateConfig) -> Ruling | None:
    """Fewer than `LEAST_SEEDS` do not show the spread over training seeds."""
    seeds = evidence.contest.seeds
    if seeds >= LEAST_SEEDS:
        return None
    reason = (
        f"Each arm has {seeds} training seed{'s' if seeds > 1 else ''}: with fewer than {LEAST_SEEDS} a gain "
        "cannot be told from luck in training; raise utility.seeds, best to 5."
    )
    return Ruling("underpowered", "training seeds", reason)


def harm_to_a_subgroup(evidence: Evidence, config: GateConfig) -> Ruling | None:
    """Block what would be promoted, where a group of patients surely loses, and more than `harm_margin`.

    A group with too few patients is not judged; its size is among the numbers.
    """
    if _unbeaten(evidence, config):
        return None
    for name, gain in evidence.contest.subgroups.gains.items():
        if gain.value < -config.harm_margin and gain.high < 0:
            reason = (
                f"Synthetic slices help on average, but changed the test {evidence.contest.candidate.measure} of "
                f"patients with {name} by {gain.value:+.3f} (95 % interval {gain.low:+.3f} to {gain.high:+.3f}) "
                f"against {evidence.contest.baseline.arm}: more than {config.harm_margin:g} is lost."
            )
            return Ruling("blocked", "subgroup", reason)
    return None


def unjudged_privacy(evidence: Evidence, config: GateConfig) -> Ruling | None:
    """Do not promote where patients were too few to judge privacy."""
    unjudged = evidence.privacy.find(Measurand(quantity=UNJUDGED_CHECKS))
    if _unbeaten(evidence, config) or unjudged is None or not unjudged.value:
        return None
    reason = "Synthetic slices help, but whether they give training patients away could not be judged: "
    return Ruling("underpowered", "privacy patients", f"{reason}{unjudged.computed_with}.")


def sure_gain(evidence: Evidence, config: GateConfig) -> Ruling | None:
    """Promote where the intervals of the gains over all rivals lie above `min_gain`."""
    if _unbeaten(evidence, config):
        return None
    gains = " and ".join(comparison.phrase for comparison in evidence.contest.comparisons)
    return Ruling("promote", "gain", f"{_changed(evidence)} by {gains}: surely more than {config.min_gain:g}.")


def no_worthwhile_gain(evidence: Evidence, config: GateConfig) -> Ruling | None:
    """Reject where an interval lies below `worthwhile_gain`."""
    for rival in _unbeaten(evidence, config):
        if rival.gain.high < config.worthwhile_gain:
            reason = f"{_changed(evidence)} by {rival.phrase}: that excludes {_worthwhile(config)}."
            return Ruling("reject", "worthwhile gain excluded", reason)
    return None


def coarse_test(evidence: Evidence, config: GateConfig) -> Ruling | None:
    """Where the smallest detectable gain is above the gain worth having, the test could not tell."""
    for rival in _unbeaten(evidence, config):
        if (sure := config.min_gain + rival.detectable) > config.worthwhile_gain:
            seeds_dominate = rival.gain.seed_se**2 > rival.gain.se**2 / 2
            more = f"train more {TRAINED[rival.measure]} in each arm" if seeds_dominate else "add test patients"
            sees = f"this test only sees gains of {sure:.3f} or more, not {_worthwhile(config)}; {more}"
            reason = f"{_changed(evidence)} by {rival.phrase}: {sees}."
            return Ruling("underpowered", "smallest detectable effect", reason)
    return None


def no_gain(evidence: Evidence, config: GateConfig) -> Ruling:
    """Reject what no other rule judged."""
    rival = _unbeaten(evidence, config)[0]
    reason = f"{_changed(evidence)} by {rival.phrase}: not surely more than {config.min_gain:g}."
    return Ruling("reject", "no gain", reason)


RULES: tuple[Callable[[Evidence, GateConfig], Ruling | None], ...] = (
    privacy_breach,
    few_test_patients,
    collapse,
    few_training_seeds,
    harm_to_a_subgroup,
    unjudged_privacy,
    sure_gain,
    no_worthwhile_gain,
    coarse_test,
    no_gain,
)
"""The first that applies decides."""


def _unbeaten(evidence: Evidence, config: GateConfig) -> list[Comparison]:
    """The rivals over which no gain above `min_gain` is sure."""
    return [one for one in evidence.contest.comparisons if one.gain.low <= config.min_gain]


def _changed(evidence: Evidence) -> str:
    return f"Synthetic slices changed test {evidence.contest.candidate.measure}"


def _worthwhile(config: GateConfig) -> str:
    return f"{config.worthwhile_gain:g}, the least gain worth having"


def too_few(patients: dict[str, int], config: GateConfig) -> str:
    """How many test patients there are, by class or in `all`, and how many are needed."""
    needed = f"{config.min_patients_per_class} of each are needed for an interval to mean anything"
    if "all" in patients:
        return f"{patients['all']} patients; {needed.replace(' of each', '')}"
    return f"{' and '.join(f'{count} with {name} slices' for name, count in patients.items())}; {needed}"
