"""Selection from the index that idc-index-data really ships."""

from pathlib import Path

import pandas as pd
import pytest
from pydantic import ValidationError

from lungsynth.cohort.cohort import Cohort
from lungsynth.cohort.idc import IdcCohortConfig, select_idc
from lungsynth.cohort.nlst import ABNORMALITIES, LOBES
from lungsynth.cohort.sources import IndexSource
from lungsynth.cohort.splits import SplitConfig
from lungsynth.errors import LungsynthError

QUERIES = Path(__file__).parents[2] / "configs" / "cohorts"
SMOKE = QUERIES / "nlst_smoke.sql"
NLST = QUERIES / "nlst_index.sql"
RANKED = SplitConfig(method="ranked")
NLSTSEG = {"lesion_seg": "nlstseg"}
TENTH = "collection = 'nlst' AND modality IN ('CT', 'SEG') AND patient LIKE '%7'"  # of NLST's patients
TOTALSEGMENTATOR = "totalsegmentator_ct_segmentations"


def select(**settings: object) -> Cohort:
    return select_idc(IdcCohortConfig(**({"labels": NLSTSEG} | settings)), RANKED)


def segmentations(cohort: Cohort, role: str) -> pd.DataFrame:
    return cohort.series[cohort.series["role"] == role]


def series(where: str) -> pd.DataFrame:
    with IndexSource() as source:
        return source.series(f"SELECT * FROM series WHERE {where}", "the test's query").set_index("series_uid")


@pytest.fixture(scope="module")
def smoke() -> Cohort:
    return select(query=SMOKE, rules={"patients_per_class": 10}, lung_seg=TOTALSEGMENTATOR)


@pytest.fixture(scope="module")
def nlst() -> Cohort:
    return select_idc(IdcCohortConfig(labels=NLSTSEG, query=NLST), SplitConfig())


@pytest.fixture
def sql(tmp_path):
    """Writes a query over `series` with this condition, and returns its path."""

    def write(where: str) -> Path:
        path = tmp_path / "query.sql"
        path.write_text(f"SELECT * FROM series WHERE {where}\n")
        return path

    return write


def test_smoke_query_gives_ten_segmented_patients_and_ten_controls(smoke):
    assert smoke.images["label"].value_counts().to_dict() == {"cancer": 10, "non-cancer": 10}
    assert smoke.images["patient_key"].nunique() == 20
    assert 1.4e9 < smoke.images["bytes"].sum() < 1.7e9
    assert set(smoke.series["license"]) == {"CC BY 4.0"}
    assert smoke.series["url"].str.fullmatch(r"s3://idc-open-data/[0-9a-f-]{36}/").all()
    assert set(smoke.images["doi"]) == {"10.7937/tcia.hmq8-j677"}
    assert set(smoke.images["evidence"]) == {"lesion_seg", "no_lesion_seg"}
    assert smoke.images["thickness_mm"].between(0.5, 3.2).all()
    assert smoke.images["kernel"].notna().all()


@pytest.mark.parametrize("role", ["lesion", "lungs"])
def test_segmentations_are_of_the_chosen_series(smoke, role):
    rows = segmentations(smoke, role)
    assert len(rows) >= 10
    pairs = rows.merge(smoke.images, left_on="source_series_uid", right_on="series_uid", suffixes=("", "_ct"))
    assert len(pairs) == len(rows)
    for shared in ("study_uid", "patient_key", "split", "label", "evidence"):
        assert (pairs[shared] == pairs[f"{shared}_ct"]).all()
    known = series(f"patient IN {tuple(smoke.images['patient'])}")
    named = known.loc[rows["series_uid"], "series_description"].str.rpartition(" ")[2]
    assert named.tolist() == known.loc[rows["source_series_uid"], "series_number"].tolist()
    result = {"lesion": "nlstseg", "lungs": TOTALSEGMENTATOR}[role]
    assert set(known.loc[rows["series_uid"], "analysis_result"]) == {result}


def test_every_cancer_patient_has_their_lesion_and_lung_masks_cost_more_than_the_scans(smoke):
    cancer = smoke.images.loc[smoke.images["label"] == "cancer", "series_uid"]
    assert set(segmentations(smoke, "lesion")["source_series_uid"]) == set(cancer)
    assert segmentations(smoke, "lungs")["bytes"].sum() > smoke.images["bytes"].sum()


def test_selection_is_the_same_each_time(smoke):
    again = select(query=SMOKE, rules={"patients_per_class": 10}, lung_seg=TOTALSEGMENTATOR)
    assert again.sha256 == smoke.sha256


def test_saved_cohort_comes_back_whole(smoke, tmp_path):
    smoke.save(tmp_path)
    loaded = Cohort.load(tmp_path)
    assert loaded.sha256 == smoke.sha256
    assert loaded.funnel.equals(smoke.funnel)


