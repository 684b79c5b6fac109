"""Groups of patients: who is in which, and how a lesion's size becomes a group that has both classes."""

import numpy as np
import pandas as pd
import pytest

from lungsynth.cohort.cohort import COLUMNS, Cohort, funnel, no_slice_labels
from lungsynth.evaluation.utility.predictions import Scores
from lungsynth.verdict.subgroups import patient_groups, within


def cohort(ages: dict[str, int | None]) -> Cohort:
    """One CT series for each patient key and age."""
    rows = [{"series_uid": f"1.{key}", "patient_key": key, "role": "image", "age": age} for key, age in ages.items()]
    table = pd.DataFrame(rows).reindex(columns=list(COLUMNS)).assign(collection="nlst", manufacturer="GE", sex="F")
    table["patient"] = table["patient_key"]
    return Cohort(table, no_slice_labels(), funnel(("all", table)))


def sizes(**lesion_mm: list[float]) -> pd.DataFrame:
    """What groups need of a dataset's series: one row a size, of the patient that it is named for."""
    rows = [(patient, size) for patient, found in lesion_mm.items() for size in found]
    return pd.DataFrame(rows, columns=["patient", "lesion_mm"])


@pytest.mark.parametrize(
    ("lesion_mm", "band"),
    [
        ([5.9], "under 6 mm"),
        ([6.0], "6 to under 8 mm"),
        ([8.0], "8 to under 15 mm"),
        ([14.9, np.nan], "8 to under 15 mm"),
        ([7.0, 15.0], "15 mm and over"),  # the largest of the patient's series
        ([80.0], "15 mm and over"),
        ([np.nan], None),
        ([], None),
    ],
)
def test_bands_of_lesion_size_are_those_of_lung_rads(lesion_mm, band):
    groups = patient_groups(cohort({"a": 64}), sizes(a=lesion_mm))
    assert groups["lesion"].dropna().tolist() == ([band] if band else [])
    assert groups.loc["a", "age"] == "60 to 64"


def test_a_group_by_lesion_size_has_the_patients_without_a_positive_slice():
    keys = np.array(["large", "none", "small", "unknown"])
    patients, labels = np.repeat(np.arange(4), 2), np.array([1, 0, 0, 0, 1, 1, 1, 1])
    scores = Scores(np.zeros((1, 8)), labels, patients)
    ages = dict.fromkeys(keys, 66) | {"small": None}
    groups = patient_groups(cohort(ages), sizes(large=[20.0], small=[4.0], unknown=[np.nan], none=[np.nan]))

    members = {name: set(keys[patients[rows]]) for name, rows in within(scores, keys, groups)}
    assert members == {
        "maker GE": set(keys),
        "sex F": set(keys),
        "age 65 to 69": {"large", "none", "unknown"},
        "lesion 15 mm and over": {"large", "none"},
        "lesion under 6 mm": {"small", "none"},
    }
