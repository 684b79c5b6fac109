"""What labels a series, from each kind of evidence. All participants and series are invented."""

from collections.abc import Iterator
from pathlib import Path

import pandas as pd
import pytest
from invented_nlst import cancer, nodule, person
from pydantic import ValidationError

from lungsynth.cohort.clinical import ClinicalTables
from lungsynth.cohort.cohort import funnel
from lungsynth.cohort.labels import LabelConfig, Labelled, find_lesion_segs, label_series, read_slice_labels
from lungsynth.cohort.sources import SERIES_COLUMNS, IndexSource
from lungsynth.errors import LungsynthError

HEADER = "collection_id,PatientID,SeriesInstanceUID,SOPInstanceUID,InstanceNumber,label\n"


def write_csv(folder: Path, *rows: str, header: str = HEADER) -> Path:
    path = folder / "slices.csv"
    path.write_text(header + "".join(f"{row}\n" for row in rows))
    return path


def scan(uid: str, patient: str, instances: int = 120, year: int = 0, number: int = 2, **values: object) -> dict:
    """A row of `SERIES_COLUMNS`: a CT series of one NLST participant's screen."""
    row = dict.fromkeys(SERIES_COLUMNS) | {"collection": "nlst", "patient": patient, "study_uid": f"1.{patient}.{year}"}
    row |= {"series_uid": uid, "study_date": f"{1999 + year}-01-02", "series_number": str(number), "modality": "CT"}
    return row | {"instances": instances, "bytes": instances, "url": "s3://bucket/a/"} | values


def seg(uid: str, patient: str, year: int = 0, number: int = 2) -> dict:
    """A segmentation that NLSTSeg might have published for a series of that number."""
    described = f"NLSTSeg Segmentation of Series: {number}"
    return scan(uid, patient, 1, year, 200, modality="SEG", analysis_result="nlstseg", series_description=described)


class Trial:
    """Invented clinical tables in a folder, beside the series that `label` takes."""

    def __init__(self, folder: Path, source: IndexSource) -> None:
        self.folder, self._source = folder, source
        self.tables("nlst_prsn", person("1", "0"))
        self.tables("nlst_canc", cancer("99", "5"))
        self.tables("nlst_ctab", nodule("99", "1"))

    def tables(self, name: str, *rows: dict) -> None:
        pd.DataFrame(rows, dtype="string").to_parquet(self.folder / f"{name}.parquet")

    def label(self, *series: dict, **config: object) -> Labelled:
        table = pd.DataFrame(series, columns=list(SERIES_COLUMNS)).astype(SERIES_COLUMNS)
        return label_series(table, LabelConfig(**config), self._source, min_instances=20)

    def numbered(self, *series: dict, window_days: int = 365) -> dict[str, int]:
        """The slices that the clinical tables label, by series."""
        labelled = self.label(*series, clinical={"window_days": window_days})
        assert set(labelled.slices["label"]) <= {"cancer"}
        assert set(labelled.slices["evidence"]) <= {"clinical"}
        cases = labelled.images[labelled.images["label"] == "cancer"]
        assert set(cases["series_uid"]) == set(labelled.slices["series_uid"])
        return dict(zip(labelled.slices["series_uid"], labelled.slices["instance_number"], strict=True))


@pytest.fixture
def trial(tmp_path: Path) -> Iterator[Trial]:
    with IndexSource(ClinicalTables(folder=tmp_path)) as source:
        yield Trial(tmp_path, source)


@pytest.fixture
def case(trial: Trial) -> Trial:
    """Participant 7: a cancer of the right upper lobe on day 100, after the screen of day 10; nodule on slice 40."""
    trial.tables("nlst_prsn", person("7", "1", "100", locrup="1"), person("1", "0"))
    trial.tables("nlst_canc", cancer("7", "100", lc_topog="C341"))
    trial.tables("nlst_ctab", nodule("7", "40"), nodule("7", ".N", ".N", sct_ab_desc="59"))
    return trial


def labels(labelled: Labelled) -> dict[str, tuple[str, str]]:
    rows = labelled.images[["series_uid", "label", "evidence"]].itertuples(index=False)
    return {uid: (label, evidence) for uid, label, evidence in rows}


def left(labelled: Labelled) -> list[int]:
    return [len(table) for _, table in labelled.steps]


# Lesion segmentations


