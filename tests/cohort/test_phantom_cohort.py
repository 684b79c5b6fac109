"""Phantom cohorts: rows that match what will be written, and patients that do not depend on how many there are."""

import pydicom
import pytest
from pydantic import ValidationError

from lungsynth.cohort.phantom import PhantomCohortConfig, patient_of, select_phantoms
from lungsynth.cohort.splits import SplitConfig
from lungsynth.errors import LungsynthError
from lungsynth.phantom import write_ct, write_seg

CONFIG = PhantomCohortConfig(patients=30, matrix=128, slices=(24, 28))


def test_one_ct_per_patient_and_one_seg_per_cancer_patient():
    cohort = select_phantoms(CONFIG, SplitConfig())
    segs = cohort.series[cohort.series["role"] == "lesion"]
    assert len(cohort.images) == cohort.images["patient"].nunique() == 30
    assert len(segs) == (cohort.images["label"] == "cancer").sum() == 15
    assert set(segs["source_series_uid"]) <= set(cohort.images["series_uid"])
    assert set(segs["label"]) == {"cancer"}
    assert cohort.images["instances"].between(24, 28).all()
    assert cohort.series["bytes"].isna().all()
    assert (cohort.series.groupby("patient")["split"].nunique() == 1).all()
    assert set(cohort.series["split"]) == {"train", "val", "test"}
    assert cohort.funnel.to_numpy().tolist() == [["simulated CT series", 30, 30]]
    assert not cohort.series["patient_key"].str.contains("PHANTOM").any()


def test_rows_match_the_written_series(tmp_path):
    cohort = select_phantoms(CONFIG, SplitConfig())
    seg = cohort.series[cohort.series["role"] == "lesion"].iloc[0]
    ct = cohort.images.set_index("series_uid").loc[seg["source_series_uid"]]
    patient = patient_of(CONFIG, seg["source_series_uid"])
    assert patient is patient_of(CONFIG, seg["series_uid"])
    write_ct(patient, tmp_path / "ct")
    write_seg(patient, tmp_path / "seg")
    instances = [pydicom.dcmread(path, stop_before_pixels=True) for path in (tmp_path / "ct").iterdir()]
    assert len(instances) == ct["instances"]
    assert {i.SeriesInstanceUID for i in instances} == {seg["source_series_uid"]}
    assert {(i.PatientID, i.StudyInstanceUID, i.Manufacturer, i.ConvolutionKernel) for i in instances} == {
        (ct["patient"], ct["study_uid"], ct["manufacturer"], ct["kernel"])
    }
    assert {(i.SliceThickness, i.PatientSex, int(i.PatientAge[:3])) for i in instances} == {
        (ct["thickness_mm"], ct["sex"], ct["age"])
    }
    [path] = (tmp_path / "seg").iterdir()
    assert pydicom.dcmread(path).SeriesInstanceUID == seg["series_uid"]
    assert seg["url"] == f"phantom://{patient.sha256}/{seg['series_uid']}/"


def test_cohort_grows_without_changing():
    small = select_phantoms(CONFIG, SplitConfig()).series
    large = select_phantoms(CONFIG.model_copy(update={"patients": 40}), SplitConfig()).series
    common = large[large["series_uid"].isin(small["series_uid"])].reset_index(drop=True)
    assert common.equals(small)


def test_other_seed_or_matrix_gives_other_series():
    uids = [
        set(select_phantoms(CONFIG.model_copy(update=change), SplitConfig()).series["series_uid"])
        for change in ({}, {"seed": 1}, {"matrix": 256})
    ]
    assert not uids[0] & (uids[1] | uids[2])


@pytest.mark.parametrize(("fraction", "cancers"), [(0.0, 0), (0.2, 6), (0.7, 21), (1.0, 30)])
def test_share_of_cancer_patients_is_exact(fraction, cancers):
    cohort = select_phantoms(CONFIG.model_copy(update={"cancer_fraction": fraction}), SplitConfig(method="ranked"))
    assert (cohort.images["label"] == "cancer").sum() == cancers


def test_unknown_series_is_an_error():
    with pytest.raises(LungsynthError, match=r"1\.2\.3"):
        patient_of(CONFIG, "1.2.3")


@pytest.mark.parametrize("wrong", [{"slices": (40, 30)}, {"nodule_diameter_mm": (30, 8)}, {"slices": (2, 5)}])
def test_falling_ranges_are_refused(wrong):
    with pytest.raises(ValidationError, match=next(iter(wrong))):
        PhantomCohortConfig(**wrong)
