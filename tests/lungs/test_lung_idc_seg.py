"""Published lung masks: DICOM SEG as highdicom writes it, in the forms that archives hold."""

from collections.abc import Callable
from pathlib import Path

import highdicom as hd
import numpy as np
import pydicom
import pytest
from pydicom.sr.codedict import codes
from pydicom.sr.coding import Code
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    RLELossless,
    generate_uid,
)

from lungsynth.dataset.rejection import Reason, SeriesRejected
from lungsynth.dicom.read import Volume, read_series
from lungsynth.lungs.idc_seg import is_lung, lungs

UPPER_LEFT = ("lung_upper_lobe_left", Code("45653009", "SCT", "Upper lobe of lung"))
LOWER_RIGHT = ("lung_lower_lobe_right", Code("1", "99LOCAL", "Lower right"))  # told by its label alone
HEART = ("heart", Code("80891009", "SCT", "Heart"))
NODULE = ("Lung nodule", codes.SCT.Nodule)
SHAPE = (8, 33, 35)
"""An odd number of pixels, so that frames begin amid a byte."""


@pytest.fixture
def ct(write_ct) -> Path:
    stored = np.random.default_rng(0).integers(0, 1500, SHAPE).astype(np.uint16)
    return write_ct(stored)


@pytest.fixture
def masks() -> np.ndarray:
    """bool 4×Z×Y×X: what belongs to each of the four segments in the CT's view."""
    masks = np.random.default_rng(1).random((4, *SHAPE)) < 0.3
    masks[:, 0] = False  # empty frames are left out of the file
    return masks


def write_seg(ct: Path, masks: np.ndarray, folder: Path, change: Callable[[pydicom.Dataset], None] = id) -> Path:
    images = sorted(map(pydicom.dcmread, ct.iterdir()), key=lambda image: float(image.ImagePositionPatient[2]))
    for image in images:
        image.PatientID = image.PatientName = image.StudyID = image.AccessionNumber = ""
        image.StudyInstanceUID = images[0].get("StudyInstanceUID") or generate_uid()
        image.PatientBirthDate = image.PatientSex = image.StudyDate = image.StudyTime = image.ReferringPhysicianName = (
            ""
        )
        image.SeriesNumber = image.InstanceNumber = 1
    segments = [
        hd.seg.SegmentDescription(
            segment_number=number,
            segment_label=label,
            segmented_property_category=codes.SCT.Organ,
            segmented_property_type=code,
            algorithm_type=hd.seg.SegmentAlgorithmTypeValues.MANUAL,
        )
        for number, (label, code) in enumerate((UPPER_LEFT, HEART, LOWER_RIGHT, NODULE), 1)
    ]
    seg = hd.seg.Segmentation(
        source_images=images,
        pixel_array=np.moveaxis(masks, 0, -1).astype(np.uint8),
        segmentation_type=hd.seg.SegmentationTypeValues.BINARY,
        segment_descriptions=segments,
        series_instance_uid=generate_uid(),
        series_number=2,
        sop_instance_uid=generate_uid(),
        instance_number=1,
        manufacturer="test",
        manufacturer_model_name="test",
        software_versions="1",
        device_serial_number="1",
    )
    change(seg)
    folder.mkdir()
    seg.save_as(folder / "seg.dcm")
    return folder


def label_map(seg: pydicom.Dataset, bits: int = 8, syntax: str = ExplicitVRLittleEndian) -> None:
    """The same segments as numbers in one frame a slice; where two overlap, as only they can, the first is seen."""
    frames, seen = {}, {}
    for frame, pixels in zip(seg.PerFrameFunctionalGroupsSequence, seg.pixel_array, strict=True):
        place = float(frame.PlanePositionSequence[0].ImagePositionPatient[2])
        number = frame.SegmentIdentificationSequence[0].ReferencedSegmentNumber
        shown = seen.setdefault(place, np.zeros(pixels.shape, f"<u{bits // 8}"))
        shown[(shown == 0) & (pixels > 0)] = number
        del frame.SegmentIdentificationSequence
        frames[place] = frame
    seg.SOPClassUID = "1.2.840.10008.5.1.4.1.1.66.7"
    seg.SegmentationType = "LABELMAP"
    seg.PerFrameFunctionalGroupsSequence = list(frames.values())
    seg.NumberOfFrames = len(frames)
    seg.BitsAllocated, seg.BitsStored, seg.HighBit = bits, bits, bits - 1
    seg.PixelData = b"".join(seen[place].tobytes() for place in frames)
    seg["PixelData"].VR = "OW" if bits == 16 else "OB"
    if syntax == RLELossless:
        seg.compress(RLELossless, encoding_plugin="pydicom")


@pytest.mark.parametrize(
    ("bits", "syntax"), [(8, ExplicitVRLittleEndian), (16, ExplicitVRLittleEndian), (8, RLELossless)]
)
def test_label_maps_are_read(ct, masks, tmp_path, bits, syntax):
    masks[0, 2], masks[2, 2] = False, False  # a slice without lung
    masks[1:] &= ~masks[0]  # one number a pixel
    masks[2:] &= ~masks[1]
    volume = read_series(ct)
    folder = write_seg(ct, masks, tmp_path / "seg", lambda seg: label_map(seg, bits, syntax))
    assert np.array_equal(lungs(volume, [folder]).pixels(volume.hu.shape), masks[0] | masks[2])


