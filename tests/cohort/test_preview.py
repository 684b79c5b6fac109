"""What the preview says, and that it says nothing that names a patient."""

import io
from pathlib import Path

import pytest
from rich.console import Console

from lungsynth.cohort.cohort import Cohort, funnel, no_slice_labels
from lungsynth.cohort.idc import IdcCohortConfig, select_idc
from lungsynth.cohort.phantom import PhantomCohortConfig, select_phantoms
from lungsynth.cohort.preview import preview
from lungsynth.cohort.splits import SplitConfig

SMOKE = Path(__file__).parents[2] / "configs" / "cohorts" / "nlst_smoke.sql"


def shown(cohort: Cohort) -> str:
    console = Console(file=io.StringIO(), width=400)
    console.print(preview(cohort))
    return console.file.getvalue()


def cells(text: str, first: str, second: str = "") -> list[str]:
    """The cells of the only row that begins with these."""
    rows = [[cell.strip() for cell in line.strip("│").split("│")] for line in text.splitlines() if line.startswith("│")]
    [row] = [row for row in rows if row[0] == first and row[1].startswith(second)]
    return row


@pytest.fixture(scope="module")
def nlst() -> Cohort:
    config = IdcCohortConfig(
        labels={"lesion_seg": "nlstseg"},
        query=SMOKE,
        rules={"patients_per_class": 10},
        lung_seg="totalsegmentator_ct_segmentations",
    )
    return select_idc(config, SplitConfig(method="ranked"))


def test_counts_of_patients_by_class_side_and_maker(nlst):
    text = shown(nlst)
    assert cells(text, "cancer", "all")[2:] == ["6", "2", "2", "10", "?", "?"]
    assert cells(text, "non-cancer", "all")[2:] == ["6", "2", "2", "10", "?", "?"]
    rows = [line.split("│") for line in text.splitlines() if "│ GE " in line or "│ Siemens " in line]
    expected = nlst.images["manufacturer"].str.startswith(("GE", "SIEMENS")).sum()
    assert sum(int(row[6]) for row in rows) == expected > 10


def test_funnel_has_what_each_rule_removed(nlst):
    series, removed, patients, gone = cells(shown(nlst), "at most 10 non-cancer and cancer patients each")[1:]
    assert (series, patients) == ("20", "20")
    assert (removed, gone) == ("40", "40")


def test_what_would_be_fetched_is_counted_by_role(nlst):
    text = shown(nlst)
    gigabytes = {role: float(cells(text, role)[3]) for role in ("image", "lesion", "lungs")}
    assert gigabytes["image"] == pytest.approx(nlst.images["bytes"].sum() / 1e9, abs=0.005)
    assert gigabytes["lungs"] > gigabytes["image"] > 100 * gigabytes["lesion"]
    assert float(cells(text, "all", str(len(nlst.series)))[3]) == pytest.approx(sum(gigabytes.values()), abs=0.02)


def test_licences_come_with_citations(nlst):
    text = shown(nlst)
    for words in ("National Lung Screening Trial Research Team. (2013).", "NLSTSeg: Expert", "TotalSegmentator-CT-Seg"):
        assert words in text
    assert "[Data set]" in text  # which is no markup
    assert "CC BY 4.0" in text
    assert "<i>" not in text


def test_unknown_dois_are_shown_as_links(nlst):
    assert "https://doi.org/10.1/x" in shown(Cohort(nlst.series.assign(doi="10.1/x"), nlst.slice_labels, nlst.funnel))


def test_nobody_is_named(nlst):
    text = shown(nlst)
    for column in ("patient", "patient_key", "study_uid", "series_uid", "url"):
        assert not [value for value in nlst.series[column] if value in text]


def test_phantoms_have_ages_and_no_size_yet():
    cohort = select_phantoms(
        PhantomCohortConfig(patients=40, matrix=128, slices=(24, 28)), SplitConfig(method="ranked")
    )
    text = shown(cohort)
    age = cohort.images.loc[cohort.images["label"] == "cancer", "age"].median()
    assert cells(text, "cancer", "all")[6] == f"{age:.0f}"
    assert cells(text, "image")[3] == "not known"


def test_sources_that_know_little_are_shown_too(nlst):
    bare = nlst.images.assign(manufacturer=None, license=None, doi=None, bytes=None, label="ill", evidence="folder")
    cohort = Cohort(bare, no_slice_labels(), funnel(("files", bare)), classes=("well", "ill"))
    text = shown(cohort)
    assert cells(text, "well", "all")[5] == "0"
    assert cells(text, "ill", "all")[5] == "20"
