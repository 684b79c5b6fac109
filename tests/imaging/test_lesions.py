"""Slice labels from tables, from lesion segmentations and from the patient's label."""

from pathlib import Path

import highdicom as hd
import numpy as np
import pydicom
import pytest
from pydicom.sr.codedict import codes
from pydicom.uid import generate_uid

from lungsynth.imaging.lesions import lesion_slices, slice_labels
from lungsynth.imaging.read import Reason, SeriesRejected, read_series

QIN = "821ab8ed-73e4-480c-8073-8ed671e601d6"
STORED = np.full((10, 8, 8), 1000, dtype=np.uint16)
LESION = codes.SCT.MorphologicallyAbnormalStructure, codes.SCT.Nodule
LUNG = codes.SCT.AnatomicalStructure, codes.SCT.Lung


@pytest.fixture
def series(write_ct) -> Path:
    def complete(z, ct):
        ct.PatientID, ct.PatientName, ct.PatientBirthDate, ct.PatientSex = "1", "", "", ""
        ct.StudyInstanceUID, ct.StudyID, ct.StudyDate, ct.StudyTime = "1.2.3", "", "", ""
        ct.AccessionNumber, ct.ReferringPhysicianName, ct.InstanceNumber = "", "", z + 1

    return write_ct(STORED, complete)


def write_seg(path: Path, series: Path, masks: list[np.ndarray], kinds: list[tuple] | None = None, change=None) -> Path:
    """A SEG with one segment for each mask (bool or fractions, Z×Y×X), as highdicom writes it."""
    images = sorted(map(pydicom.dcmread, series.iterdir()), key=lambda ct: ct.ImagePositionPatient[2])
    segments = [
        hd.seg.SegmentDescription(number, "segment", category, kind, hd.seg.SegmentAlgorithmTypeValues.MANUAL)
        for number, (category, kind) in enumerate(kinds or [LESION] * len(masks), start=1)
    ]
    pixels = np.stack(masks, axis=-1)
    fractional = pixels.dtype != bool
    seg = hd.seg.Segmentation(
        source_images=images,
        pixel_array=pixels if fractional else pixels.astype(np.uint8),
        segmentation_type="FRACTIONAL" if fractional else "BINARY",
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
    return np.flatnonzero(lesion_slices(read_series(series), path)).tolist()


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
            lesion_slices(read_series(series), path)
        assert caught.value.reason is Reason.NO_LESION_EVIDENCE


def test_the_best_evidence_decides(series, tmp_path):
    volume = read_series(series)
    write_seg(tmp_path / "a" / "1.dcm", series, [mask(2)])
    write_seg(tmp_path / "b" / "1.dcm", series, [mask(5)])
    segs = [tmp_path / "a", tmp_path / "b"]
    table = {volume.sop_uids[0]: "cancer", volume.sop_uids[1]: "non-cancer", volume.sop_uids[2]: "unlabelled"}
    assert slice_labels(volume, "cancer", table, segs) == ["cancer", "non-cancer", *[None] * 8]
    assert slice_labels(volume, "cancer", {}, segs) == ["cancer" if z in (2, 5) else None for z in range(10)]
    assert slice_labels(volume, "non-cancer", {}, []) == ["non-cancer"] * 10
    with pytest.raises(SeriesRejected) as caught:
        slice_labels(volume, "cancer", {}, [])
    assert caught.value.reason is Reason.NO_LESION_EVIDENCE


def test_real_segmentation_gives_the_published_labels(mirror, mirror_series, mirror_labels):
    """Its frames name no source image; a shared functional group lists all of them."""
    seg = next((mirror / "idc-open-data" / QIN).iterdir())
    uid = pydicom.dcmread(seg, stop_before_pixels=True).ReferencedSeriesSequence[0].SeriesInstanceUID
    volume = read_series(mirror_series[uid])
    expected = mirror_labels[mirror_labels["series_uid"] == uid].set_index("sop_uid")["label"]
    labels = slice_labels(volume, "cancer", {}, [seg.parent])
    assert [label or "non-cancer" for label in labels] == [expected[sop] for sop in volume.sop_uids]
    assert labels.count("cancer") == 11