def test_segmented_patients_keep_only_their_segmented_series(trial):
    labelled = trial.label(
        scan("1.1", "7", number=2), scan("1.2", "7", number=3), scan("1.3", "7", year=1), scan("1.4", "8"),
        seg("1.9", "7", number=3), lesion_seg="nlstseg",
    )  # fmt: skip
    assert labels(labelled) == {"1.2": ("cancer", "lesion_seg"), "1.4": ("non-cancer", "no_lesion_seg")}
    assert labelled.images["annotated"].tolist() == [True, False]
    assert labelled.lesions[["series_uid", "source_series_uid"]].to_numpy().tolist() == [["1.9", "1.2"]]
    assert left(labelled) == [4, 4, 2]
    assert labelled.slices.empty
    assert funnel(*labelled.steps)["patients"].tolist() == [2, 2, 2]


def test_a_segmentation_that_names_no_series_may_belong_to_each_scan_of_its_study():
    table = pd.DataFrame([scan("1.1", "7"), scan("1.2", "7", number=3), scan("1.3", "7", 2), seg("1.9", "7", number=8)])
    pairs = find_lesion_segs(table.astype(SERIES_COLUMNS), ("nlstseg",), min_instances=20)
    assert pairs["source_series_uid"].tolist() == ["1.1", "1.2"]


def test_an_unknown_segmentation_is_an_error(trial):
    with pytest.raises(LungsynthError, match=r"gives no segmentation of nlst_seg: .*analysis_result_id"):
        trial.label(scan("1.1", "7"), seg("1.9", "7"), lesion_seg=["nlstseg", "nlst_seg"])


# Clinical tables


def test_the_nodule_in_the_cancers_lobe_names_the_slice(case):
    assert case.numbered(scan("1.1", "7"), scan("1.2", "1")) == {"1.1": 40}


def test_participants_free_of_cancer_are_controls_by_evidence(case):
    labelled = case.label(scan("1.1", "7"), scan("1.2", "1", sex="M", age=58), scan("1.3", "55"), clinical={})
    assert labels(labelled) == {"1.1": ("cancer", "clinical"), "1.2": ("non-cancer", "clinical")}
    assert left(labelled) == [3, 2, 2]
    people = labelled.images.set_index("series_uid")[["sex", "age"]]
    assert people.loc["1.1"].tolist() == ["F", 61]
    assert people.loc["1.2"].tolist() == ["M", 58]


@pytest.mark.parametrize(
    ("row", "label"),
    [
        (person("5", "0"), "non-cancer"),
        (person("5", "0", ".M"), None),
        (person("5", "0", "300"), None),
        (person("5", ".M"), None),
        (person("5", "4", "2500"), "cancer"),
        (person("5", ".M", "300"), "cancer"),
    ],
)
def test_nobody_is_free_of_cancer_for_want_of_knowledge(trial, row, label):
    trial.tables("nlst_prsn", row, person("1", "0"))
    labelled = trial.label(scan("1.1", "5"), scan("1.2", "1"), clinical={})
    assert left(labelled) == {"non-cancer": [2, 2, 2], "cancer": [2, 2, 1], None: [2, 1, 1]}[label]


def test_a_row_among_the_cancers_outweighs_a_participant_row_without_one(trial):
    trial.tables("nlst_canc", cancer("1", "300"))
    assert left(trial.label(scan("1.1", "1"), clinical={})) == [1, 0, 0]


@pytest.mark.parametrize(
    ("day", "window", "found"),
    [
        ("10", 365, True),
        ("375", 365, True),
        ("376", 365, False),
        ("9", 365, False),
        (".M", 365, False),
        ("50", 30, False),
    ],
)
def test_a_cancer_counts_where_it_was_diagnosed_soon_after_the_screen(case, day, window, found):
    case.tables("nlst_canc", cancer("7", day, lc_topog="C341"))
    slices = case.numbered(scan("1.1", "7"), scan("1.2", "1"), window_days=window)
    assert slices == ({"1.1": 40} if found else {})


def test_each_screen_is_judged_by_its_own_nodules(case):
    case.tables("nlst_prsn", person("7", "1", "380", locrup="1"), person("1", "0"))
    case.tables("nlst_canc", cancer("7", "380"))
    case.tables("nlst_ctab", nodule("7", "40"), nodule("7", "44", study_yr="1"))
    assert case.numbered(scan("1.1", "7"), scan("1.2", "7", year=1), scan("1.3", "1")) == {"1.2": 44}


@pytest.mark.parametrize(
    ("nodules", "found"),
    [
        ([nodule("7", "40"), nodule("7", "80", "6")], {"1.1": 40}),  # another lobe is no rival
        ([nodule("7", "40"), nodule("7", "80")], {}),  # two in the lobe
        ([nodule("7", "40"), nodule("7", ".M")], {}),  # two in the lobe, one on an unknown slice
        ([nodule("7", "40"), nodule("7", "40")], {"1.1": 40}),  # two on one slice
        ([nodule("7", "40", "6")], {}),  # none in the lobe
        ([nodule("7", "40", "8")], {"1.1": 40}),  # none in the lobe, one who knows where
        ([nodule("7", "40", "8"), nodule("7", "60")], {"1.1": 60}),
        ([nodule("7", "999")], {}),  # the code for missing
        ([nodule("7", "40", sct_ab_desc="52")], {}),  # no nodule
    ],
)
def test_only_an_unambiguous_nodule_names_a_slice(case, nodules, found):
    case.tables("nlst_ctab", *nodules)
    assert case.numbered(scan("1.1", "7", 999), scan("1.2", "1")) == found


