"""One person is one patient, however and wherever the name was written down."""

import logging
import unicodedata
from pathlib import Path

import pandas as pd
import pytest
from picture_sets import SPLITS, lay, select, story
from pydantic import ValidationError
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian

from lungsynth.cohort.cohort import Cohort
from lungsynth.cohort.huggingface import HuggingFaceCohortConfig, select_huggingface
from lungsynth.cohort.identity import PatientNames, names_nobody, normalised, one_label_each, one_name_each
from lungsynth.cohort.pictures import PictureCohortConfig, select_pictures
from lungsynth.cohort.splits import patient_key
from lungsynth.errors import LungsynthError


@pytest.mark.parametrize(
    "name",
    [
        *("P1", "P1 ", " P1", "\tP1\r\n", "\ufeffP1", "P\u200b1", "\uff301", "P\uff11", "P1\x00", "\u202aP1\u202c"),
        *("P1\u3000", "\xa0P1", "P1\xad"),
    ],
)
def test_spellings_of_one_name_are_one(name):
    assert normalised(name) == "P1"


@pytest.mark.parametrize(
    "name", ["P1", "a b", "JPCLN001", "1.2.840", "p-1_x", "Müller", "患者1", "", "P1  b", "Mu\u0308\xa0x"]
)
def test_normalising_twice_changes_nothing_more(name):
    assert normalised(normalised(name)) == normalised(name)


def test_composed_and_decomposed_umlauts_and_bytes_of_latin_1_are_one_name():
    spellings = [
        "M\u00fcller",
        unicodedata.normalize("NFD", "M\u00fcller"),
        b"M\xfcller".decode("utf-8", "surrogateescape"),
    ]
    assert {normalised(name) for name in spellings} == {"M\u00fcller"}


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (
            ["P1", "p1", "P2"],
            "1 patients may go by several names, which differ in case alone: «P1» and «p1»; set "
            "cohort.patients.case to ignore",
        ),
        (
            ["001", "1", "2"],
            "differ in leading zeros alone: «001» and «1»; set cohort.patients.leading_zeros to ignore",
        ),
        (["P01-02", "P1-2"], "differ in leading zeros alone"),
        (
            ["p01", "P1"],
            "differ in case or leading zeros alone: .* set cohort.patients.case and cohort.patients.leading",
        ),
        (["STRASSE", "straße"], "differ in case alone"),
        (["a", "A", "b", "B", "c", "C", "d", "D"], "4 patients .*«c» and «C», …; set"),
    ],
)
def test_names_that_are_nearly_alike_are_an_error_that_shows_them(names, message):
    with pytest.raises(LungsynthError, match=message):
        one_name_each(pd.Series(names), PatientNames())


@pytest.mark.parametrize(
    ("names", "rules", "patients"),
    [
        (["P1", "p1", "P2"], {"case": "ignore"}, 2),
        (["P1", "p1", "P2"], {"case": "keep"}, 3),
        (["001", "1", "10", "000", "0"], {"leading_zeros": "ignore"}, 3),
        (["001", "1"], {"leading_zeros": "keep"}, 2),
        (["p01", "P1"], {"case": "keep"}, 2),
        (["p01", "P1"], {"case": "ignore", "leading_zeros": "ignore"}, 1),
        (["100", "10", "1", "A1", "A10", "1.0"], {}, 6),
    ],
)
def test_the_settings_say_which_is_meant(names, rules, patients):
    assert one_name_each(pd.Series(names), PatientNames(**rules)).nunique() == patients


def test_a_name_does_not_depend_on_who_else_is_there():
    rules = PatientNames(case="ignore", leading_zeros="ignore")
    alone = one_name_each(pd.Series(["P01"]), rules)
    assert alone[0] == one_name_each(pd.Series(["p1", "P01"]), rules)[1]


