"""The scorecard record: every number with what it measures, its interval, its sample sizes and how it was computed."""

from collections.abc import Mapping
from typing import Any, Literal

from pydantic import (
    BaseModel,
    ConfigDict,
    SerializerFunctionWrapHandler,
    computed_field,
    model_serializer,
    model_validator,
)

from lungsynth.evaluation.fidelity.normalisation import Normalisation
from lungsynth.evaluation.quantities import Quantity
from lungsynth.evaluation.statistics import Estimate


class Record(BaseModel):
    """Base of records that become JSON: computed fields are written beside the others, and not read back."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    @model_validator(mode="before")
    @classmethod
    def _without_computed(cls, given: Any) -> Any:
        if not isinstance(given, Mapping):
            return given
        return {field: value for field, value in given.items() if field not in cls.model_computed_fields}


class Measurand(Record):
    """What one number measures, which makes its name. A field that says nothing about the number is None."""

    quantity: Quantity
    extractor: str | None = None
    """Of the features: `lung`, or a `Pretrained` one."""
    normalisation: Normalisation | None = None
    """Of grey values before features are taken; None: the dataset's own window."""
    class_name: str | None = None
    """Slices of this class alone; for Dice, test patients of `all` classes."""
    arm: str | None = None
    """What classifiers or segmenters were trained on; see `utility.measure.arms`."""
    rival: str | None = None
    """Of a gain: `baseline`, `champion`, or the name of a baseline that is easier to beat."""
    subgroup: str | None = None
    """Test patients of this group alone, as `sex F`; see `verdict.subgroups`."""
    statistic: Literal["delong", "seed_sd", "smallest_detectable"] | None = None
    """What is told of a gain, where it is not the gain with its bootstrap interval."""
    patients: int | None = None
    """Test patients that a power is computed for."""
    floor: bool = False
    """The same measure of real slices of other patients: what a perfect generator would score."""

    @property
    def base_name(self) -> str:
        """The name that a metric and its floor share."""
        head = "privacy/" if self.quantity.topic == "privacy" else ""
        extractor = f"_{self.extractor}" if self.extractor else ""
        normalisation = f"@{self.normalisation}" if self.normalisation else ""
        tail = (self.class_name, self.arm, self.rival, self.subgroup, self.statistic, self.patients)
        parts = [f"/{part}" for part in tail if part is not None]
        return "".join([head, self.quantity.name, extractor, normalisation, *parts])

    @computed_field  # type: ignore[prop-decorator]  # mypy knows no decorated properties
    @property
    def name(self) -> str:
        """As files, report, terminal and MLflow print it: `fid_lung/cancer/floor`, `auroc/real`, `privacy/near`."""
        return f"{self.base_name}/floor" if self.floor else self.base_name


class Metric(Measurand):
    """One number of an evaluation."""

    value: float
    low: float | None = None
    high: float | None = None
    """Bounds of the 95 % interval; none where the number is a setting or a count, or nothing could be resampled."""
    n: dict[str, int] = {}
    """Sample sizes by what was counted, as in `{"synthetic": 400, "real": 400, "patients": 31}`."""
    computed_with: str
    """Method, extractor and resampling, as in `torch-fidelity 0.4.0, lung extractor, patient bootstrap ×100`."""

    @classmethod
    def of(
        cls,
        measurand: Measurand,
        estimate: Estimate,
        computed_with: str,
        *,
        n: dict[str, int] | None = None,
        bounded: bool = True,
    ) -> "Metric":
        """An estimate, with its interval where it is `bounded`."""
        low, high = (estimate.low, estimate.high) if bounded else (None, None)
        return cls(**dict(measurand), value=estimate.value, low=low, high=high, n=n or {}, computed_with=computed_with)

    @model_serializer(mode="wrap")
    def _name_first(self, written: SerializerFunctionWrapHandler) -> dict[str, object]:
        """Begin with the name, and leave out what says nothing about this number."""
        always = ("low", "high")
        fields = {field: value for field, value in written(self).items() if value is not None or field in always}
        return {"name": self.name} | fields


class Scorecard(Record):
    """All metrics of one evaluation, in the order in which a reader should meet them, and remarks worth reading."""

    metrics: tuple[Metric, ...]
    notes: tuple[str, ...] = ()

    def find(self, measurand: Measurand) -> Metric | None:
        """The number that measures this, or None."""
        return next((metric for metric in self.metrics if metric.name == measurand.name), None)

    def floor_of(self, metric: Metric) -> Metric | None:
        """What real slices score where `metric` is what synthetic ones do, or None."""
        return next((real for real in self.metrics if real.floor and real.base_name == metric.base_name), None)

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
