"""The scorecard record: every number with its interval, its sample sizes and what it was computed with."""

from pydantic import BaseModel, ConfigDict

from lungsynth.evaluation.statistics import Estimate, Measure


class Metric(BaseModel):
    """One number of an evaluation."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str
    """Names its extractor, scope and reference where it has them, as in `fid_lung/cancer` or `auroc/real`."""
    value: float
    low: float | None = None
    high: float | None = None
    """Bounds of the 95 % interval; none where the number is a setting or a count."""
    n: dict[str, int] = {}
    """Sample sizes by what was counted, as in `{"synthetic": 400, "real": 400, "patients": 31}`."""
    computed_with: str
    """Method, extractor and resampling, as in `torch-fidelity 0.4.0, lung extractor, patient bootstrap ×100`."""

    @classmethod
    def of(cls, name: str, estimate: Estimate, computed_with: str, n: dict[str, int] | None = None) -> "Metric":
        """An estimate with its interval."""
        value, low, high, *_ = estimate
        return cls(name=name, value=value, low=low, high=high, n=n or {}, computed_with=computed_with)


class Scorecard(BaseModel):
    """All metrics of one evaluation, in the order in which a reader should meet them, and remarks worth reading."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    metrics: tuple[Metric, ...]
    notes: tuple[str, ...] = ()

    @property
    def measure(self) -> Measure:
        """What the arms are compared by."""
        return "Dice" if any(metric.name.startswith("dice/") for metric in self.metrics) else "AUROC"

    def __getitem__(self, name: str) -> Metric:
        """The metric of that exact name.

        Raises:
            KeyError: there is none.
        """
        for metric in self.metrics:
            if metric.name == name:
                return metric
        raise KeyError(name)

    def __add__(self, other: "Scorecard") -> "Scorecard":
        """Both cards as one, this one first."""
        return Scorecard(metrics=self.metrics + other.metrics, notes=self.notes + other.notes)