def test_labels_are_one_or_an_error_or_as_the_classes_spell_them(caplog):
    assert one_label_each(pd.Series(["cancer ", "cancer", "free"]), ()).nunique() == 2
    for names in (["Cancer", "cancer"], ["CANCER", "Cancer "], ["01", "1"]):
        with pytest.raises(
            LungsynthError, match=r"labels that differ in case or leading zeros alone: «.*cohort.classes"
        ):
            one_label_each(pd.Series(names), ())
    asked = one_label_each(pd.Series(["Cancer", "cancer", "other"]), ("free", "cancer"))
    assert list(asked) == ["cancer", "cancer", "other"]
    assert "«Cancer» for cancer is taken" in caplog.text


def test_names_of_nobody():
    assert all(
        map(names_nobody, ["", "--", "ANONYMOUS", "anonymous^", "N/A", "None", "XXXX", "De-Identified", "unknown"])
    )
    assert not any(map(names_nobody, ["0", "ANON0001", "patient1", "1", "患者1", "X1"]))


def table(folder: Path, patients: list[str], labels: list[str] | None = None, encoding: str = "utf-8") -> Path:
    """A CSV of as many pictures."""
    lay(folder, *(f"{number}.png" for number in range(len(patients))))
    labels = labels or [("a", "b")[number % 2] for number in range(len(patients))]
    paths = [f"{number}.png" for number in range(len(patients))]
    rows = pd.DataFrame({"path": paths, "label": labels, "patient": patients})
    rows.to_csv(folder / "rows.csv", index=False, encoding=encoding)
    return folder / "rows.csv"


def of_table(path: Path, **fields: object) -> Cohort:
    return select_pictures(PictureCohortConfig(table=path, **fields), SPLITS)


def test_a_table_with_padded_names_has_one_patient_for_both(tmp_path):
    cohort = of_table(table(tmp_path, ["P1", "P1 ", "P2", "\uff302", "P3", "\ufeffP3"]))
    assert set(cohort.series["patient"]) == {"P1", "P2", "P3"}
    assert set(cohort.series["patient_key"]) == {patient_key("pictures", f"P{n}", "lungsynth") for n in (1, 2, 3)}


def test_a_table_with_near_twins_is_an_error_with_the_setting_that_mends_it(tmp_path):
    path = table(tmp_path, ["001", "1", "002", "2", "003", "3"])
    with pytest.raises(LungsynthError, match=r"3 patients .*cohort.patients.leading_zeros"):
        of_table(path)
    assert of_table(path, patients={"leading_zeros": "ignore"}).series["patient"].nunique() == 3
    with pytest.raises(ValidationError, match="leading_zeros"):
        PictureCohortConfig(table=path, patients={"leading_zeros": "yes"})


@pytest.mark.parametrize("encoding", ["latin-1", "utf-16", "utf-8-sig"])
def test_tables_of_other_encodings_are_read(tmp_path, encoding):
    cohort = of_table(table(tmp_path, ["M\xfcller", "M\xfcller", "B", "C"], ["B\xf6se", "gut"] * 2, encoding))
    assert cohort.classes == ("B\xf6se", "gut")
    assert sorted(set(cohort.series["patient"])) == ["B", "C", "M\xfcller"]


@pytest.mark.parametrize("word", ["None", "NA", "nan", "null", "N/A", "NaN", "<NA>"])
def test_words_that_pandas_takes_for_nothing_are_labels(tmp_path, word):
    path = table(tmp_path, list("1234"), [word, "nodule"] * 2)
    if word in ("N/A", "<NA>"):
        with pytest.raises(LungsynthError, match=f"the class name '{word}' cannot be used"):
            of_table(path)
    else:
        assert set(of_table(path).classes) == {word, "nodule"}


@pytest.mark.parametrize("cell", ["", " ", "\ufeff"])
def test_only_an_empty_cell_has_no_value(tmp_path, cell):
    with pytest.raises(LungsynthError, match="row 2 has no value in the column 'label'"):
        of_table(table(tmp_path, list("1234"), ["a", cell, "a", "b"]))


