"""Lesions from DICOM SEG: in which slices they are, and where."""

import dataclasses
from pathlib import Path

import highdicom as hd
import numpy as np
import pydicom
import pytest
from pydicom.sr.codedict import codes
from pydicom.sr.coding import Code
from pydicom.uid import RLELossless, generate_uid

from lungsynth.dataset.rejection import Reason, SeriesRejected
from lungsynth.dicom.read import read_series
from lungsynth.slicing.lesion_codes import is_lesion, named
from lungsynth.slicing.lesions import find_lesions

QIN = "821ab8ed-73e4-480c-8073-8ed671e601d6"
STORED = np.full((10, 8, 8), 1000, dtype=np.uint16)
STORED[:, 4:] = 200  # air beside tissue, or nobody would take it for HU
LESION = codes.SCT.MorphologicallyAbnormalStructure, codes.SCT.Nodule
LUNG = codes.SCT.AnatomicalStructure, codes.SCT.Lung


def complete(z: int, ct: pydicom.Dataset) -> None:
    """What highdicom wants of a source image."""
    ct.PatientID, ct.PatientName, ct.PatientBirthDate, ct.PatientSex = "1", "", "", ""
    ct.StudyInstanceUID, ct.StudyID, ct.StudyDate, ct.StudyTime = "1.2.3", "", "", ""
    ct.AccessionNumber, ct.ReferringPhysicianName, ct.InstanceNumber = "", "", z + 1


@pytest.fixture
def series(write_ct) -> Path:
    return write_ct(STORED, complete)


def write_seg(
    path: Path,
    series: Path,
    masks: list[np.ndarray],
    kinds: list[tuple] | None = None,
    change=None,
    label: str = "segment",
    **options: object,
) -> Path:
    """A SEG with one segment for each mask (bool or fractions, Z×Y×X), as highdicom writes it."""
    images = sorted(map(pydicom.dcmread, series.iterdir()), key=lambda ct: ct.ImagePositionPatient[2])
    segments = [
        hd.seg.SegmentDescription(number, label, category, kind, hd.seg.SegmentAlgorithmTypeValues.MANUAL)
        for number, (category, kind) in enumerate(kinds or [LESION] * len(masks), start=1)
    ]
    pixels = np.stack(masks, axis=-1)
    fractional = pixels.dtype != bool
    seg = hd.seg.Segmentation(
        source_images=images,
        pixel_array=pixels if fractional else pixels.astype(np.uint8),
        segmentation_type=options.pop("kind", "FRACTIONAL" if fractional else "BINARY"),
        segment_descriptions=segments,
        series_instance_uid=generate_uid(),
        series_number=2,
        sop_instance_uid=generate_uid(),
        instance_number=1,
        manufacturer="test",
        manufacturer_model_name="test",
        software_versions="1",
        device_serial_number="1",
        omit_empty_frames=False,
        **options,
    )
    if change:
        change(seg)
    path.parent.mkdir(exist_ok=True)
    seg.save_as(path)
    return path


def mask(*slices: int) -> np.ndarray:
    """A mask of one odd pixel on each of these slices."""
    array = np.zeros(STORED.shape, dtype=bool)
    array[list(slices), 3, 5] = True
    return array


def marked(series: Path, path: Path) -> list[int]:
    return sorted(lesion.index for lesion in find_lesions(read_series(series), path).lesions)


def list_all_sources(seg):
    """What some writers do: every frame lists the whole series."""
    frames = seg.PerFrameFunctionalGroupsSequence
    sources = [frame.DerivationImageSequence[0].SourceImageSequence[0] for frame in frames]
    for frame in frames:
        frame.DerivationImageSequence[0].SourceImageSequence = sources


def forget_sources(seg):
    for frame in seg.PerFrameFunctionalGroupsSequence:
        del frame.DerivationImageSequence


@pytest.mark.parametrize("change", [None, list_all_sources, forget_sources])
def test_frames_are_matched_by_source_image_or_by_plane(series, tmp_path, change):
    path = write_seg(tmp_path / "seg" / "1.dcm", series, [mask(2, 3), mask(7)], change=change)
    assert marked(series, path) == [2, 3, 7]


