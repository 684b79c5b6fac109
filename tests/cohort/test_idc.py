"""Selection from the index that idc-index-data really ships."""

from pathlib import Path

import pytest
from pydantic import ValidationError

from lungsynth.cohort.cohort import Cohort
from lungsynth.cohort.idc import IdcCohortConfig, open_index, select_idc
from lungsynth.cohort.splits import SplitConfig
from lungsynth.errors import LungsynthError

QUERIES = Path(__file__).parents[2] / "configs" / "cohorts"
SMOKE = QUERIES / "nlst_smoke.sql"
RANKED = SplitConfig(method="ranked")
NLSTSEG = {"lesion_seg": "nlstseg"}


def select(**settings: object) -> Cohort:
    return select_idc(IdcCohortConfig(**({"labels": NLSTSEG} | settings)), RANKED)


@pytest.fixture(scope="module")
def smoke() -> Cohort:
    return select(query=SMOKE)


def test_smoke_query_gives_ten_segmented_patients_and_ten_controls(smoke):
    assert smoke.ct["label"].value_counts().to_dict() == {"cancer": 10, "non-cancer": 10}
    assert smoke.ct["patient_key"].nunique() == 20
    assert smoke.ct["instances"].between(100, 250).all()
    assert 1.4e9 < smoke.series["bytes"].sum() < 1.7e9
    assert set(smoke.series["license"]) == {"CC BY 4.0"}
    assert smoke.series["url"].str.fullmatch(r"s3://idc-open-data/[0-9a-f-]{36}/").all()
    assert set(smoke.ct["doi"]) == {"10.7937/tcia.hmq8-j677"}


def test_each_cancer_series_has_the_segmentation_of_its_own_study(smoke):
    pairs = smoke.seg.merge(smoke.ct, left_on="source_series_uid", right_on="series_uid", suffixes=("", "_ct"))
    assert len(pairs) == 10
    assert (pairs["study_uid"] == pairs["study_uid_ct"]).all()
    assert (pairs["patient_key"] == pairs["patient_key_ct"]).all()
    assert (pairs["split"] == pairs["split_ct"]).all()
    assert set(pairs["evidence_ct"]) == {"lesion_seg"}
    assert set(smoke.ct.loc[smoke.ct["label"] == "non-cancer", "evidence"]) == {"no_lesion_seg"}


def test_segmentation_goes_to_the_series_whose_number_it_names(smoke):
    with open_index() as index:
        numbers = dict(
            index.sql("SELECT SeriesInstanceUID, SeriesNumber FROM index WHERE collection_id = 'nlst'").fetchall()
        )
        named = dict(
            index.sql(
                "SELECT SeriesInstanceUID, SeriesDescription FROM index WHERE analysis_result_id = 'nlstseg'"
            ).fetchall()
        )
    for seg in smoke.seg.itertuples():
        assert named[seg.series_uid].rpartition(" ")[2] == numbers[seg.source_series_uid]


def test_selection_is_the_same_each_time(smoke):
    assert select(query=SMOKE).sha256 == smoke.sha256


def test_saved_cohort_comes_back_whole(smoke, tmp_path):
    smoke.save(tmp_path)
    assert Cohort.load(tmp_path).sha256 == smoke.sha256


def test_all_segmented_patients_of_nlst_are_found():
    cohort = select(where="collection_id = 'nlst'")
    assert (cohort.ct["label"] == "cancer").sum() == len(cohort.seg) == 601
    assert (cohort.ct["label"] == "non-cancer").sum() > 25_000
    assert cohort.ct["instances"].min() >= 20


def test_segmented_patients_never_serve_as_controls_by_their_other_scans():
    segmented = "FROM index WHERE analysis_result_id = 'nlstseg'"
    with pytest.raises(LungsynthError, match="has no non-cancer patients"):
        select(where=f"collection_id = 'nlst' AND PatientID IN (SELECT PatientID {segmented})")
    with pytest.raises(LungsynthError, match="has no"):
        select(
            where=f"collection_id = 'nlst' AND PatientID IN (SELECT PatientID {segmented}) "
            f"AND StudyInstanceUID NOT IN (SELECT StudyInstanceUID {segmented})"
        )


def test_limits_hold():
    cohort = select(where="collection_id = 'nlst'", patients_per_class=5, series_per_patient=2)
    patients = cohort.ct.groupby("label")["patient_key"].nunique()
    assert patients.to_dict() == {"cancer": 5, "non-cancer": 5}
    assert cohort.ct.groupby("patient_key").size().max() == 2
    wider = select(where="collection_id = 'nlst'", patients_per_class=8)
    assert set(cohort.ct["patient_key"]) < set(wider.ct["patient_key"])


