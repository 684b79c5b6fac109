"""Groups of test patients for whom a generator might do harm while it helps on average."""

from collections.abc import Iterator

import numpy as np
import pandas as pd

from lungsynth.cohort.cohort import Cohort
from lungsynth.evaluation.utility.predictions import Scores

AGE_EDGES = (0, 60, 65, 70, 200)  # years; NLST's participants were 55 to 74
AGE_BANDS = ("under 60", "60 to 64", "65 to 69", "70 and over")
LESION = "lesion"
LESION_EDGES = (0, 6, 8, 15, np.inf)
"""mm: where Lung-RADS v2022 (American College of Radiology) passes from category 2 to 3, 4A and 4B, for solid nodules
at a baseline screen. It means the mean of two diameters; ours is the longest, as NLST measured."""
LESION_BANDS = ("under 6 mm", "6 to under 8 mm", "8 to under 15 mm", "15 mm and over")


def patient_groups(cohort: Cohort, series: pd.DataFrame) -> pd.DataFrame:
    """One row a patient, by pseudonymous key: `maker` of the scanner, `sex`, bands of `age` and of the `lesion`'s size.

    A value is missing where it is not known; `lesion` also where a patient has none.

    Args:
        series: of the slice dataset; a patient's lesion is the largest one of all series.
    """
    first = cohort.images.drop_duplicates("patient_key").set_index("patient_key")
    age = pd.cut(first["age"].astype("Float64"), AGE_EDGES, right=False, labels=AGE_BANDS)
    largest = series.groupby("patient")["lesion_mm"].max().reindex(first.index)
    lesion = pd.cut(largest, LESION_EDGES, right=False, labels=LESION_BANDS)
    bands = {"age": age.astype("string"), LESION: lesion.astype("string")}
    return pd.DataFrame({"maker": first["manufacturer"], "sex": first["sex"], **bands})


def within(scores: Scores, keys: np.ndarray, groups: pd.DataFrame) -> Iterator[tuple[str, np.ndarray]]:
    """The name of each group, as `sex F`, and which of the N slices are of its patients.

    A group by lesion size also has all patients without a positive slice, since patients with a lesion are of one
    class, which has no AUROC. So these groups share their negative patients and differ in their positive ones.

    Args:
        scores: of one arm.
        keys: pseudonymous keys P in the order of its patient codes.
        groups: from `patient_groups`.
    """
    table = groups.reindex(keys)
    without_positive = np.bincount(scores.patients, scores.labels, len(keys)) == 0
    for column in table:
        for level in sorted(table[column].dropna().unique()):
            members = (table[column] == level).fillna(False).to_numpy(bool)
            yield f"{column} {level}", (members | without_positive if column == LESION else members)[scores.patients]


def part(scores: Scores, rows: np.ndarray) -> Scores:
    """The scores of some slices, bool N, with new patient codes."""
    patients = np.unique(scores.patients[rows], return_inverse=True)[1]
    return Scores(scores.scores[:, rows], scores.labels[rows], patients)