def test_source_image_outweighs_the_plane(series, tmp_path):
    def misplace(seg):
        for frame in seg.PerFrameFunctionalGroupsSequence:
            frame.PlanePositionSequence[0].ImagePositionPatient = [0, 0, 9999]

    assert marked(series, write_seg(tmp_path / "seg" / "1.dcm", series, [mask(2)], change=misplace)) == [2]


@pytest.mark.parametrize(("shift_mm", "expected"), [(2.4, [2]), (-2.4, [2]), (2.6, [3]), (-40.0, [])])
def test_a_plane_belongs_to_the_nearest_slice_within_half_a_spacing(series, tmp_path, shift_mm, expected):
    def shift(seg):
        forget_sources(seg)
        for frame in seg.PerFrameFunctionalGroupsSequence:
            frame.PlanePositionSequence[0].ImagePositionPatient[2] += shift_mm

    assert marked(series, write_seg(tmp_path / "seg" / "1.dcm", series, [mask(2)], change=shift)) == expected


def test_fractions_count_from_one_half_and_lungs_are_no_lesion(series, tmp_path):
    faint = mask(1) * 0.2 + mask(4) * 0.9
    assert marked(series, write_seg(tmp_path / "a" / "1.dcm", series, [faint])) == [4]
    both = write_seg(tmp_path / "b" / "1.dcm", series, [mask(*range(10)), mask(6)], [LUNG, LESION])
    assert marked(series, both) == [6]


def test_a_segmentation_that_cannot_be_placed_or_read_is_refused(series, tmp_path):
    def elsewhere(seg):
        forget_sources(seg)
        seg.FrameOfReferenceUID = "1.2.3"

    def coronal(seg):
        forget_sources(seg)
        seg.SharedFunctionalGroupsSequence[0].PlaneOrientationSequence[0].ImageOrientationPatient = [1, 0, 0, 0, 0, -1]

    paths = [
        write_seg(tmp_path / "seg" / f"{i}.dcm", series, [mask(2)], change=c)
        for i, c in enumerate((elsewhere, coronal))
    ]
    cut = tmp_path / "seg" / "cut.dcm"
    cut.write_bytes(paths[0].read_bytes()[:-50])
    for path in (*paths, cut):
        with pytest.raises(SeriesRejected) as caught:
            find_lesions(read_series(series), path)
        assert caught.value.reason is Reason.NO_LESION_EVIDENCE


def test_places_are_those_of_the_pixels(series, tmp_path):
    two = np.zeros(STORED.shape, dtype=bool)
    two[4, 1:3, 2:7] = two[4, 6, 1] = True
    boxes = sorted(
        (lesion.top, lesion.left, lesion.bottom, lesion.right, lesion.area_px)
        for lesion in find_lesions(read_series(series), write_seg(tmp_path / "seg" / "1.dcm", series, [two])).lesions
    )
    assert np.allclose(boxes, [(1, 2, 3, 7, 10), (6, 1, 7, 2, 1)], atol=1e-4)


@pytest.mark.parametrize("orientation", [[-1, 0, 0, 0, -1, 0], [0, 1, 0, 1, 0, 0], [0, 1, 0, -1, 0, 0]])
def test_places_follow_the_volume_into_the_axial_view(write_ct, tmp_path, orientation):
    """The lesion is the one bright pixel, whichever way the scan's axes run."""

    def turn(z, ct):
        complete(z, ct)
        ct.ImageOrientationPatient = orientation

    stored = STORED.copy()
    stored[6, 1, 5] = 3000
    series = write_ct(stored, turn, spacing_mm=(2.0, 3.0))
    lesion = np.zeros(STORED.shape, dtype=bool)
    lesion[6, 1, 5] = True
    volume = read_series(series)
    seg = write_seg(tmp_path / "seg" / "1.dcm", series, [lesion], change=None)
    [found] = find_lesions(volume, seg).lesions
    bright = np.argwhere(volume.hu == 1976)[0]
    assert (found.index, *found.centre) == pytest.approx((bright[0], bright[1] + 0.5, bright[2] + 0.5), abs=1e-3)


