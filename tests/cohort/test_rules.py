"""Each rule by itself on a small table, and what the funnel says of them."""

import pandas as pd
import pytest
from pydantic import ValidationError

from lungsynth.cohort.descriptions import describe, maker
from lungsynth.cohort.rules import (
    RuleConfig,
    Selection,
    axial,
    best_reconstruction,
    best_study,
    choice_rules,
    first_patients,
    of_kernels,
    series_rules,
    thickness_within,
)
from lungsynth.errors import LungsynthError

STANDARD = "1,OPA,GE,LSPLUS,STANDARD,360,2.5,120,80,0.1,1.5"


def series(*rows: dict) -> pd.DataFrame:
    """One CT series a row: a patient of their own with a study of their own, unless the row says otherwise."""
    defaults = {
        "series_description": STANDARD,
        "manufacturer": "GE MEDICAL SYSTEMS",
        "collection": "nlst",
        "instances": 150,
        "label": "non-cancer",
        "evidence": "no_lesion_seg",
        "annotated": False,
        "study_date": "1999-01-02",
    }
    names = [{"patient": str(n), "study_uid": f"1.{n}", "series_uid": f"1.{n}.{n}"} for n in range(len(rows))]
    table = pd.DataFrame([defaults | name | row for name, row in zip(names, rows, strict=True)])
    table["patient_key"] = "P-" + table["patient"]
    texts = ["series_description", "manufacturer", "label", "study_date"]
    return describe(table.astype(dict.fromkeys(texts, "string")))


def described(*descriptions: str | None, manufacturer: str = "SIEMENS") -> pd.DataFrame:
    return series(*({"series_description": text, "manufacturer": manufacturer} for text in descriptions))


def kept(left: pd.DataFrame) -> list[str]:
    return left["patient"].tolist()


def test_nlst_descriptions_are_read():
    found = described(
        "2,OPA,SE,SEN16,B30f,300,2,120,45,30,na", "0,OPL,SE,SEN16,T20s,512,na,120,204,204,na", "5mm", None
    )
    assert found["image_type"].tolist() == ["OPA", "OPL", pd.NA, pd.NA]
    assert found["kernel"].tolist() == ["B30f", "T20s", pd.NA, pd.NA]
    assert found["thickness_mm"].tolist() == [2.0, pd.NA, pd.NA, pd.NA]
    assert found["sharpness"].tolist() == ["soft", pd.NA, pd.NA, pd.NA]


def test_what_stands_for_unknown_is_unknown():
    found = described("1,OPA,SE,SEN16,UNK,300,999,120,na,na,na", "1,OPA,SE,SEN16,unkn,300,0,120,na,na,na")
    assert found[["kernel", "thickness_mm", "sharpness"]].isna().all(axis=None)


@pytest.mark.parametrize(
    ("manufacturer", "soft", "sharp", "unknown"),
    [
        ("GE MEDICAL S]STEMS", "STANDARD SOFT", "LUNG BONE", "EXPERIMENTAL7"),
        ("Siemens", "B30f B31s B45f", "B50f B60s B80f", "B T20s"),
        ("Philips Medical Systems", "A B C", "D", "EC"),
        ("Canon Medical Systems", "FC01 FC10", "FC30 FC51 FC82", "FL01"),
    ],
)
def test_kernels_are_soft_or_sharp_by_maker(manufacturer, soft, sharp, unknown):
    for names, expected in ((soft, "soft"), (sharp, "sharp"), (unknown, "")):
        found = described(*(f"1,OPA,X,Y,{name},360,2,120,80,1,1" for name in names.split()), manufacturer=manufacturer)
        assert set(found["sharpness"].fillna("")) == {expected}


def test_kernels_of_other_makers_are_unknown():
    assert described(STANDARD, manufacturer="Imatron")["sharpness"].isna().all()


def test_makers_go_by_one_name():
    names = pd.Series(
        ["GE MEDICAL SYSTEMS", "GE", "SIEMENS", "Siemens Healthineers", "Gemini Ltd", None], dtype="string"
    )
    assert maker(names).tolist() == ["GE", "GE", "Siemens", "Siemens", "Gemini Ltd", pd.NA]


def test_axial_keeps_original_axial_images_and_what_cannot_be_judged():
    types = ("OPA", "OPL", "OSA", "DPA", "DSR")
    table = described(*(f"1,{name},SE,SEN16,B30f,300,2,120,45,30,na" for name in types), "free text, with, commas")
    assert kept(axial(table)) == ["0", "2", "5"]


def test_thickness_keeps_both_bounds_and_what_is_not_known():
    table = described(*(f"1,OPA,SE,SEN16,B30f,300,{mm},120,45,30,na" for mm in ("0.4", "0.5", "3.2", "5", "na")))
    assert kept(thickness_within(table, 0.5, 3.2)) == ["1", "2", "4"]


def test_kernel_names_that_nobody_has_are_an_error_that_names_the_commonest():
    table = described("1,OPA,SE,SEN16,B30f,300,2,120,45,30,na", "1,OPA,SE,SEN16,B50f,300,2,120,45,30,na", None)
    assert kept(of_kernels(table, ("B30f",))) == ["0", "2"]
    with pytest.raises(LungsynthError, match=r"no series has the kernel B30; the commonest are B30f, B50f"):
        of_kernels(table, ("B30", "B30f"))