@pytest.mark.parametrize(("diameters", "largest"), [(["12"], 12), (["9", "14"], 14), ([".M"], None), (["999", "8"], 8)])
def test_a_named_slice_has_the_diameter_of_its_largest_nodule(case, diameters, largest):
    case.tables("nlst_ctab", *(nodule("7", "40", sct_long_dia=diameter) for diameter in diameters))
    slices = case.label(scan("1.1", "7"), scan("1.2", "1"), clinical={}).slices
    assert slices["lesion_mm"].dropna().tolist() == ([largest] if largest else [])


@pytest.mark.parametrize(
    ("cancers", "lobes", "found"),
    [
        ([cancer("7", "100", lc_topog="C343")], {}, {"1.1": 80}),  # by topography where the participant row says none
        ([cancer("7", "100", lc_topog="C34.3")], {"locrup": "1"}, {"1.1": 40}),
        ([cancer("7", "100", lc_topog="C349")], {}, {}),  # lobe unknown, and two nodules
        ([cancer("7", "100", "2", "C343")], {"locrup": "1"}, {"1.1": 80}),  # that lobe is the first cancer's
        ([cancer("7", "100"), cancer("7", "120", "2", "C343")], {"locrup": "1"}, {}),  # both lobes have a cancer
        ([cancer("7", "100"), cancer("7", "120", "2", "C343")], {}, {}),  # the first may lie in any lobe
    ],
)
def test_the_cancers_lobe_decides_between_nodules(case, cancers, lobes, found):
    case.tables("nlst_prsn", person("7", "1", "100", **lobes), person("1", "0"))
    case.tables("nlst_canc", *cancers)
    case.tables("nlst_ctab", nodule("7", "40", "1"), nodule("7", "80", "6"))
    assert case.numbered(scan("1.1", "7"), scan("1.2", "1")) == found


@pytest.mark.parametrize(
    ("instances", "found"),
    [
        ((120, 120), {"1.0": 40, "1.1": 40}),  # two kernels of one spacing count alike
        ((120, 60), {}),  # 40 may count in either
        ((120, 39), {"1.0": 40}),  # only one reaches 40
        ((39, 30), {}),
        ((120, 1), {"1.0": 40}),  # a localizer
    ],
)
def test_a_slice_number_must_fit_exactly_one_length_of_scan(case, instances, found):
    scans = [scan(f"1.{number}", "7", count, number=number) for number, count in enumerate(instances)]
    assert case.numbered(*scans, scan("1.9", "1")) == found


def test_short_numbers_do_not_mean_localizers(case):
    case.tables("nlst_ctab", nodule("7", "2"))
    assert case.numbered(scan("1.1", "7"), scan("1.2", "7", 2), scan("1.3", "1")) == {"1.1": 2}


def test_clinical_tables_of_other_people_are_an_error(trial):
    with pytest.raises(LungsynthError, match="know none of the selected patients"):
        trial.label(scan("1.1", "1", collection="lidc_idri"), clinical={})


def test_missing_clinical_columns_are_named(trial):
    trial.tables("nlst_ctab", {"dicom_patient_id": "1", "study_yr": "0"})
    with pytest.raises(
        LungsynthError, match=r"nlst_ctab .* lacks the column\(s\) sct_ab_desc, sct_epi_loc, sct_slice_num, sct_long"
    ):
        trial.label(scan("1.1", "1"), clinical={})


# Tables of slice labels


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (["c,p,1.2,1.2.1,1,Cancer"], r"has the label 'Cancer': it must be non-cancer or cancer"),
        (["c,p,1.2,1.2.1,1,"], r"has 1 row\(s\) with an empty cell"),
        (["c,p,1.2,1.2.1,1,cancer", "c,p,1.2,1.2.1,1,non-cancer"], r"names the slice 1\.2\.1 in rows that differ"),
        (["c,p,1.2,1.2.1,1,cancer,more,cells"], r"slices\.csv: not a readable CSV"),
    ],
)
def test_wrong_rows_are_errors(tmp_path, rows, message):
    with pytest.raises(LungsynthError, match=message):
        read_slice_labels(write_csv(tmp_path, "c,p,1.2,1.2.0,0,cancer", *rows))


