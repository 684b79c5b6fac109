import re

import pandas as pd
import pytest
from pydantic import ValidationError

from lungsynth.cohort.splits import SplitConfig, assign_splits, patient_key
from lungsynth.errors import LungsynthError

RANKED = SplitConfig(method="ranked")


def patients(cancer: int, others: int, collection: str = "nlst") -> pd.DataFrame:
    labels = ["cancer"] * cancer + ["non-cancer"] * others
    names = [f"{n:06d}" for n in range(len(labels))]
    return pd.DataFrame({"collection": collection, "patient": names, "label": labels})


def counts(sides: pd.Series) -> list[int]:
    return [int((sides == name).sum()) for name in ("train", "val", "test")]


def test_threshold_keeps_to_the_fractions_in_each_class():
    table = patients(3000, 3000)
    sides = assign_splits(table, SplitConfig(train=0.7, val=0.1, test=0.2))
    for _, of_class in sides.groupby(table["label"]):
        assert counts(of_class) == pytest.approx([2100, 300, 600], abs=80)  # more than three standard deviations


def numbered(label: str, start: int, stop: int) -> pd.DataFrame:
    names = [f"{n:06d}" for n in range(start, stop)]
    return pd.DataFrame({"collection": "nlst", "patient": names, "label": label})


def sides_of(table: pd.DataFrame, names: pd.Series) -> list[str]:
    return table.assign(side=assign_splits(table, SplitConfig())).set_index("patient")["side"].loc[names].tolist()


@pytest.mark.parametrize(("cancer", "others"), [(1, 0), (0, 1), (7, 0), (0, 500), (300, 20), (500, 5000)])
def test_patients_who_join_move_nobody(cancer, others):
    table = pd.concat([numbered("cancer", 0, 40), numbered("non-cancer", 40, 80)], ignore_index=True)
    joined = [numbered("cancer", 1000, 1000 + cancer), numbered("non-cancer", 90_000, 90_000 + others)]
    grown = pd.concat([joined[0], table, joined[1]], ignore_index=True)
    assert sides_of(grown, table["patient"]) == sides_of(table, table["patient"])


def test_a_revised_label_and_patients_who_leave_move_nobody():
    table = pd.concat([numbered("cancer", 0, 60), numbered("non-cancer", 60, 120)], ignore_index=True)
    before = sides_of(table, table["patient"])
    revised = table.assign(label=table["label"].where(table.index % 3 > 0, "cancer"))
    assert sides_of(revised, table["patient"]) == before
    assert sides_of(table[::2], table["patient"][::2]) == before[::2]


def test_sides_are_those_of_earlier_releases():
    sides = assign_splits(patients(25, 25), SplitConfig())
    assert "".join(name[:2] for name in sides[:10]) == "tetrtrtrtetrtrtrvatr"
    assert patient_key("nlst", "100012", "lungsynth") == "P-6519dc7c0fc0"


def test_salt_and_collection_draw_anew():
    sides = {
        tuple(assign_splits(patients(50, 50, collection), SplitConfig(salt=salt)))
        for salt in ("a", "b")
        for collection in ("nlst", "lidc_idri")
    }
    assert len(sides) == 4


@pytest.mark.parametrize("method", ["threshold", "ranked"])
def test_rows_of_one_patient_stay_together_and_in_place(method):
    table = patients(30, 30)
    shuffled = pd.concat([table, table]).sample(frac=1, random_state=0)
    config = SplitConfig(method=method)
    sides = assign_splits(shuffled, config)
    assert sides.index.equals(shuffled.index)
    expected = table.assign(side=assign_splits(table, config)).set_index("patient")["side"]
    assert sides.tolist() == expected.loc[shuffled["patient"]].tolist()


@pytest.mark.parametrize(
    ("cancer", "others", "expected"),
    [
        (4, 0, [2, 1, 1]),
        (3, 0, [1, 1, 1]),
        (5, 5, [6, 2, 2]),
        (10, 20, [18, 6, 6]),
        (2, 1, [1, 1, 1]),
        (2, 2, [2, 1, 1]),
    ],
)
def test_ranked_deals_exact_counts(cancer, others, expected):
    assert counts(assign_splits(patients(cancer, others), RANKED)) == expected


def test_ranked_gives_every_split_both_classes_where_it_can():
    table = patients(3, 3)
    assert pd.crosstab(assign_splits(table, RANKED), table["label"]).to_numpy().min() == 1


def test_too_few_patients_is_an_error_that_counts_them():
    with pytest.raises(LungsynthError, match=r"has 2 patient\(s\), fewer than its 3 splits: select more patients"):
        assign_splits(patients(1, 1), RANKED)


def test_a_split_without_patients_is_an_error_that_names_it():
    with pytest.raises(LungsynthError, match=r"of 10 cancer patients none fell to val: .*method: ranked"):
        assign_splits(patients(10, 10), SplitConfig(train=0.98, val=0.001, test=0.019, salt="a"))


def test_a_side_without_patients_of_one_label_is_an_error_that_names_both():
    with pytest.raises(LungsynthError, match=r"of 3 cancer patients none fell to val"):
        assign_splits(patients(3, 3000), SplitConfig())


def test_a_patient_with_two_labels_is_an_error():
    table = pd.concat([patients(5, 5), patients(6, 4)])
    with pytest.raises(LungsynthError, match="two labels"):
        assign_splits(table, RANKED)


def test_fractions_must_sum_to_one():
    with pytest.raises(ValidationError, match=r"must sum to 1, they sum to 1\.1"):
        SplitConfig(train=0.7, val=0.2, test=0.2)


def test_patient_keys_tell_patients_apart_and_nothing_else():
    keys = {patient_key(collection, "100012", salt) for collection in ("nlst", "other") for salt in ("a", "b")}
    assert len(keys) == 4
    assert all(re.fullmatch("P-[0-9a-f]{12}", key) for key in keys)