def test_a_patient_called_na_is_one_patient_and_told_of(tmp_path, caplog):
    cohort = of_table(table(tmp_path, ["NA", "NA", *"12345678"]))
    assert cohort.series["patient"].nunique() == 9
    assert "2 of 10 images are of one patient, who stays in one split; if that is a dummy such as NA" in caplog.text


def test_a_pattern_may_fit_the_path(tmp_path):
    lay(tmp_path, *(f"{n % 2}/patient0000{n}/study{s}/view1_frontal.png" for n in range(6) for s in (1, 2)))
    for pattern in (r"(patient\d+)", r"(patient\d+)/study", r"\d/(patient\d+)/"):
        cohort = select(tmp_path, patient_pattern=pattern)
        assert sorted(cohort.series["patient"].unique()) == [f"patient0000{n}" for n in range(6)]
        assert (cohort.series.groupby("patient")["split"].nunique() == 1).all()


def test_a_pattern_that_fits_names_is_not_looked_for_in_paths(tmp_path):
    lay(tmp_path, *(f"{n % 2}/site1/site{n}.png" for n in range(4)))
    assert sorted(select(tmp_path, patient_pattern=r"(site\d)").series["patient"]) == [f"site{n}" for n in range(4)]


@pytest.mark.parametrize("pattern", [r"(p\d)?x", r"(p[01])", r"(nobody\d)"])
def test_a_pattern_without_a_patient_for_some_is_an_error_with_advice(tmp_path, pattern):
    lay(tmp_path, *(f"{n % 2}/p{n}/x.png" for n in range(4)))
    with pytest.raises(
        LungsynthError, match=r"of the 4 file names and [02] of their paths.* \(patient\\d\+\)/ fits"
    ) as caught:
        select(tmp_path, patient_pattern=pattern)
    assert "p1/x" not in str(caught.value)


def test_patterns_over_paths_of_tables_are_relative_to_the_table(tmp_path):
    lay(tmp_path, *(f"scans/p{n // 2}/{n % 2}.png" for n in range(8)))
    paths = [
        str(tmp_path / f"scans/p{n // 2}/{n % 2}.png") if n % 2 else f"scans/p{n // 2}/{n % 2}.png" for n in range(8)
    ]
    pd.DataFrame({"path": paths, "label": list("aabb") * 2}).to_csv(tmp_path / "rows.csv", index=False)
    cohort = of_table(tmp_path / "rows.csv", patient_pattern=r"scans/(p\d)/", columns={"patient": None})
    assert cohort.series["patient"].nunique() == 4


def dicom(path: Path, patient: bytes | None, number: int) -> None:
    """A DICOM file without pixels, of which nothing but its patient is asked here."""
    dataset = Dataset()
    dataset.SOPInstanceUID, dataset.Modality = f"1.2.{number}", "DX"
    if patient is not None:
        dataset.PatientID = "x" * len(patient)
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset.file_meta.MediaStorageSOPInstanceUID, dataset.file_meta.MediaStorageSOPClassUID = f"1.2.{number}", "1.2"
    path.parent.mkdir(parents=True, exist_ok=True)
    dataset.save_as(path, enforce_file_format=True)
    if patient:
        path.write_bytes(path.read_bytes().replace(b"x" * len(patient), patient))


def dicoms(folder: Path, patients: list[bytes | None]) -> Path:
    for number, patient in enumerate(patients):
        dicom(folder / ("a", "b")[number % 2] / f"{number}.dcm", patient, number)
    return folder


def test_dicom_says_whose_a_radiograph_is(tmp_path, caplog):
    cohort = select(dicoms(tmp_path, [f"P{number // 3:03d}".encode() for number in range(12)]))
    assert cohort.series["patient"].nunique() == 4
    assert set(cohort.series["patient_key"]) == {patient_key("pictures", f"P00{n}", "lungsynth") for n in range(4)}
    assert (cohort.series.groupby("patient")["split"].nunique() == 1).all()
    assert "by image" not in caplog.text
    assert "P00" not in caplog.text


