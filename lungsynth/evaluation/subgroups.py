"""Groups of test patients for whom a generator might do harm while it helps on average."""

from collections.abc import Iterator

import numpy as np
import pandas as pd

from lungsynth.cohort.cohort import Cohort
from lungsynth.evaluation.predictions import Scores

AGE_EDGES = (0, 60, 65, 70, 200)  # years; NLST's participants were 55 to 74
AGE_BANDS = ("under 60", "60 to 64", "65 to 69", "70 and over")


def patient_groups(cohort: Cohort) -> pd.DataFrame:
    """One row a patient, by pseudonymous key: `maker` of the scanner, `sex` and `age` band; missing where unknown."""
    first = cohort.images.drop_duplicates("patient_key").set_index("patient_key")
    age = pd.cut(first["age"].astype("Float64"), AGE_EDGES, right=False, labels=AGE_BANDS)
    return pd.DataFrame({"maker": first["manufacturer"], "sex": first["sex"], "age": age.astype("string")})


def within(scores: Scores, keys: np.ndarray, groups: pd.DataFrame) -> Iterator[tuple[str, np.ndarray]]:
    """The name of each group, as in `sex F`, and which of the N slices are of its patients.

    Args:
        scores: of one arm.
        keys: pseudonymous keys P in the order of its patient codes.
        groups: from `patient_groups`.
    """
    table = groups.reindex(keys)
    for column in table:
        for level in sorted(table[column].dropna().unique()):
            yield f"{column} {level}", (table[column] == level).fillna(False).to_numpy(bool)[scores.patients]


def part(scores: Scores, rows: np.ndarray) -> Scores:
    """The scores of some slices, bool N, with new patient codes."""
    patients = np.unique(scores.patients[rows], return_inverse=True)[1]
    return Scores(scores.scores[:, rows], scores.labels[rows], patients)