def test_a_segmentation_of_half_the_resolution_is_scaled(series, tmp_path):
    """Two by two pixels of the scan are one of this file: row 1 and column 2 are rows 2 to 4, columns 4 to 6."""
    lesion = np.zeros(STORED.shape, dtype=bool)
    lesion[3, 1, 2] = True

    def coarsen(seg):
        forget_sources(seg)
        seg.SharedFunctionalGroupsSequence[0].PixelMeasuresSequence[0].PixelSpacing = [5.0, 5.0]
        for frame in seg.PerFrameFunctionalGroupsSequence:
            position = frame.PlanePositionSequence[0].ImagePositionPatient
            frame.PlanePositionSequence[0].ImagePositionPatient = [position[0] + 1.25, position[1] + 1.25, position[2]]

    [found] = find_lesions(
        read_series(series), write_seg(tmp_path / "s" / "1.dcm", series, [lesion], change=coarsen)
    ).lesions
    box = (found.index, found.top, found.left, found.bottom, found.right, found.area_px)
    assert box == pytest.approx((3, 2, 4, 4, 6, 4), abs=1e-4)


def test_frames_of_a_multi_frame_image_are_matched_by_number(series, tmp_path):
    volume = read_series(series)
    numbered = dataclasses.replace(volume, sop_uids=tuple(f"1.2.3#{z + 1}" for z in range(len(volume.sop_uids))))

    def name_frame(seg):
        for frame in seg.PerFrameFunctionalGroupsSequence:
            source = frame.DerivationImageSequence[0].SourceImageSequence[0]
            source.ReferencedSOPInstanceUID, source.ReferencedFrameNumber = "1.2.3", 9
            frame.PlanePositionSequence[0].ImagePositionPatient = [0, 0, 9999]

    path = write_seg(tmp_path / "seg" / "1.dcm", series, [mask(2)], change=name_frame)
    assert {lesion.index for lesion in find_lesions(numbered, path).lesions} == {8}


def test_real_lesion_lies_where_its_tissue_is(mirror, mirror_series):
    """Its frames name no source image; a shared functional group lists all of them."""
    seg = next((mirror / "idc-open-data" / QIN).iterdir())
    uid = pydicom.dcmread(seg, stop_before_pixels=True).ReferencedSeriesSequence[0].SeriesInstanceUID
    volume = read_series(mirror_series[uid])
    lesions = find_lesions(volume, seg).lesions
    assert len({lesion.index for lesion in lesions}) == 11
    largest = max(lesions, key=lambda lesion: lesion.area_px)
    row, column = map(int, largest.centre)
    assert volume.hu[largest.index, row - 3 : row + 4, column - 3 : column + 4].mean() > -100
    assert 20 < (largest.right - largest.left) * volume.spacing_mm[1] < 60


def test_diameter_is_the_longest_across_the_largest_part_of_a_frame(write_ct, tmp_path):
    series = write_ct(np.tile(STORED, (1, 4, 4)), complete, spacing_mm=(0.5, 2.0))
    array = np.zeros((10, 32, 32), dtype=bool)
    array[2, 4:28, 7] = True  # 24 pixels of 0.5 mm
    array[2, 10, 20:24] = True  # 4 of 2 mm, across
    rows, columns = np.mgrid[:32, :32]
    array[5] = np.hypot(0.5 * (rows - 16), 2.0 * (columns - 16)) < 7.6
    found = find_lesions(read_series(series), write_seg(tmp_path / "seg" / "1.dcm", series, [array])).lesions
    diameters = {index: [one.diameter_mm for one in found if one.index == index] for index in (2, 5)}
    assert sorted(diameters[2]) == pytest.approx([8.0, 12.0], rel=0.01)
    assert diameters[5] == pytest.approx([15.2], abs=2.0)  # a pixel


TABLE = codes.SCT.PhysicalObject, Code("86407004", "SCT", "Table")
BODY = codes.SCT.SpatialAndRelationalConcept, Code("123037004", "SCT", "Body")
AIR = codes.SCT.BodySubstance, Code("15158005", "SCT", "Air")
EFFUSION = codes.SCT.MorphologicallyAbnormalStructure, codes.SCT.PleuralEffusion
STRANGER = Code("1", "99LOCAL", "=cmd|\r\nDOE^JOHN" + "x" * 40), Code("2", "99LOCAL", "DOE^JOHN")


