"""Which evidence decides about a slice."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from volumes import axial_volume

from lungsynth.cohort.cohort import SLICE_LABEL_COLUMNS, no_slice_labels
from lungsynth.dataset.rejection import Reason, SeriesRejected
from lungsynth.dicom.read import Volume
from lungsynth.slicing import slice_labels
from lungsynth.slicing.lesions import Lesion, LesionSeg
from lungsynth.slicing.series import SeriesJob
from lungsynth.slicing.slice_labels import SliceLabels, label_slices

CLASSES = ("non-cancer", "cancer")
VOLUME = axial_volume(np.zeros((10, 4, 4), np.int16), instance_numbers=(10, 9, 8, 7, 6, 5, 4, 3, 3, None))


def table(*rows: tuple[str | None, int | None, str, str]) -> pd.DataFrame:
    """Rows of (SOP Instance UID, instance number, label, evidence)."""
    return pd.DataFrame([("1.2.3", *row, None) for row in rows], columns=list(SLICE_LABEL_COLUMNS)).astype(
        SLICE_LABEL_COLUMNS
    )


@pytest.fixture
def label(tmp_path, monkeypatch):
    """Labels the slices of `VOLUME`: files named after slices stand for segmentations, `bad` for a corrupt one."""

    def read(volume: Volume, path: Path) -> LesionSeg:
        if path.stem == "bad":
            raise SeriesRejected(Reason.NO_LESION_EVIDENCE, "bad: EOFError")
        return LesionSeg(tuple(Lesion(int(index), 0, 0, 1, 1, 1, 1) for index in path.stem.split("-")), ())

    monkeypatch.setattr(slice_labels, "find_lesions", read)

    def run(
        patient: str,
        evidence: str,
        *segmentations: str,
        rows: pd.DataFrame | None = None,
        others: str = "drop",
        margin: float = 10,
    ) -> SliceLabels:
        for name in segmentations:
            (tmp_path / name).mkdir()
            (tmp_path / name / f"{name}.dcm").touch()
        folders = tuple(tmp_path / name for name in segmentations)
        rows = no_slice_labels() if rows is None else rows
        job = SeriesJob("1.2.3", "key", patient, evidence, "train", "", tmp_path, folders, (), None, rows)
        return label_slices(VOLUME, job, CLASSES, other_slices_of_cancer=others, lesion_margin_mm=margin)

    return run


def short(found: SliceLabels) -> str:
    return "".join({"cancer": "C", "non-cancer": "n", None: "."}[name] for name in found.labels)


def test_a_segmentation_marks_its_own_slices_only(label):
    found = label("cancer", "lesion_seg", "3-4", "4-7")
    assert short(found) == "...CC..C.."
    assert found.evidence == ["lesion_seg" if name else None for name in found.labels]


def test_other_slices_count_if_the_configuration_says_so(label):
    found = label("cancer", "lesion_seg", "3-4", others="non_cancer", margin=10)
    assert short(found) == "nn.CC.nnnn"  # slices are 5 mm apart
    assert set(found.evidence) == {"lesion_seg", None}
    assert short(label("cancer", "lesion_seg", "5", others="non_cancer", margin=0)) == "nnnnnCnnnn"
    # A segmentation that cannot be read may mark any slice.
    assert short(label("cancer", "lesion_seg", "8", "bad", others="non_cancer")) == "........C."


def test_a_patient_without_cancer_has_no_cancer_anywhere(label):
    found = label("non-cancer", "clinical")
    assert short(found) == "n" * 10
    assert set(found.evidence) == {"clinical"}
    benign = label("non-cancer", "clinical", "2")
    assert short(benign) == "n" * 10
    assert [lesion.index for lesion in benign.lesions] == [2]


def test_slice_labels_decide_where_no_segmentation_does(label):
    rows = table(
        ("1.0", None, "cancer", "slice_labels"),
        ("1.3", None, "non-cancer", "slice_labels"),
        ("1.4", None, "non-cancer", "slice_labels"),
        (None, 6, "cancer", "clinical"),  # slice 4 again: the better evidence
        ("1.5", None, "unlabelled", "slice_labels"),
    )
    found = label("cancer", "lesion_seg", "3", rows=rows)
    assert short(found) == "C..CC....."
    assert [found.evidence[z] for z in (0, 3, 4, 5)] == ["slice_labels", "lesion_seg", "clinical", None]
    assert found.notes == ()


def test_labels_of_single_slices_say_nothing_of_others(label):
    rows = table(("1.2", None, "non-cancer", "slice_labels"))
    assert short(label("non-cancer", "slice_labels", rows=rows)) == "..n......."


@pytest.mark.parametrize(("number", "why"), [(87, "not there"), (3, "of two slices")])
def test_an_instance_number_that_names_no_single_slice_is_void(label, number, why):
    rows = table((None, 8, "cancer", "clinical"), (None, number, "cancer", "clinical"))
    found = label("cancer", "clinical", rows=rows)
    assert short(found) == "..C.......", why
    assert found.notes == (f"1 slice labels are void: no single slice has instance number {number}",)


def test_cancer_without_evidence_is_rejected_with_what_was_wrong(label):
    for segmentations, rows, detail in (
        ((), None, "0 lesion segmentations mark no slice"),
        (("bad",), None, "lesion segmentation bad: EOFError"),
        ((), table(("9.9", None, "cancer", "slice_labels")), "no single slice has SOP instance 9.9"),
    ):
        with pytest.raises(SeriesRejected, match=detail) as caught:
            label("cancer", "lesion_seg", *segmentations, rows=rows)
        assert caught.value.reason is Reason.NO_LESION_EVIDENCE


def test_an_unusable_segmentation_is_noted_and_other_evidence_used(label):
    found = label("cancer", "lesion_seg", "bad", rows=table((None, 10, "cancer", "clinical")))
    assert short(found) == "C........."
    assert found.notes == ("lesion segmentation bad: EOFError",)
