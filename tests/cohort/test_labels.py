import logging

import pandas as pd
import pytest
from pydantic import ValidationError

from lungsynth.cohort.labels import LabelConfig, label_by_slices, read_slice_labels
from lungsynth.errors import LungsynthError

HEADER = "collection_id,PatientID,SeriesInstanceUID,SOPInstanceUID,InstanceNumber,label\n"


def write(folder, *rows: str, header: str = HEADER):
    path = folder / "slices.csv"
    path.write_text(header + "".join(f"{row}\n" for row in rows))
    return path


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (["c,p,1.2,1.2.1,1,Cancer"], r"has the label 'Cancer': it must be non-cancer or cancer"),
        (["c,p,1.2,1.2.1,1,"], r"has 1 row\(s\) with an empty cell"),
        (["c,p,1.2,1.2.1,1,cancer", "c,p,1.2,1.2.1,1,non-cancer"], r"names the slice 1\.2\.1 in rows that differ"),
        (["c,p,1.2,1.2.1,1,cancer,more,cells"], r"cannot read the slice labels .*slices\.csv"),
    ],
)
def test_wrong_rows_are_errors(tmp_path, rows, message):
    with pytest.raises(LungsynthError, match=message):
        read_slice_labels(write(tmp_path, "c,p,1.2,1.2.0,0,cancer", *rows))


def test_missing_columns_are_named(tmp_path):
    with pytest.raises(LungsynthError, match=r"lacks the column\(s\) PatientID, label"):
        read_slice_labels(write(tmp_path, header="collection_id,SeriesInstanceUID,SOPInstanceUID\n"))


def test_missing_and_empty_files_are_errors(tmp_path):
    with pytest.raises(LungsynthError, match="cannot read the slice labels"):
        read_slice_labels(tmp_path / "nowhere.csv")
    with pytest.raises(LungsynthError, match="cannot read the slice labels"):
        read_slice_labels(write(tmp_path, header=""))


def test_one_cancer_slice_anywhere_makes_a_cancer_patient(tmp_path, caplog):
    slices = read_slice_labels(
        write(tmp_path, "c,a,1.1,1.1.1,1,non-cancer", "c,a,1.2,1.2.1,1,cancer", "c,b,1.3,1.3.1,1,non-cancer")
    )
    ct = pd.DataFrame({"collection": "c", "patient": ["a", "b", "b"], "series_uid": ["1.1", "1.3", "1.4"]})
    with caplog.at_level(logging.WARNING):
        labelled = label_by_slices(ct, slices)
    assert labelled["label"].tolist() == ["cancer", "non-cancer"]
    assert "1 of 3 selected CT series have no labelled slice" in caplog.text


def test_exactly_one_kind_of_label_is_required():
    with pytest.raises(ValidationError, match="exactly one of slice_csv and lesion_seg"):
        LabelConfig()
    with pytest.raises(ValidationError, match="exactly one of slice_csv and lesion_seg"):
        LabelConfig(slice_csv="a.csv", lesion_seg=["nlstseg"])
