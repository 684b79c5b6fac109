"""Matched controls: for each cancer patient, cancer-free patients of the same age, sex and scanner maker.

Without matching, a classifier may tell cancer patients from controls by age, sex or the hospital's scanner (Rothman,
Modern Epidemiology, ch. 11).
"""

from typing import Literal

import numpy as np
import pandas as pd
from pydantic import Field, model_validator

from lungsynth.cohort.splits import uniform_hash
from lungsynth.config import Config
from lungsynth.dataset.vocabulary import CLASSES
from lungsynth.errors import LungsynthError

Key = Literal["age", "sex", "maker"]
_WHERE_FROM = {
    "age": "the packaged index has none for NLST, its clinical tables do",
    "sex": "the packaged index has none for NLST, its clinical tables do",
    "maker": "the images name no Manufacturer",
}


class ControlConfig(Config):
    """How controls are matched, without replacement: no control serves two cancer patients."""

    ratio: int = Field(
        1,
        ge=1,
        le=20,
        description="controls for each cancer patient; beyond 4 they add little power [chosen here: classes of equal "
        "size]",
    )
    match: tuple[Key, ...] = Field(
        ("age", "sex", "maker"), min_length=1, description="what a control shares with its patient"
    )
    age_caliper_years: int = Field(
        2, ge=0, le=20, description="years; greatest difference in age [chosen here: a tenth of NLST's range, 55 to 74]"
    )

    @model_validator(mode="after")
    def _keys_once(self) -> "ControlConfig":
        if len(set(self.match)) < len(self.match):
            raise ValueError(f"match names a key twice: {', '.join(self.match)}")
        return self

    @property
    def keys(self) -> str:
        """The keys in words, such as `age (±2 years), sex, maker`."""
        return ", ".join(f"age (±{self.age_caliper_years} years)" if key == "age" else key for key in self.match)


def match_controls(patients: pd.DataFrame, config: ControlConfig, salt: str) -> pd.DataFrame:
    """Matched pairs: the columns `case` and `control` hold values of `patient_key`.

    `patients` has one row a patient: patient_key, label, and the keys of `config.match`. The matching is greedy: in
    each of `config.ratio` rounds every cancer patient takes the free control nearest in age, those with the fewest
    candidates first. So nobody has a second control before all could have a first. On large pools this is as good as
    optimal matching (Austin, Stat. Med. 2014;33:1057). A salted hash breaks ties, so the result is always the same.
    Patients with an unknown key are not matched.

    Raises:
        LungsynthError: a key is known of no patient.
    """
    for key in config.match:
        if patients[key].isna().all():
            raise LungsynthError(
                f"controls are to be matched by {key}, but it is known of no patient ({_WHERE_FROM[key]}): "
                f"configure labels.clinical, or leave {key} out of rules.controls.match"
            )
    known = patients.dropna(subset=list(config.match))
    known = known.assign(hash=[uniform_hash("control", salt, key) for key in known["patient_key"]]).sort_values("hash")
    exact = [key for key in config.match if key != "age"]
    strata = [part for _, part in known.groupby(exact)] if exact else [known]
    pairs = [pair for part in strata for pair in _match_stratum(part, config)]
    return pd.DataFrame(pairs, columns=["case", "control"], dtype="string")


def _match_stratum(patients: pd.DataFrame, config: ControlConfig) -> list[tuple[str, str]]:
    """Pairs of (case, control) within patients who are alike in all keys but age."""
    is_case = (patients["label"] == CLASSES[-1]).to_numpy()
    names = patients["patient_key"].to_numpy()
    ages = patients["age"].to_numpy(float) if "age" in config.match else np.zeros(len(patients))
    case_ages, control_ages, controls = ages[is_case], ages[~is_case], names[~is_case]
    candidates = [(np.abs(control_ages - age) <= config.age_caliper_years).sum() for age in case_ages]
    order = np.argsort(candidates, kind="stable")
    free = np.ones(len(controls), bool)
    pairs = []
    for _ in range(config.ratio):
        for case in order:
            distance = np.where(free, np.abs(control_ages - case_ages[case]), np.inf)
            if len(distance) and distance[nearest := int(distance.argmin())] <= config.age_caliper_years:
                free[nearest] = False
                pairs.append((names[is_case][case], controls[nearest]))
    return pairs