def test_the_funnel_of_nlst_falls_from_the_whole_index_to_one_series_a_patient(nlst):
    funnel = nlst.funnel.set_index("rule")
    assert funnel.loc["original CT"].tolist() == [203_087, 26_254]
    assert (funnel.diff().dropna() <= 0).all(axis=None)
    assert nlst.funnel.iloc[-1].tolist()[1:] == [len(nlst.images), len(nlst.images)]
    assert len(nlst.images) > 26_000
    assert (nlst.images["label"] == "cancer").sum() == 599  # of 601: two are segmented on other than axial images
    assert nlst.images["instances"].min() >= 20


def test_nearly_all_kernels_of_nlst_are_known_and_most_chosen_ones_are_soft(nlst):
    soft = nlst.images["kernel"].str.fullmatch(r"STANDARD|SOFT|B[1-4]\d[fs]|[ABC]|FC[0-2]\d")
    assert soft.mean() > 0.9


def test_segmented_patients_never_serve_as_controls_by_their_other_scans(sql):
    segmented = "SELECT {} FROM series WHERE analysis_result = 'nlstseg'"
    of_patients = f"collection = 'nlst' AND patient IN ({segmented.format('patient')})"
    with pytest.raises(LungsynthError, match="has no non-cancer patients after the rule"):
        select(query=sql(of_patients))
    other_scans = f"{of_patients} AND (modality = 'SEG' OR study_uid NOT IN ({segmented.format('study_uid')}))"
    with pytest.raises(LungsynthError, match="after the rule «if so, known which slices show it»"):
        select(query=sql(other_scans))


def test_more_patients_change_nothing_for_those_who_are_there(smoke):
    wider = select(query=SMOKE, rules={"patients_per_class": 15})
    assert set(smoke.images["series_uid"]) < set(wider.images["series_uid"])


def test_all_studies_and_all_reconstructions_can_be_taken():
    one = select(query=SMOKE).images
    studies = select(query=SMOKE, rules={"studies": "all"}).images
    reconstructions = select(query=SMOKE, rules={"studies": "all", "one_reconstruction": False}).images
    assert len(one) == one["patient_key"].nunique() < studies["study_uid"].nunique() == len(studies)
    assert set(one["series_uid"]) < set(studies["series_uid"]) < set(reconstructions["series_uid"])
    assert (reconstructions.groupby("patient_key")["split"].nunique() == 1).all()


def test_controls_are_matched_by_scanner_maker_without_clinical_tables(sql):
    cohort = select(query=sql(TENTH), rules={"patients_per_class": 40, "controls": {"ratio": 2, "match": ["maker"]}})
    makers = pd.crosstab(cohort.images["manufacturer"].str[:2], cohort.images["label"])
    assert (makers["non-cancer"] == 2 * makers["cancer"]).all()
    assert makers["cancer"].sum() == 40
    assert cohort.funnel["rule"].iloc[-1] == "2 matched control(s) a cancer patient (0 of 40 have fewer)"


def test_controls_by_age_need_the_clinical_tables():
    with pytest.raises(LungsynthError, match=r"matched by age, but it is known of no patient .*labels\.clinical"):
        select(query=SMOKE, rules={"controls": {}})


