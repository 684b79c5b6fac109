"""Matched controls: alike in every key, nobody used twice, the same each time."""

import numpy as np
import pandas as pd
import pytest
from pydantic import ValidationError

from lungsynth.cohort.controls import ControlConfig, match_controls
from lungsynth.cohort.rules import Selection
from lungsynth.errors import LungsynthError


def patients(cases: list[tuple], controls: list[tuple]) -> pd.DataFrame:
    """Patients as (age, sex, maker): the cases c0, c1 …, then the controls n0, n1 …"""
    names = [f"c{n}" for n in range(len(cases))] + [f"n{n}" for n in range(len(controls))]
    table = pd.DataFrame([*cases, *controls], columns=["age", "sex", "maker"])
    table = table.astype({"age": "Int64", "sex": "string", "maker": "string"})
    labels = ["cancer"] * len(cases) + ["non-cancer"] * len(controls)
    return table.assign(patient_key=names, patient=names, collection="nlst", label=labels)


def random_patients(cases: int, controls: int) -> pd.DataFrame:
    rng = np.random.default_rng(0)

    def some(n: int) -> list[tuple]:
        return [(int(rng.integers(55, 75)), rng.choice(["M", "F"]), rng.choice(["GE", "Siemens"])) for _ in range(n)]

    return patients(some(cases), some(controls))


def matched(table: pd.DataFrame, salt: str = "salt", **settings: object) -> set[tuple[str, str]]:
    pairs = match_controls(table, ControlConfig(**settings), salt)
    return set(pairs.itertuples(index=False, name=None))


def test_the_nearest_of_the_same_sex_and_maker_is_taken():
    controls = [(63, "M", "GE"), (61, "M", "GE"), (60, "F", "GE"), (60, "M", "Siemens")]
    assert matched(patients([(60, "M", "GE")], controls)) == {("c0", "n1")}


def test_nobody_beyond_the_caliper_is_taken():
    table = patients([(60, "M", "GE")], [(63, "M", "GE"), (57, "M", "GE")])
    assert matched(table) == set()
    assert len(matched(table, age_caliper_years=3)) == 1


def test_a_large_pool_serves_every_case_with_the_full_ratio_and_nobody_twice():
    table = random_patients(40, 2000)
    pairs = match_controls(table, ControlConfig(ratio=3), "salt")
    assert pairs["control"].is_unique
    assert set(pairs["case"].value_counts()) == {3}
    people = table.set_index("patient_key")
    case, control = people.loc[pairs["case"]].reset_index(), people.loc[pairs["control"]].reset_index()
    assert (case[["sex", "maker"]] == control[["sex", "maker"]]).all(axis=None)
    assert ((case["age"] - control["age"]).abs() <= 2).all()
    assert set(control["label"]) == {"non-cancer"}


def test_the_hardest_to_match_chooses_first_and_first_controls_come_before_second_ones():
    table = patients([(60, "M", "GE"), (64, "M", "GE")], [(62, "M", "GE"), (59, "M", "GE")])
    assert matched(table, ratio=2) == {("c1", "n0"), ("c0", "n1")}


def test_the_order_of_rows_does_not_matter_and_the_salt_does():
    table = random_patients(30, 300)
    shuffled = table.sample(frac=1, random_state=1)
    assert matched(table) == matched(shuffled)
    assert matched(table) != matched(table, salt="pepper")


def test_keys_can_be_left_out():
    table = patients([(60, "M", pd.NA)], [(90, "M", pd.NA), (60, "F", pd.NA)])
    assert matched(table, match=["sex"]) == {("c0", "n0")}
    assert matched(table, match=["age"]) == {("c0", "n1")}


def test_patients_of_whom_a_key_is_not_known_are_matched_to_nobody():
    table = patients([(60, "M", "GE"), (pd.NA, "M", "GE")], [(60, pd.NA, "GE"), (60, "M", "GE"), (60, "M", "GE")])
    assert {case for case, _ in matched(table, ratio=2)} == {"c0"}


@pytest.mark.parametrize("key", ["age", "sex", "maker"])
def test_a_key_without_any_data_is_an_error_that_names_it(key):
    table = random_patients(3, 9)
    table[key] = pd.Series(pd.NA, index=table.index, dtype=table[key].dtype)
    with pytest.raises(LungsynthError, match=f"matched by {key}, but it is known of no patient .*leave {key} out"):
        match_controls(table, ControlConfig(), "salt")


def test_unmatched_cases_leave_the_cohort_and_the_funnel_counts_them():
    cases = [(60, "M", "GE"), (62, "M", "GE"), (60, "F", "GE")]
    selection = Selection(patients(cases, [(60, "M", "GE"), (62, "M", "GE"), (61, "M", "GE"), (50, "M", "GE")]))
    selection.match(ControlConfig(ratio=2), "salt")
    assert selection.funnel.to_numpy().tolist() == [
        ["cancer patients with a control alike in age (±2 years), sex, maker", 6, 6],
        ["2 matched control(s) a cancer patient (1 of 2 have fewer)", 5, 5],
    ]
    assert set(selection.series["patient"]) == {"c0", "c1", "n0", "n1", "n2"}


def test_no_match_at_all_is_an_error():
    selection = Selection(patients([(60, "M", "GE")], [(70, "M", "GE")]))
    with pytest.raises(LungsynthError, match=r"no cancer patient has a control alike in age \(±2 years\), sex, maker"):
        selection.match(ControlConfig(), "salt")


@pytest.mark.parametrize("wrong", [{"match": []}, {"match": ["age", "age"]}, {"match": ["height"]}, {"ratio": 0}])
def test_wrong_settings_are_refused(wrong):
    with pytest.raises(ValidationError, match=next(iter(wrong))):
        ControlConfig(**wrong)
