"""The verdict record: what the gate decided, by which rule, and every number that it used."""

from typing import Literal

from pydantic import computed_field

from lungsynth.evaluation.scorecard import Metric, Record
from lungsynth.evaluation.statistics import Measure

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


class Gain(Record):
    """What the candidate gained over one rival on test patients, and what is known of that number."""

    gain: Metric
    delong: Metric | None = None
    """The gain with DeLong's interval; None where arms are compared by Dice."""
    seed_sd: Metric | None = None
    """SD of the gain over training seeds; None, like the next, where there is one seed."""
    smallest_detectable: Metric | None = None
    """The true gain above `gate.min_gain` that the test would find with 80 % power."""

    @property
    def rival(self) -> str:
        """See `Measurand.rival`."""
        return str(self.gain.rival)

    @property
    def numbers(self) -> tuple[Metric, ...]:
        """All of it, as far as there is any."""
        found = (self.gain, self.delong, self.seed_sd, self.smallest_detectable)
        return tuple(metric for metric in found if metric)


class Verdict(Record):
    """What the gate decided, by which rule, and every number that it used."""

    outcome: Outcome
    reason: str
    """One sentence for a reader who has seen nothing else."""
    rule: Rule
    measure: Measure
    """What arms are compared by."""
    candidate_arm: str
    baseline_arm: str
    test_patients: tuple[Metric, ...]
    """By class; for Dice, of all classes together."""
    score: Metric
    """AUROC or Dice of what was chosen on `val`, by which generators are ranked."""
    chosen: tuple[Metric, ...]
    """For each arm that some training seed chose, how many did."""
    gains: tuple[Gain, ...] = ()
    """Over every rival, the best baseline first; none where test patients were too few."""
    subgroups: tuple[Metric, ...] = ()
    """The gain over the best baseline in each group of test patients that is large enough."""
    unjudged: tuple[Metric, ...] = ()
    """For each group that is too small, its test patients; of AUROC's two classes, of the rarer one."""
    power: tuple[Metric, ...] = ()
    """The chance of a promotion at the least gain worth having, by number of test patients."""
    protocol_sha256: str
    """See `protocol`: verdicts compare only where it is the same."""

    @property
    def main_numbers(self) -> tuple[Metric, ...]:
        """What a table shows; `unjudged` and `power` become a sentence and a curve."""
        gains = (metric for gain in self.gains for metric in gain.numbers)
        return (*self.test_patients, self.score, *self.chosen, *gains, *self.subgroups)

    @computed_field  # type: ignore[prop-decorator]  # mypy knows no decorated properties
    @property
    def numbers(self) -> tuple[Metric, ...]:
        """All numbers in one list."""
        return (*self.main_numbers, *self.unjudged, *self.power)
