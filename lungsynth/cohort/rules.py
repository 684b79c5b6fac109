"""Which of the labelled CT series take part: explicit rules, each of which keeps some rows of the table.

They apply in the order of `series_rules`, then `choice_rules`, then the matching of controls. `Selection` keeps the
count of what each of them left: the cohort's funnel. The table has one row a series, with `SERIES_COLUMNS`, the columns
of `describe`, and label, evidence, annotated and patient_key.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Literal, Self

import pandas as pd
from pydantic import Field, model_validator

from lungsynth.cohort.cohort import funnel
from lungsynth.cohort.controls import ControlConfig, match_controls
from lungsynth.cohort.splits import uniform_hash
from lungsynth.config import Config
from lungsynth.dataset.vocabulary import CLASSES
from lungsynth.errors import LungsynthError

POSITIVE = CLASSES[-1]


class RuleConfig(Config):
    """Conditions on series, and the choice among a patient's series.

    A series is never excluded for an unknown property; the funnel counts such series. The DICOM reader checks later
    whether they are axial; thickness and kernel stay unchecked. For NLST all properties are known; for other
    collections hardly more than the number of instances.
    """

    axial: bool = Field(True, description="original axial images only: no localizer, no reformatted or derived image")
    min_instances: int = Field(
        20,
        ge=1,
        description="instances of a series at least [chosen here: fewer make a localizer, not a scan of the chest]",
    )
    thickness_mm: tuple[float, float] = Field(
        (0.5, 3.2),
        description="mm, least and most [chosen here: nodules of 4 mm fade in thicker slices; Philips scanned NLST at "
        "3.2]",
    )
    kernels: tuple[str, ...] | None = Field(
        None, min_length=1, description="kernels to take, as the source names them; none: all"
    )
    one_reconstruction: bool = Field(True, description="of each study the best reconstruction, else all of them")
    prefer_kernel: Literal["soft", "sharp"] = Field("soft", description="kernel of the best reconstruction")
    studies: Literal["one", "all"] = Field("one", description="studies a patient")
    patients_per_class: int | None = Field(
        None,
        ge=1,
        description="patients, drawn by salted hash; with controls it bounds the cancer patients alone; none: all",
    )
    controls: ControlConfig | None = Field(None, description="matched controls; all cancer-free patients if not given")

    @model_validator(mode="after")
    def _rising(self) -> Self:
        if not 0 < self.thickness_mm[0] <= self.thickness_mm[1]:
            raise ValueError(f"thickness_mm must be a rising range above 0, not {list(self.thickness_mm)}")
        return self


@dataclass(frozen=True)
class Rule:
    """A name that clinicians understand, the function that keeps rows, and the column that it needs, if any."""

    name: str
    keep: Callable[[pd.DataFrame], pd.DataFrame]
    judges: str | None = None


@dataclass
class Selection:
    """The series left by the rules so far, and the funnel."""

    series: pd.DataFrame = field(default_factory=pd.DataFrame)
    steps: list[pd.DataFrame] = field(default_factory=list)  # counts, one row each: the tables would fill the memory
    lost: dict[str, str] = field(default_factory=dict)  # a class of which no patient is left, and the rule that did it

    @property
    def funnel(self) -> pd.DataFrame:
        """Rule, series and patients left, in order."""
        return pd.concat(self.steps, ignore_index=True)

    def record(self, rule: str, left: pd.DataFrame) -> None:
        """Continue with the series that a rule left, and add it to the funnel.

        Raises:
            LungsynthError: none is left; the message names the rule and has the funnel.
        """
        self.series = left
        self.steps.append(funnel((rule, left)))
        if left.empty:
            path = " → ".join(f"{step.rule}: {step.series}" for step in self.funnel.itertuples())
            raise LungsynthError(f"no series is left after the rule «{rule}»: loosen it, or widen the query ({path})")
        if "label" in left:
            for name in set(CLASSES) - set(left["label"]):
                self.lost.setdefault(name, rule)

    def apply(self, rules: list[Rule]) -> None:
        """Apply the rules in order; the funnel says for each how many series it could not judge."""
        for rule in rules:
            left = rule.keep(self.series)
            unknown = int(left[rule.judges].isna().sum()) if rule.judges else 0
            self.record(rule.name + (f" (not known of {unknown:,}, which stay)" if unknown else ""), left)

    def match(self, config: ControlConfig, salt: str) -> None:
        """Keep the cancer patients who have a matched control, and those controls."""
        pairs = match_controls(self.series.drop_duplicates("patient_key"), config, salt)
        if pairs.empty:
            raise LungsynthError(
                f"no cancer patient has a control alike in {config.keys}: widen the query or match by less"
            )
        controls = pairs["case"].value_counts()
        matched = self.series["patient_key"].isin(controls.index) | (self.series["label"] != POSITIVE)
        short = f" ({(controls < config.ratio).sum()} of {len(controls)} have fewer)"
        self.record(f"cancer patients with a control alike in {config.keys}", self.series[matched])
        chosen = self.series["patient_key"].isin([*pairs["case"], *pairs["control"]])
        self.record(f"{config.ratio} matched control(s) a cancer patient{short}", self.series[chosen])


def series_rules(config: RuleConfig) -> list[Rule]:
    """Rules about single series."""
    low, high = config.thickness_mm
    rules = [
        Rule("axial, original", axial, "image_type") if config.axial else None,
        Rule(f"at least {config.min_instances} instances", partial(long_enough, least=config.min_instances)),
        Rule(f"slices of {low:g} to {high:g} mm", partial(thickness_within, low=low, high=high), "thickness_mm"),
        Rule(f"kernel {' or '.join(config.kernels)}", partial(of_kernels, names=config.kernels), "kernel")
        if config.kernels
        else None,
    ]
    return [rule for rule in rules if rule is not None]


def choice_rules(config: RuleConfig, salt: str) -> list[Rule]:
    """Rules that choose among series."""
    capped = (POSITIVE,) if config.controls is not None else CLASSES
    cap = partial(first_patients, count=config.patients_per_class or 0, labels=capped, salt=salt)
    rules = [
        Rule(
            f"one reconstruction a study: annotated, then {config.prefer_kernel} kernel, then thinnest",
            partial(best_reconstruction, prefer=config.prefer_kernel),
        )
        if config.one_reconstruction
        else None,
        Rule("one study a patient: annotated and latest, else drawn", partial(best_study, salt=salt))
        if config.studies == "one"
        else None,
        Rule(f"at most {config.patients_per_class} {' and '.join(capped)} patients each", cap)
        if config.patients_per_class
        else None,
    ]
    return [rule for rule in rules if rule is not None]


def axial(series: pd.DataFrame) -> pd.DataFrame:
    """Original axial images: the types OPA and OSA of NLST."""
    return series[series["image_type"].isin(["OPA", "OSA"]) | series["image_type"].isna()]


def long_enough(series: pd.DataFrame, least: int) -> pd.DataFrame:
    """Series of at least so many instances."""
    return series[series["instances"] >= least]


def thickness_within(series: pd.DataFrame, low: float, high: float) -> pd.DataFrame:
    """Series with slices of `low` to `high` mm, and those whose thickness is not known."""
    return series[series["thickness_mm"].between(low, high).fillna(True)]


def of_kernels(series: pd.DataFrame, names: tuple[str, ...]) -> pd.DataFrame:
    """Series of these kernels, and those whose kernel is not known.

    Raises:
        LungsynthError: none has a kernel of one of the names.
    """
    counts = series["kernel"].value_counts()
    if unknown := [name for name in names if name not in counts]:
        common = ", ".join(counts.index[:8])
        raise LungsynthError(
            f"rules.kernels: no series has the kernel {', '.join(unknown)}; the commonest are {common}"
        )
    return series[series["kernel"].isin(names) | series["kernel"].isna()]


def best_reconstruction(series: pd.DataFrame, prefer: str) -> pd.DataFrame:
    """One series of each study: an annotated one first, then by preferred kernel, thinness and number of instances.

    Two reconstructions of a study show the same body, so both would count the patient twice. In thick slices small
    nodules are averaged with the air around them. Soft kernels are the default because sharp ones overshoot at edges
    and multiply the noise, so that HU and texture depend on the kernel as much as on the lung. Unknown kernels come
    last. Ties go to the lesser UID.
    """
    rank = series["sharpness"].map({"soft": 0, "sharp": 1} if prefer == "soft" else {"sharp": 0, "soft": 1})
    order = series.assign(evidence_rank=_evidence_rank(series), kernel_rank=rank.fillna(2))
    by = ["evidence_rank", "kernel_rank", "thickness_mm", "instances", "series_uid"]
    order = order.sort_values(by, ascending=[True, True, True, False, True], na_position="last")
    return series.loc[order.drop_duplicates("study_uid").index.sort_values()]


def best_study(series: pd.DataFrame, salt: str) -> pd.DataFrame:
    """Of each cancer patient the annotated study nearest the diagnosis, of all others the one of the least salted hash.

    A diagnosis follows the scan that shows the cancer, so the nearest study is the latest annotated one. Studies with
    segmentations come before those with a slice number.
    """
    studies = series.assign(evidence_rank=_evidence_rank(series), date=series["study_date"].where(series["annotated"]))
    studies = studies.sort_values(["evidence_rank", "date"], ascending=[True, False], na_position="last")
    studies = studies.drop_duplicates("study_uid")
    studies["hash"] = [uniform_hash("study", salt, uid) for uid in studies["study_uid"]]
    studies = studies.sort_values(["evidence_rank", "date", "hash"], ascending=[True, False, True], na_position="last")
    return series[series["study_uid"].isin(studies.drop_duplicates("patient_key")["study_uid"])]


def first_patients(series: pd.DataFrame, count: int, labels: tuple[str, ...], *, salt: str) -> pd.DataFrame:
    """Of each of `labels` the `count` patients of the least hashes: a larger count keeps those of a smaller one."""
    patients = series.loc[series["label"].isin(labels), ["label", "patient_key"]].drop_duplicates()
    patients["hash"] = [uniform_hash("class", salt, key) for key in patients["patient_key"]]
    first = patients.sort_values("hash").groupby("label").head(count)["patient_key"]
    return series[series["patient_key"].isin(first) | ~series["label"].isin(labels)]


def _evidence_rank(series: pd.DataFrame) -> pd.Series:
    """0 where a lesion is segmented, 1 where its slices are known otherwise, 2 where nothing is annotated."""
    return 2 - series["annotated"].astype(int) * (1 + (series["evidence"] == "lesion_seg").astype(int))