@pytest.mark.parametrize(
    "spellings", [(b"PAT7", b"PAT7  "), (b"M\xfcller", b"M\xc3\xbcller"), (b"PAT7\0\0", b"  PAT7"), (b"P 7", b"P  7")]
)
def test_padding_and_encoding_of_a_patient_id_change_nothing(tmp_path, spellings):
    cohort = select(dicoms(tmp_path, [*spellings, b"A1", b"B2", b"C3"]))
    assert cohort.series["patient"].nunique() == 4


def test_near_twins_among_patient_ids_are_an_error(tmp_path):
    with pytest.raises(LungsynthError, match=r"«P1» and «p1»; set cohort\.patients\.case"):
        select(dicoms(tmp_path, [b"P1", b"p1", b"P2", b"P3", b"P4"]))


@pytest.mark.parametrize("dummy", [None, b"", b"ANONYMOUS", b"anonymized ", b"UNKNOWN", b"^^"])
def test_dicom_files_that_name_nobody_are_told_of(tmp_path, dummy, caplog):
    cohort = select(dicoms(tmp_path, [dummy] * 3 + [b"P1", b"P1", b"P2", b"P3", b"P4"]))
    assert cohort.series["patient"].nunique() == 7
    assert "which patient 3 of 8 images are of, so their splits are by image" in caplog.text


@pytest.mark.parametrize("dummy", [b"0", b"SITE-A", b"000000"])
def test_one_patient_id_for_half_of_the_files_is_an_error(tmp_path, dummy):
    with pytest.raises(LungsynthError, match="4 of 8 DICOM files have the same PatientID, which looks like a dummy"):
        select(dicoms(tmp_path, [dummy] * 4 + [b"P1", b"P2", b"P3", b"P4"]))


def test_a_pattern_comes_before_dicom_and_damaged_files_name_nobody(tmp_path):
    dicoms(tmp_path, [b"SAME"] * 4)
    assert select(tmp_path, patient_pattern=r"(\d)").series["patient"].nunique() == 4
    lay(tmp_path / "set", "a/0.dcm", "b/1.dcm", "a/2.dcm")
    assert len(select(tmp_path / "set").series) == 3


def test_pictures_of_several_patients_are_told_of_and_counted(tmp_path, caplog):
    lay(tmp_path, *(f"{n % 2}/p{n}_0.png" for n in range(5)))
    (tmp_path / "0" / "p7_0.png").write_bytes((tmp_path / "0" / "p0_0.png").read_bytes())
    with caplog.at_level(logging.INFO):
        cohort = select(tmp_path, patient_pattern=r"(p\d)_")
    assert story(cohort)["one copy of what several patients have"] == 5
    assert "1 pictures lie under several patients, 2 in all" in caplog.text


def test_a_hugging_face_row_without_a_patient_is_an_error(tmp_path):
    datasets = pytest.importorskip("datasets")
    features = datasets.Features(
        {"image": datasets.Image(), "label": datasets.Value("string"), "who": datasets.Value("string")}
    )
    for who, message in (
        (["1", None, "3"], "row 1 has no value in the column 'who'"),
        (["A", "a", "b"], "«A» and «a»"),
    ):
        images = [{"bytes": who_is.encode() if who_is else b"x", "path": "x.png"} for who_is in who]
        rows = {"image": images, "label": ["x", "y", "x"], "who": who}
        path = tmp_path / f"{who[0]}.parquet"
        datasets.Dataset.from_dict(rows, features=features).to_parquet(path)
        config = HuggingFaceCohortConfig(dataset=str(path), cache=tmp_path / "cache", patient_column="who")
        with pytest.raises(LungsynthError, match=message):
            select_huggingface(config, SPLITS)
