"""Multi-frame CT: legacy converted by highdicom, and enhanced with its attributes in functional groups."""

import copy
from pathlib import Path

import numpy as np
import pydicom
import pytest
from highdicom.legacy import LegacyConvertedEnhancedCTImage
from pydicom import Dataset
from pydicom.uid import EnhancedCTImageStorage, ExplicitVRLittleEndian, RLELossless, generate_uid

from lungsynth.dataset.rejection import Reason, SeriesRejected
from lungsynth.dicom.read import read_series

STORED = np.random.default_rng(1).integers(0, 2000, size=(8, 12, 20), dtype=np.uint16)


@pytest.fixture
def enhanced(write_ct) -> Dataset:
    """An Enhanced CT Image with position and rescale by frame, the rest shared; frames run from head to feet."""
    single = [pydicom.dcmread(path) for path in write_ct(STORED).iterdir()]
    single.sort(key=lambda source: -source.ImagePositionPatient[2])
    ct = copy.deepcopy(single[0])
    for keyword in ("ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing", "SliceThickness"):
        delattr(ct, keyword)
    for keyword in ("RescaleSlope", "RescaleIntercept", "RescaleType"):
        delattr(ct, keyword)
    ct.SOPClassUID, ct.NumberOfFrames = EnhancedCTImageStorage, len(STORED)
    shared, measures, orientation = Dataset(), Dataset(), Dataset()
    measures.PixelSpacing, measures.SliceThickness = [0.7, 0.8], 5
    orientation.ImageOrientationPatient = [1, 0, 0, 0, 1, 0]
    shared.PixelMeasuresSequence, shared.PlaneOrientationSequence = [measures], [orientation]
    ct.SharedFunctionalGroupsSequence = [shared]
    ct.PerFrameFunctionalGroupsSequence = []
    for number, source in enumerate(single):
        frame, position, rescale, kind = Dataset(), Dataset(), Dataset(), Dataset()
        position.ImagePositionPatient = source.ImagePositionPatient
        rescale.RescaleSlope, rescale.RescaleIntercept, rescale.RescaleType = 1, -1024 + number, "HU"
        kind.FrameType = ["ORIGINAL", "PRIMARY", "VOLUME", "NONE"]
        frame.PlanePositionSequence, frame.PixelValueTransformationSequence = [position], [rescale]
        frame.CTImageFrameTypeSequence = [kind]
        ct.PerFrameFunctionalGroupsSequence.append(frame)
    ct.PixelData = b"".join(source.PixelData for source in single)
    return ct


HU = np.maximum(STORED.astype(int) - 1024 + np.arange(len(STORED))[::-1, None, None], -1024)


def write(path: Path, ct: Dataset) -> Path:
    path.parent.mkdir(exist_ok=True)
    ct.save_as(path, enforce_file_format=True)
    return path.parent


@pytest.mark.parametrize("syntax", [ExplicitVRLittleEndian, RLELossless], ids=lambda uid: uid.keyword)
def test_functional_groups(tmp_path, enhanced, syntax):
    ct = enhanced
    if syntax != ExplicitVRLittleEndian:
        ct.compress(syntax)
    volume = read_series(write(tmp_path / "series" / "ct.dcm", ct))
    assert np.array_equal(volume.hu, HU)
    assert np.allclose(volume.positions_mm, -200 + 5 * np.arange(8))
    assert (volume.spacing_mm, volume.thickness_mm) == ((0.7, 0.8), 5)
    assert volume.sop_uids == tuple(f"{ct.SOPInstanceUID}#{number}" for number in range(8, 0, -1))
    assert volume.instance_numbers == (None,) * 8


def test_legacy_converted_by_highdicom(write_ct):
    folder = write_ct(STORED)
    sources = [pydicom.dcmread(path) for path in folder.iterdir()]
    for source in sources:
        source.StudyInstanceUID, source.StudyID, source.StudyDate, source.StudyTime = "1.2.3", "1", "20000102", "120000"
        source.PatientID = source.PatientName = source.PatientBirthDate = source.PatientSex = source.AccessionNumber = (
            ""
        )
        source.ReferringPhysicianName, source.SeriesNumber = "", 1
        source.AcquisitionDate, source.AcquisitionTime = "20000102", "120000"
    single = read_series(folder)
    converted = LegacyConvertedEnhancedCTImage(sources, generate_uid(), 2, generate_uid(), 1)
    volume = read_series(write(folder.with_name("converted") / "ct.dcm", converted))
    assert np.array_equal(volume.hu, single.hu)
    assert np.allclose(volume.positions_mm, single.positions_mm)
    assert (volume.spacing_mm, volume.thickness_mm) == (single.spacing_mm, single.thickness_mm)
    assert volume.instance_numbers == single.instance_numbers


def test_concatenation_is_read_whole_or_not_at_all(tmp_path, enhanced):
    ct = enhanced
    size = len(ct.PixelData) // 8
    for part in range(2):
        half = copy.deepcopy(ct)
        half.SOPInstanceUID, half.NumberOfFrames = generate_uid(), 4
        half.InConcatenationNumber, half.InConcatenationTotalNumber = part + 1, 2
        half.PerFrameFunctionalGroupsSequence = ct.PerFrameFunctionalGroupsSequence[4 * part : 4 * part + 4]
        half.PixelData = ct.PixelData[4 * part * size : (4 * part + 4) * size]
        folder = write(tmp_path / "series" / f"{1 - part}.dcm", half)
    assert np.array_equal(read_series(folder).hu, HU)
    (folder / "0.dcm").unlink()
    assert rejected(folder) is Reason.MISSING_SLICES


def rejected(folder: Path) -> Reason:
    with pytest.raises(SeriesRejected) as caught:
        read_series(folder)
    return caught.value.reason


def no_groups(ct):
    del ct.PerFrameFunctionalGroupsSequence


def no_orientation(ct):
    del ct.SharedFunctionalGroupsSequence


def one_group_less(ct):
    ct.PerFrameFunctionalGroupsSequence.pop()


def one_row_less(ct):
    ct.PixelData = ct.PixelData[:-40]


def no_rescale(ct):
    del ct.PerFrameFunctionalGroupsSequence[2].PixelValueTransformationSequence


def over_time(ct):
    for frame in ct.PerFrameFunctionalGroupsSequence:
        frame.PlanePositionSequence[0].ImagePositionPatient = [0, 0, 0]


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (no_groups, Reason.NO_GEOMETRY),
        (no_orientation, Reason.NO_GEOMETRY),
        (one_group_less, Reason.UNREADABLE),
        (one_row_less, Reason.UNREADABLE),
        (no_rescale, Reason.NOT_HU),
        (over_time, Reason.DUPLICATE_POSITIONS),
    ],
)
def test_what_does_not_fit_together(tmp_path, enhanced, change, reason):
    change(enhanced)
    assert rejected(write(tmp_path / "series" / "ct.dcm", enhanced)) is reason


def test_localizer_frames_are_left_out_and_noted(tmp_path, enhanced):
    kind = enhanced.PerFrameFunctionalGroupsSequence[0].CTImageFrameTypeSequence[0]
    kind.FrameType = ["ORIGINAL", "PRIMARY", "LOCALIZER", "NONE"]
    volume = read_series(write(tmp_path / "series" / "ct.dcm", enhanced))
    assert np.array_equal(volume.hu, HU[:-1])
    assert volume.notes == ("1 localizers left out",)