@pytest.fixture
def clinical_folder(tmp_path) -> Path:
    """Invented clinical tables of real participants: cancer where a lesion is segmented; of some no age is known."""
    known = series(TENTH).reset_index()
    patients = pd.Series(sorted(known["patient"].unique()), dtype="string")
    ill = patients.isin(known.loc[known["analysis_result"] == "nlstseg", "patient"])
    number = patients.astype(int)
    age = (55 + number // 10 % 20).astype("string").mask(patients.str[-2:] == "17", ".M")
    gender = (1 + number // 7 % 2).astype(str)
    participants = {"dicom_patient_id": patients, "age": age, "gender": gender}
    participants |= {"can_scr": ill.map({True: "1", False: "0"}), "candx_days": ill.map({True: "100", False: ".N"})}
    screens = {f"scr_days{screen}": str(365 * screen) for screen in range(3)}
    cancers = {"dicom_patient_id": patients[ill], "lc_order": "1", "candx_days": "100", "lc_topog": "C341"}
    nodules = {name: ["0"] for name in ABNORMALITIES}
    for name, columns in {
        "nlst_prsn": participants | screens | dict.fromkeys(LOBES, "0"),
        "nlst_canc": cancers,
        "nlst_ctab": nodules,
    }.items():
        pd.DataFrame(columns).to_parquet(tmp_path / f"{name}.parquet")
    return tmp_path


def test_controls_are_cancer_free_and_alike_in_age_sex_and_maker(sql, clinical_folder):
    labels = NLSTSEG | {"clinical": {"tables": {"folder": clinical_folder}}}
    images = select(query=sql(TENTH), labels=labels, rules={"controls": {"ratio": 3}}).images
    controls = images[images["label"] == "non-cancer"]
    cancer = images[images["label"] == "cancer"]
    assert set(cancer["evidence"]) == {"lesion_seg"}
    assert set(controls["evidence"]) == {"clinical"}
    assert 2.5 * len(cancer) < len(controls) <= 3 * len(cancer)
    assert len(cancer) > 40
    assert images[["age", "sex"]].notna().all(axis=None)
    assert abs(cancer["age"].mean() - controls["age"].mean()) < 1
    assert abs((cancer["sex"] == "F").mean() - (controls["sex"] == "F").mean()) < 0.05


def test_segmentations_that_name_no_series_go_to_a_series_of_their_study(sql):
    cohort = select(
        query=sql("collection = 'qin_lung_ct'"), labels={"lesion_seg": ["qin_lungct_seg"]}, rules={"min_instances": 60}
    )
    studies = cohort.images.set_index("series_uid")["study_uid"]
    lesions = segmentations(cohort, "lesion")
    assert len(lesions) > (cohort.images["label"] == "cancer").sum()
    assert (studies.loc[lesions["source_series_uid"]].to_numpy() == lesions["study_uid"].to_numpy()).all()
    assert "(not known of" in cohort.funnel["rule"].iloc[-5]


def test_slice_labels_select_the_mirrors_series(mirror):
    cohort = select(labels={"slice_csv": mirror / "slice_labels.csv"})
    assert len(cohort.images) == len(cohort.series) == 4
    assert cohort.images["split"].value_counts().to_dict() == {"train": 2, "val": 1, "test": 1}
    assert set(cohort.images["evidence"]) == {"slice_labels"}
    assert set(cohort.images["license"]) == {"CC BY 3.0", "CC BY 4.0"}
    assert cohort.slice_labels["label"].value_counts().to_dict() == {"non-cancer": 298, "cancer": 41}
    assert cohort.images["instances"].sum() == len(cohort.slice_labels)
    folders = {path.name for path in (mirror / "idc-open-data").iterdir()}
    assert set(cohort.images["url"].str.split("/").str[3]) < folders


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
    ("where", "settings", "message"),
    [
        ("collection = 'nslt'", {}, r"no series is left after the rule «all that the query gives»"),
        (
            "analysis_result = 'nlstseg'",
            {},
            r"after the rule «original CT»: .*all that the query gives: \d+ → original CT",
        ),
        ("colection = 'nlst'", {}, r'no valid SQL over the IDC index: Binder Error: Referenced column "colection" not'),
        (
            TENTH,
            {"labels": {"lesion_seg": ["nlstseg", "nlst_seg"]}},
            r"no segmentation of nlst_seg: .*analysis_result_id",
        ),
        ("collection = 'lidc_idri'", {"labels": {"lesion_seg": "lidc_idri_seg"}}, "no segmentation of lidc_idri_seg"),
        (
            f"{TENTH} AND (analysis_result IS NULL OR analysis_result = 'nlstseg')",
            {"lung_seg": TOTALSEGMENTATOR},
            "gives no segmentation of totalsegmentator_ct_segmentations for the chosen series: correct `lung_seg`",
        ),
        (
            TENTH,
            {"rules": {"kernels": ["STANDART"]}},
            r"no series has the kernel STANDART; the commonest are STANDARD, ",
        ),
        (
            TENTH,
            {"rules": {"thickness_mm": [6.2, 6.3]}},
            r"after the rule «slices of 6\.2 to 6\.3 mm",
        ),
    ],
)
def test_wrong_selections_are_errors_in_one_line(sql, where, settings, message):
    with pytest.raises(LungsynthError, match=message) as error:
        select(query=sql(where), **settings)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "is empty: write one"),
        ("1.2.3\n", r"names 1 series that the IDC index does not know, the first is 1\.2\.3"),
        ("1.2.3' OR 'a' = 'a\n", "which is no SeriesInstanceUID: correct it"),
        (SEG_OF_QIN, "after the rule «original CT»"),
    ],
)
def test_wrong_series_lists_are_errors(tmp_path, text, message):
    (tmp_path / "series.txt").write_text(text)
    with pytest.raises(LungsynthError, match=message):
        select(series=tmp_path / "series.txt")


@pytest.mark.parametrize("name", ["query", "series"])
def test_a_missing_file_is_an_error_that_names_it(name):
    with pytest.raises(LungsynthError, match=r"cannot read nowhere\.txt: .*No such file"):
        select(**{name: Path("nowhere.txt")})


def test_a_query_must_return_the_columns(tmp_path):
    (tmp_path / "patients.sql").write_text("SELECT PatientID FROM index -- forgot the series\n")
    with pytest.raises(LungsynthError, match=r"patients\.sql lacks the column\(s\) collection, .*series_uid"):
        select(query=tmp_path / "patients.sql")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({}, "give query or series; neither is needed only"),
        ({"series": "a.txt", "query": SMOKE}, "not both"),
        ({"series": "a.txt", "bigquery": {"project": "our-project"}}, "BigQuery needs a query"),
    ],
)
def test_exactly_one_selection_is_required(settings, message):
    with pytest.raises(ValidationError, match=message):
        IdcCohortConfig(labels=NLSTSEG, **settings)