def reconstructions(*kernels_mm: tuple[str, str], **more: object) -> pd.DataFrame:
    """Reconstructions of one Siemens study."""
    rows = [f"1,OPA,SE,SEN16,{kernel},300,{mm},120,45,30,na" for kernel, mm in kernels_mm]
    return series(*({"series_description": row, "manufacturer": "SIEMENS", "study_uid": "1.9"} | more for row in rows))


@pytest.mark.parametrize(
    ("prefer", "kernels_mm", "best"),
    [
        ("soft", [("B50f", "1"), ("B30f", "2"), ("B30f", "3")], "1"),  # kernel before thickness
        ("sharp", [("B50f", "2"), ("B30f", "1"), ("B50f", "3")], "0"),
        ("soft", [("B", "0.6"), ("B50f", "2")], "1"),  # an unknown kernel comes last
        ("soft", [("B", "2"), ("B", "1")], "1"),  # but is taken where there is no other
        ("soft", [("B30f", "na"), ("B30f", "3")], "1"),
    ],
)
def test_best_reconstruction(prefer, kernels_mm, best):
    assert kept(best_reconstruction(reconstructions(*kernels_mm), prefer)) == [best]


def test_ties_fall_to_more_instances_then_to_the_lesser_uid():
    table = reconstructions(("B30f", "2"), ("B30f", "2"), ("B30f", "2"))
    table["instances"] = [100, 120, 120]
    table["series_uid"] = ["1.1", "1.3", "1.2"]
    assert best_reconstruction(table, "soft")["series_uid"].tolist() == ["1.2"]


def test_the_segmented_series_is_taken_whatever_its_kernel():
    table = reconstructions(("B30f", "1"), ("B50f", "2"), ("B80f", "3"), label="cancer")
    table["annotated"] = [False, True, True]
    table["evidence"] = ["clinical", "clinical", "lesion_seg"]
    assert kept(best_reconstruction(table, "soft")) == ["2"]


def test_of_a_cancer_patient_the_segmented_study_comes_first_then_the_latest_with_known_slices():
    years = ["1999-01-02", "2000-01-02", "2001-01-02"]
    table = series(*({"patient": "7", "label": "cancer", "study_date": year} for year in years))
    table["evidence"], table["annotated"] = "clinical", [True, True, False]
    assert best_study(table, "salt")["study_date"].tolist() == ["2000-01-02"]
    table["evidence"] = ["lesion_seg", "clinical", "clinical"]
    assert best_study(table, "salt")["study_date"].tolist() == ["1999-01-02"]


def test_of_other_patients_one_study_is_drawn_and_stays_when_others_join():
    rows = [{"patient": str(n // 3), "study_uid": f"2.{n}", "study_date": f"{1999 + n % 3}-01-02"} for n in range(90)]
    chosen = best_study(series(*rows), "salt")
    assert chosen["patient"].is_unique
    assert chosen["study_date"].nunique() == 3
    fewer = best_study(series(*rows[:30]), "salt")
    assert set(fewer["study_uid"]) < set(chosen["study_uid"])
    assert set(best_study(series(*rows), "pepper")["study_uid"]) != set(chosen["study_uid"])


def test_all_series_of_the_chosen_study_stay():
    table = series({"patient": "1", "study_uid": "1.1"}, {"patient": "1", "study_uid": "1.1"}, {"patient": "1"})
    assert len(best_study(table, "a")) + len(best_study(table, "e")) == 3


def test_caps_hold_in_each_class_and_wider_ones_keep_the_patients_of_narrower_ones():
    table = series(*({"label": label} for label in ["cancer"] * 20 + ["non-cancer"] * 40))
    classes = ("cancer", "non-cancer")
    five = first_patients(table, 5, classes, salt="salt")
    assert five["label"].value_counts().to_dict() == {"cancer": 5, "non-cancer": 5}
    assert set(kept(five)) < set(kept(first_patients(table, 9, classes, salt="salt")))
    assert len(first_patients(table, 5, ("cancer",), salt="salt")) == 45


def test_funnel_tells_what_each_rule_left_and_what_it_could_not_judge():
    table = series({}, {"series_description": "1,OPL,GE,LS,STANDARD,1,na,1,1,1,1"}, {"series_description": "chest"})
    selection = Selection(table)
    selection.apply([*series_rules(RuleConfig()), *choice_rules(RuleConfig(patients_per_class=1), "salt")])
    assert selection.funnel.to_numpy().tolist() == [
        ["axial, original (not known of 1, which stay)", 2, 2],
        ["at least 20 instances", 2, 2],
        ["slices of 0.5 to 3.2 mm (not known of 1, which stay)", 2, 2],
        ["one reconstruction a study: annotated, then soft kernel, then thinnest", 2, 2],
        ["one study a patient: annotated and latest, else drawn", 2, 2],
        ["at most 1 non-cancer and cancer patients each", 1, 1],
    ]


def test_a_rule_that_leaves_nothing_is_an_error_with_the_funnel():
    selection = Selection(series({}, {}))
    with pytest.raises(
        LungsynthError, match=r"after the rule «at least 300 instances»: .*\(axial, original: 2 → at least"
    ):
        selection.apply(series_rules(RuleConfig(min_instances=300)))


@pytest.mark.parametrize("wrong", [{"thickness_mm": (3, 1)}, {"thickness_mm": (0, 1)}, {"kernels": ()}, {"thick": 1}])
def test_wrong_rules_are_refused(wrong):
    with pytest.raises(ValidationError, match=next(iter(wrong))):
        RuleConfig(**wrong)