def without_source_images(seg: pydicom.Dataset) -> None:
    for frame in seg.PerFrameFunctionalGroupsSequence:
        del frame.DerivationImageSequence


def deflated(seg: pydicom.Dataset) -> None:
    seg.file_meta.TransferSyntaxUID = DeflatedExplicitVRLittleEndian


def implicit(seg: pydicom.Dataset) -> None:
    seg.file_meta.TransferSyntaxUID = ImplicitVRLittleEndian


@pytest.mark.parametrize("change", [id, without_source_images, deflated, implicit])
def test_lobes_are_joined_and_nothing_else(ct, masks, tmp_path, change):
    volume = read_series(ct)
    found = lungs(volume, [write_seg(ct, masks, tmp_path / "seg", change)])
    assert np.array_equal(found.pixels(volume.hu.shape), masks[0] | masks[2])


def test_a_series_in_another_view_has_its_mask_in_that_view(write_ct, masks, tmp_path):
    """Columns run to the patient's right, rows to the front, as some scanners store them: the volume is turned."""

    def turn(z: int, ct: pydicom.Dataset) -> None:
        ct.ImageOrientationPatient = [-1, 0, 0, 0, -1, 0]

    ct = write_ct(np.random.default_rng(0).integers(0, 1500, SHAPE).astype(np.uint16), turn)
    volume = read_series(ct)
    for name, change in (("named", id), ("placed", without_source_images)):
        found = lungs(volume, [write_seg(ct, masks, tmp_path / name, change)])
        assert np.array_equal(found.pixels(volume.hu.shape), (masks[0] | masks[2])[:, ::-1, ::-1])


def other_series(seg: pydicom.Dataset) -> None:
    seg.ReferencedSeriesSequence[0].SeriesInstanceUID = generate_uid()


def other_frame_of_reference(seg: pydicom.Dataset) -> None:
    without_source_images(seg)
    seg.FrameOfReferenceUID = generate_uid()


def other_pixels(seg: pydicom.Dataset) -> None:
    seg.SharedFunctionalGroupsSequence[0].PixelMeasuresSequence[0].PixelSpacing = [1, 1]


def fractional(seg: pydicom.Dataset) -> None:
    seg.SegmentationType = "FRACTIONAL"


def cut_short(seg: pydicom.Dataset) -> None:
    seg.PixelData = seg.PixelData[: len(seg.PixelData) // 4 * 2]


@pytest.mark.parametrize(
    ("change", "detail"),
    [
        (other_series, "1 segmentations have no frame of this series' lungs"),
        (other_frame_of_reference, "another frame of reference"),
        (other_pixels, r"pixels of \(1.0, 1.0\) mm"),
        (fractional, "FRACTIONAL is not read"),
        (cut_short, "is cut short"),
    ],
)
def test_what_does_not_belong_or_cannot_be_read_is_refused(ct, masks, tmp_path, change, detail):
    with pytest.raises(SeriesRejected, match=detail) as caught:
        lungs(read_series(ct), [write_seg(ct, masks, tmp_path / "seg", change)])
    assert caught.value.reason is Reason.NO_LUNG_MASK


def test_the_segmentation_of_another_series_is_passed_over(ct, masks, tmp_path):
    volume = read_series(ct)
    mine, other = write_seg(ct, masks, tmp_path / "mine"), write_seg(ct, masks, tmp_path / "other", other_series)
    assert np.array_equal(lungs(volume, [other, mine]).cells, lungs(volume, [mine]).cells)


def test_no_lung_and_no_dicom_are_refused(ct, masks, tmp_path):
    volume: Volume = read_series(ct)
    masks[[0, 2]] = False
    for detail, change in (("no frame of this series' lungs", None), ("seg.dcm: InvalidDicomError", b"no DICOM")):
        folder = write_seg(ct, masks, tmp_path / str(change))
        if change:
            (folder / "seg.dcm").write_bytes(change)
        with pytest.raises(SeriesRejected, match=detail):
            lungs(volume, [folder])


@pytest.mark.parametrize(
    ("label", "scheme", "value", "expected"),
    [
        ("Left Lung", "SRT", "T-28500", True),
        ("Segment 3", "SCT", "39607008", True),
        ("Right middle lobe", "99X", "7", True),
        ("lung_vessels", "99X", "7", False),
        ("Lung tumor", "SCT", "108369006", False),
        ("lung_trachea_bronchia", "99X", "7", False),
        ("temporal lobe", "SCT", "78277001", False),
        ("plunger", "99X", "7", False),
    ],
)
def test_lung_segments_are_told_by_code_or_label(label, scheme, value, expected):
    segment, code = pydicom.Dataset(), pydicom.Dataset()
    code.CodeValue, code.CodingSchemeDesignator = value, scheme
    segment.SegmentLabel, segment.SegmentedPropertyTypeCodeSequence = label, [code]
    assert is_lung(segment) is expected