def test_segmentations_that_name_no_series_go_to_a_series_of_their_study():
    cohort = select(where="collection_id = 'qin_lung_ct'", labels={"lesion_seg": ["qin_lungct_seg"]}, min_instances=60)
    studies = cohort.ct.set_index("series_uid")["study_uid"]
    assert len(cohort.seg) > len(cohort.ct[cohort.ct["label"] == "cancer"])
    assert (studies.loc[cohort.seg["source_series_uid"]].to_numpy() == cohort.seg["study_uid"].to_numpy()).all()


def test_slice_labels_select_the_mirrors_series(mirror):
    cohort = select(labels={"slice_csv": mirror / "slice_labels.csv"})
    assert len(cohort.ct) == len(cohort.series) == 4
    assert cohort.ct["split"].value_counts().to_dict() == {"train": 2, "val": 1, "test": 1}
    assert set(cohort.ct["evidence"]) == {"slice_labels"}
    assert set(cohort.ct["license"]) == {"CC BY 3.0", "CC BY 4.0"}
    assert cohort.slice_labels["label"].value_counts().to_dict() == {"non-cancer": 298, "cancer": 41}
    assert cohort.ct["instances"].sum() == len(cohort.slice_labels)
    folders = {path.name for path in (mirror / "idc-open-data").iterdir()}
    assert set(cohort.ct["url"].str.split("/").str[3]) < folders


LIDC_1 = "1.3.6.1.4.1.14519.5.2.1.6279.6001.179049373636438705059720603192"
SEG_OF_QIN = "1.2.276.0.7230010.3.1.3.0.11533.1415314442.128968"


def test_series_list_is_read_with_comments(tmp_path):
    listed = tmp_path / "series.txt"
    listed.write_text(f"# one patient\n{LIDC_1}  # GE\n\n")
    slices = tmp_path / "slices.csv"
    slices.write_text(
        "collection_id,PatientID,SeriesInstanceUID,SOPInstanceUID,label\n"
        f"lidc_idri,LIDC-IDRI-0001,{LIDC_1},1.2.3,cancer\nlidc_idri,LIDC-IDRI-0001,{LIDC_1},1.2.4,non-cancer\n"
    )
    with pytest.raises(LungsynthError, match=r"has 1 patient\(s\)"):
        select(series=listed, labels={"slice_csv": slices})


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (
            {"where": "collection_id = 'nslt'"},
            r"no CT series of at least 20 instances matches the condition collection_id = 'nslt'",
        ),
        (
            {"where": "colection_id = 'nlst'"},
            r'no valid SQL over the IDC index: Binder Error: Referenced column "colection_id" not found',
        ),
        ({"where": "collection_id = "}, r"no valid SQL over the IDC index: Parser Error"),
        ({"where": "CAST(PatientID AS INT) = 7"}, r"no valid SQL over the IDC index: Conversion Error"),
        ({"query": Path("nowhere.sql")}, r"cannot read nowhere\.sql: .*No such file"),
        ({"series": Path("nowhere.txt")}, r"cannot read nowhere\.txt: .*No such file"),
        (
            {"where": "true", "labels": {"lesion_seg": ["nlstseg", "nlst_seg"]}},
            r"no segmentation of nlst_seg: .*analysis_result_id",
        ),
        ({"where": "collection_id = 'lidc_idri'"}, r"has no cancer patients: widen the selection"),
    ],
)
def test_wrong_selections_are_errors_in_one_line(settings, message):
    with pytest.raises(LungsynthError, match=message) as error:
        select(**settings)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "is empty: write one"),
        ("1.2.3\n", r"lists 1 series that the IDC index does not know, the first is 1\.2\.3"),
        (SEG_OF_QIN, "no CT series"),
    ],
)
def test_wrong_series_lists_are_errors(tmp_path, text, message):
    (tmp_path / "series.txt").write_text(text)
    with pytest.raises(LungsynthError, match=message):
        select(series=tmp_path / "series.txt")


def test_a_query_must_return_the_series(tmp_path):
    (tmp_path / "patients.sql").write_text("SELECT PatientID FROM index -- forgot the series\n")
    with pytest.raises(LungsynthError, match=r"patients\.sql returns no column SeriesInstanceUID"):
        select(query=tmp_path / "patients.sql")


@pytest.mark.parametrize("settings", [{}, {"where": "true", "query": SMOKE}])
def test_exactly_one_selection_is_required(settings):
    with pytest.raises(ValidationError, match="exactly one of where, query and series"):
        IdcCohortConfig(labels=NLSTSEG, **settings)