def test_cells_are_taken_literally_and_normalised(tmp_path):
    table = read_slice_labels(write_csv(tmp_path, "c,NA,1.2,1.2.0,0,cancer ", "c,\uff11,1.3 ,1.3.0,0,\ufeffcancer"))
    assert table["patient"].tolist() == ["NA", "1"]
    assert table["series_uid"].tolist() == ["1.2", "1.3"]
    assert table["label"].unique().tolist() == ["cancer"]


@pytest.mark.parametrize(("spelt", "right"), [("7", "007"), ("a1", "A1"), ("B2", "A1")])
def test_patients_spelt_otherwise_than_in_the_index_are_an_error(trial, spelt, right):
    path = write_csv(trial.folder, f"nlst,{spelt},1.1,1.1.1,1,cancer")
    with pytest.raises(LungsynthError, match=r"spells 1 patients otherwise than the index .* leading zeros") as caught:
        trial.label(scan("1.1", right), scan("1.2", "3"), slice_csv=path)
    assert f" {right} " not in str(caught.value)
    assert len(trial.label(scan("1.1", spelt), scan("1.2", "3"), slice_csv=path).images) == 1


def test_missing_columns_are_named(tmp_path):
    with pytest.raises(LungsynthError, match=r"lacks the column\(s\) PatientID, label"):
        read_slice_labels(write_csv(tmp_path, header="collection_id,SeriesInstanceUID,SOPInstanceUID\n"))


def test_missing_and_empty_files_are_errors(tmp_path):
    with pytest.raises(LungsynthError, match="not a readable CSV"):
        read_slice_labels(tmp_path / "nowhere.csv")
    with pytest.raises(LungsynthError, match="not a readable CSV"):
        read_slice_labels(write_csv(tmp_path, header=""))


def test_one_cancer_slice_anywhere_makes_a_cancer_patient(trial):
    rows = ["nlst,a,1.1,1.1.1,1,non-cancer", "nlst,a,1.2,1.2.1,1,cancer", "nlst,b,1.3,1.3.1,1,non-cancer"]
    path = write_csv(trial.folder, *rows)
    labelled = trial.label(scan("1.1", "a"), scan("1.3", "b"), scan("1.4", "b"), slice_csv=path)
    assert labels(labelled) == {"1.1": ("cancer", "slice_labels"), "1.3": ("non-cancer", "slice_labels")}
    assert labelled.slices["sop_uid"].tolist() == ["1.1.1", "1.3.1"]
    assert set(labelled.slices["evidence"]) == {"slice_labels"}


def test_slice_labels_of_other_series_are_an_error(trial):
    path = write_csv(trial.folder, "nlst,a,1.1,1.1.1,1,cancer")
    with pytest.raises(LungsynthError, match=r"none of the 1 selected CT series has a labelled slice"):
        trial.label(scan("1.7", "b"), slice_csv=path)


# All of it


def test_each_series_takes_the_best_evidence_that_it_has(case):
    rows = [f"nlst,{patient},{uid},{uid}.1,1,cancer" for patient, uid in (("8", "1.1"), ("7", "1.2"), ("6", "1.3"))]
    path = write_csv(case.folder, *rows, "nlst,1,1.4,1.4.1,1,non-cancer")
    labelled = case.label(
        scan("1.1", "8"), scan("1.2", "7"), scan("1.3", "6"), scan("1.4", "1"), scan("1.5", "55"), seg("1.9", "8"),
        lesion_seg="nlstseg", clinical={}, slice_csv=path,
    )  # fmt: skip
    assert labels(labelled) == {
        "1.1": ("cancer", "lesion_seg"),
        "1.2": ("cancer", "clinical"),
        "1.3": ("cancer", "slice_labels"),
        "1.4": ("non-cancer", "clinical"),
    }
    assert labelled.slices.set_index("series_uid")["evidence"].to_dict() == {"1.2": "clinical", "1.3": "slice_labels"}
    assert left(labelled) == [5, 4, 4]


def test_contradicting_evidence_is_left_out(trial):
    trial.tables("nlst_prsn", person("1", "0"), person("2", "0"), person("3", "0"))
    path = write_csv(trial.folder, "nlst,2,1.2,1.2.1,1,cancer")
    labelled = trial.label(
        scan("1.1", "1"), scan("1.2", "2"), scan("1.3", "3"), seg("1.9", "1"),
        lesion_seg="nlstseg", clinical={}, slice_csv=path,
    )  # fmt: skip
    assert labels(labelled) == {"1.3": ("non-cancer", "clinical")}
    assert left(labelled) == [1, 1, 1]


def test_some_evidence_is_required():
    with pytest.raises(ValidationError, match="at least one of lesion_seg, clinical and slice_csv"):
        LabelConfig()