@pytest.mark.parametrize("other", [TABLE, BODY, AIR, EFFUSION, LUNG, STRANGER, (TABLE[0], Code("x", "SCT", "Pump"))])
def test_what_is_no_lesion_is_left_out_and_told(series, tmp_path, other):
    both = write_seg(tmp_path / "a" / "1.dcm", series, [mask(*range(10)), mask(6)], [other, LESION])
    found = find_lesions(read_series(series), both)
    assert {lesion.index for lesion in found.lesions} == {6}
    assert "1.dcm: segments that are no lesions left out: 1 " in found.notes[0]
    alone = write_seg(tmp_path / "b" / "1.dcm", series, [mask(2)], [other])
    with pytest.raises(SeriesRejected, match="none of its segments is a lesion, by their codes: 1 ") as caught:
        find_lesions(read_series(series), alone)
    assert caught.value.reason is Reason.NO_LESION_EVIDENCE
    assert all("DOE" not in text and text.isprintable() for text in (caught.value.detail, *found.notes))


@pytest.mark.parametrize(
    ("category", "kind", "label"),
    [
        (("M-01000", "SRT"), ("M-03000", "SRT", "Mass"), ""),  # QIN-LSC
        (("M-01000", "SRT"), ("M-80003", "SRT", "Neoplasm, Primary"), ""),  # NSCLC-Radiomics
        (("M-01000", "SNM3"), ("M-03010", "SNM3", "Nodule"), ""),  # LIDC, and the scheme's older name
        (("85756007", "SCT"), ("27925004", "SCT", "Nodule"), ""),  # filed under tissue
        (("123037004", "SCT"), ("108369006", "SCT", "Neoplasm"), ""),  # under body structure
        (("91723000", "SCT"), ("427359005", "SCT", "Solitary nodule of lung"), ""),
        (("309825002", "SCT"), ("130052", "DCM", "GTV Primary"), ""),
        (("85756007", "SCT"), ("85756007", "SCT", "Tissue"), "Tumor_1"),  # 3D Slicer, where nobody chose a code
        (("49755003", "SCT"), ("7", "99ABC", "Spiculated"), ""),  # abnormal, and unknown of what kind
        (("T-D0050", "SRT"), ("7", "99ABC", "Pulmonary nodule"), ""),
    ],
)
def test_lesions_count_however_they_are_filed(category, kind, label):
    segment, items = pydicom.Dataset(), []
    for code in ((*category, "anything"), kind):
        item = pydicom.Dataset()
        item.CodeValue, item.CodingSchemeDesignator, item.CodeMeaning = code
        items.append(item)
    segment.SegmentedPropertyCategoryCodeSequence, segment.SegmentedPropertyTypeCodeSequence = items[:1], items[1:]
    segment.SegmentLabel = label
    assert is_lesion(segment)
    items[1].CodeValue, items[1].CodeMeaning, items[0].CodeValue = "3", "Lung vessels, not tumor", "4"
    segment.SegmentLabel = "tumor vessels"
    assert not is_lesion(segment)


def test_segments_without_codes_are_told_by_their_label():
    segment = pydicom.Dataset()
    segment.SegmentLabel = "GTV-1"
    assert is_lesion(segment)
    segment.SegmentLabel = "Lung without tumour"
    assert not is_lesion(segment)
    assert named([segment]) == "1 without a known category"


@pytest.mark.parametrize("options", [{}, {"transfer_syntax_uid": RLELossless}])
def test_label_maps_are_read(series, tmp_path, options):
    """One number a pixel, no segment named with the frame: two nodules and a lung in the same slices."""
    masks = [mask(*range(10)), mask(2, 3), mask(3)]
    masks[0][:, 5], masks[2][:, 3, 5], masks[2][3, 6, 2] = True, False, True
    masks[0] &= ~(masks[1] | masks[2])
    path = write_seg(tmp_path / "1.dcm", series, masks, [LUNG, LESION, LESION], kind="LABELMAP", **options)
    seg = pydicom.dcmread(path)
    assert (seg.SegmentationType, seg.SOPClassUID) == ("LABELMAP", "1.2.840.10008.5.1.4.1.1.66.7")
    assert "SegmentIdentificationSequence" not in seg.PerFrameFunctionalGroupsSequence[0]
    found = find_lesions(read_series(series), path).lesions
    assert sorted((one.index, one.top, one.left) for one in found) == [
        pytest.approx(place, abs=1e-4) for place in [(2, 3, 5), (3, 3, 5), (3, 6, 2)]
    ]
