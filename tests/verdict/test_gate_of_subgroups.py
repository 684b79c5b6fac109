"""Subgroups of test patients: a harm to one blocks, and one too small to judge is said."""

import numpy as np
import pandas as pd
import pytest
from planted_scores import SYNTHETIC, decided, plant

from lungsynth.dataset.vocabulary import CLASSES
from lungsynth.evaluation.utility.predictions import Predictions


@pytest.mark.parametrize(("loss", "outcome"), [(2.2, "blocked"), (0.0, "promote")])
def test_what_harms_a_subgroup_is_blocked(loss, outcome):
    scores = plant({"real": 1.0, "real+classical": 1.2, SYNTHETIC: 2.8}, 300)
    keys = scores.patients("test")
    sex = pd.Series(np.where(np.char.str_len(keys) < 3, "F", "M"), keys)  # p0 to p9, and all others
    sex[np.isin(keys, [f"p{code}" for code in range(10, 40)])] = "F"
    table = scores.table.copy()
    women = table["patient"].map(sex).eq("F") & table["arm"].eq(SYNTHETIC)
    table.loc[women, "score"] -= loss * table.loc[women, "label"]
    groups = pd.DataFrame({"maker": pd.Series(pd.NA, keys, dtype="string"), "sex": sex})
    found = decided(Predictions(table, CLASSES), groups=groups)[1]
    numbers = {metric.name: metric for metric in found.numbers}
    assert numbers["gain/baseline"].low > 0
    assert numbers["gain/baseline/sex M"].value > 0
    assert (found.outcome, "patients with sex F" in found.reason) == (outcome, outcome == "blocked")


def test_groups_too_small_to_be_judged_are_among_the_numbers():
    scores = plant({"real": 1.0, SYNTHETIC: 2.0}, 60)
    keys = scores.patients("test")  # of whom every second one has cancer
    sex = pd.Series(np.where(np.isin(keys, [f"p{code}" for code in range(7)]), "F", "M"), keys)
    found = decided(scores, groups=sex.to_frame("sex"))[1]
    numbers = {metric.name: metric for metric in found.numbers}
    assert ("gain/baseline/sex M" in numbers, "gain/baseline/sex F" in numbers) == (True, False)
    assert [metric.name for metric in found.unjudged] == ["unjudged/sex F"]
    small = numbers["unjudged/sex F"]
    assert small.value == 3
    assert "4 with non-cancer slices and 3 with cancer slices; 10 of each are" in small.computed_with


def test_a_generator_that_harms_those_with_small_lesions_is_blocked():
    scores = plant({"real": 1.0, "real+classical": 1.2, SYNTHETIC: 2.8}, 300)
    ill = scores.table.loc[scores.table["label"] == 1, "patient"].unique()
    size = pd.Series("15 mm and over", ill, dtype="string")
    size[ill[:30]] = "under 6 mm"
    table = scores.table.copy()
    harmed = table["patient"].isin(ill[:30]) & table["arm"].eq(SYNTHETIC)
    table.loc[harmed, "score"] -= 2.2
    found = decided(Predictions(table, CLASSES), groups=size.to_frame("lesion"))[1]
    numbers = {metric.name: metric for metric in found.numbers}
    assert numbers["gain/baseline/lesion 15 mm and over"].low > 0
    assert (found.outcome, found.rule) == ("blocked", "subgroup")
    assert "patients with lesion under 6 mm" in found.reason
