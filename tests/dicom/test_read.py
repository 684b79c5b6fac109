"""Reading series: geometry, Hounsfield units, and a reason for every series that is of no use."""

import contextlib
from pathlib import Path

import numpy as np
import pytest
from pydicom.uid import (
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    SecondaryCaptureImageStorage,
)

from lungsynth.dataset.rejection import Reason, SeriesRejected
from lungsynth.dicom.read import read_series

rng = np.random.default_rng(0)
STORED = rng.integers(0, 2000, size=(8, 12, 20), dtype=np.uint16)
"""Asymmetric noise, so that no mirroring or transposition goes unseen."""


def rejected(folder: Path) -> Reason:
    with pytest.raises(SeriesRejected) as caught:
        read_series(folder)
    return caught.value.reason


def set_on(z_wanted, **attributes):
    """A change of single attributes on one slice, or on all with none; an attribute set to none is removed."""

    def change(z, ct):
        if z_wanted in (None, z):
            for name, value in attributes.items():
                delattr(ct, name) if value is None else setattr(ct, name, value)

    return change


def test_slices_come_from_feet_to_head_whatever_the_file_names(write_ct):
    volume = read_series(write_ct(STORED, spacing_mm=(0.7, 0.8), step_mm=2.5))
    assert volume.hu.dtype == np.int16
    assert np.array_equal(volume.hu, STORED.astype(int) - 1024)
    assert np.allclose(volume.positions_mm, -200 + 2.5 * np.arange(8))
    assert volume.spacing_mm == (0.7, 0.8)
    assert (volume.slice_spacing_mm, volume.thickness_mm) == (2.5, 2.5)
    assert len(set(volume.sop_uids)) == 8


def test_descending_acquisition_gives_the_same_volume(write_ct):
    def head_first(z, ct):
        ct.ImagePositionPatient[2] = -float(ct.ImagePositionPatient[2])

    volume = read_series(write_ct(STORED, head_first))
    assert np.array_equal(volume.hu, STORED[::-1].astype(int) - 1024)
    assert (np.diff(volume.positions_mm) > 0).all()


@pytest.mark.parametrize("transposed", [False, True])
@pytest.mark.parametrize("flip_rows", [False, True])
@pytest.mark.parametrize("flip_columns", [False, True])
def test_every_in_plane_orientation_comes_out_in_the_standard_view(write_ct, transposed, flip_rows, flip_columns):
    stored = STORED[:, :: -1 if flip_rows else 1, :: -1 if flip_columns else 1]
    across, down = [-1 if flip_columns else 1, 0, 0], [0, -1 if flip_rows else 1, 0]
    if transposed:
        stored, across, down = stored.transpose(0, 2, 1), down, across

    def orient(z, ct):
        ct.ImageOrientationPatient = across + down
        ct.PixelSpacing = [0.8, 0.7] if transposed else [0.7, 0.8]
        # The file's first pixel is another one of the 12×20; the view's stays at (-100, -90).
        ct.ImagePositionPatient[0] += 19 * 0.8 * flip_columns
        ct.ImagePositionPatient[1] += 11 * 0.7 * flip_rows

    volume = read_series(write_ct(np.ascontiguousarray(stored), orient))
    assert np.array_equal(volume.hu, STORED.astype(int) - 1024)
    assert volume.spacing_mm == (0.7, 0.8)
    assert (volume.across.tolist(), volume.down.tolist()) == ([1, 0, 0], [0, 1, 0])
    assert volume.normal.tolist() == [0, 0, 1]
    assert np.allclose(volume.corners_mm, [[-100, -90, -200 + 5 * z] for z in range(8)])


def test_tilted_gantry_sorts_along_the_normal(write_ct):
    angle = np.deg2rad(10)

    def tilt(z, ct):
        ct.ImageOrientationPatient = [1, 0, 0, 0, np.cos(angle), -np.sin(angle)]

    volume = read_series(write_ct(STORED, tilt, step_mm=5.0))
    assert np.allclose(np.diff(volume.positions_mm), 5 * np.cos(angle))


def test_rescale_is_per_slice_and_signed_values_work(write_ct):
    def rescale(z, ct):
        ct.RescaleSlope, ct.RescaleIntercept = 0.5 + z, -10

    signed = STORED.astype(np.int16) - 1000
    hu = read_series(write_ct(signed, rescale)).hu
    expected = np.rint(signed * (0.5 + np.arange(8)[:, None, None]) - 10)
    assert np.array_equal(hu, np.clip(expected, -1024, 32767))


@pytest.mark.parametrize(
    ("dtype", "intercept"),
    [(np.int16, value) for value in (-1024, 0, 1024, -8192, 20000, 31000, -1024.5)]
    + [(np.uint16, value) for value in (-1024, -1025, -8192, -40000, -1024.5)],
)
def test_values_of_all_sixteen_bits(write_ct, dtype, intercept):
    limits = np.iinfo(dtype)
    stored = (STORED.astype(int) - 1024 - int(intercept)).astype(dtype)
    stored[:, 5, :6] = [limits.min, limits.min + 1, 0, 1, limits.max - 1, limits.max]
    volume = read_series(write_ct(stored, set_on(None, RescaleIntercept=intercept)))
    assert np.array_equal(volume.hu, np.clip(np.rint(stored.astype(float) + intercept), -1024, 32767))


@pytest.mark.parametrize("syntax", [ExplicitVRLittleEndian, ImplicitVRLittleEndian], ids=lambda uid: uid.keyword)
def test_padding_becomes_air_even_with_the_wrong_sign(write_ct, syntax):
    def first_row(dtype, values, intercept=-1024, **padding):
        def change(z, ct):
            ct.RescaleIntercept = intercept
            ct.file_meta.TransferSyntaxUID = syntax
            for keyword, value in padding.items():
                ct.add_new(keyword, "US" if value >= 0 else "SS", value)

        stored = (STORED.astype(int) - 1024 - intercept).astype(dtype)
        stored[:, 0, : len(values)] = values
        return read_series(write_ct(stored, change)).hu[3, 0, : len(values)].tolist()

    # -2000 read as unsigned, as GE files have it; with an intercept that lets it come out above air
    assert first_row(np.int16, [-2000, 50], intercept=1500, PixelPaddingValue=63536) == [-1024, 1550]
    assert first_row(np.uint16, [63536, 50], PixelPaddingValue=-2000) == [-1024, -974]
    ranged = {"PixelPaddingValue": 3000, "PixelPaddingRangeLimit": 3010}
    assert first_row(np.uint16, [2999, 3000, 3005, 3010, 3011], **ranged) == [1975, -1024, -1024, -1024, 1987]
    downwards = {"PixelPaddingValue": 3010, "PixelPaddingRangeLimit": 3000}
    assert first_row(np.uint16, [2999, 3000, 3010, 3011], **downwards) == [1975, -1024, -1024, 1987]


def test_bits_above_those_stored_are_no_part_of_the_values(write_ct):
    overlay = STORED | (1 << 13)
    folder = write_ct(overlay, set_on(None, BitsStored=12, HighBit=11))
    assert np.array_equal(read_series(folder).hu, STORED.astype(int) - 1024)
    folder = write_ct(overlay, set_on(None, BitsStored=12, HighBit=11, PixelPaddingValue=int(STORED[0, 0, 0])))
    assert read_series(folder).hu[0, 0, 0] == -1024
    high = STORED << 4
    folder = write_ct(high, set_on(None, BitsStored=12, HighBit=15))
    assert np.array_equal(read_series(folder).hu, STORED.astype(int) - 1024)
    signed = (STORED.astype(np.int16) - 1024) & 0x0FFF  # without the sign's upper bits
    folder = write_ct(signed, set_on(None, BitsStored=12, HighBit=11, RescaleIntercept=0))
    assert np.array_equal(read_series(folder).hu, STORED.astype(int) - 1024)
    padded = signed.copy()
    padded[:, 0, 0] = -30000  # needs the bits that are cleared
    change = set_on(None, BitsStored=12, HighBit=11, RescaleIntercept=0, PixelPaddingValue=-30000)
    hu = read_series(write_ct(padded, change)).hu
    assert (hu[:, 0, 0] == -1024).all()
    assert np.array_equal(hu[:, 1:], STORED[:, 1:].astype(int) - 1024)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (set_on(3, Modality="PT"), Reason.NOT_CT),
        (set_on(3, Modality=None), Reason.NOT_CT),
        (set_on(3, SOPClassUID=SecondaryCaptureImageStorage), Reason.SECONDARY_CAPTURE),
        (set_on(3, ConversionType="WSD"), Reason.SECONDARY_CAPTURE),
        (set_on(3, ImageType=["DERIVED", "SECONDARY", "SCREEN SAVE"]), Reason.SECONDARY_CAPTURE),
        (set_on(3, BurnedInAnnotation="YES"), Reason.BURNED_IN_ANNOTATION),
        (set_on(3, SamplesPerPixel=3, PhotometricInterpretation="RGB", PlanarConfiguration=0), Reason.NOT_HU),
        (set_on(3, PixelData=None), Reason.NO_PIXEL_DATA),
        (set_on(3, PixelData=b"\0" * 100), Reason.UNREADABLE),
        (set_on(3, Rows=None), Reason.UNREADABLE),
        (set_on(3, BitsAllocated=12), Reason.UNREADABLE),
        (set_on(3, BitsStored=17), Reason.UNREADABLE),
        (set_on(3, HighBit=4), Reason.UNREADABLE),
        (set_on(3, NumberOfFrames=2), Reason.NO_GEOMETRY),
        (set_on(3, SeriesInstanceUID=None), Reason.UNREADABLE),
        (set_on(3, ImagePositionPatient=None), Reason.NO_GEOMETRY),
        (set_on(3, ImagePositionPatient=[0, 0]), Reason.NO_GEOMETRY),
        (set_on(3, ImagePositionPatient=[0, 0, float("nan")]), Reason.NO_GEOMETRY),
        (set_on(None, PixelSpacing=None), Reason.NO_GEOMETRY),
        (set_on(None, PixelSpacing=0.7), Reason.NO_GEOMETRY),
        (set_on(None, PixelSpacing=[0, 0]), Reason.NO_GEOMETRY),
        (set_on(None, ImageOrientationPatient=[1, 0, 0, 1, 0, 0]), Reason.NO_GEOMETRY),
        (set_on(None, RescaleSlope=None), Reason.NOT_HU),
        (set_on(3, RescaleSlope=0), Reason.NOT_HU),
        (set_on(3, RescaleIntercept=float("nan")), Reason.NOT_HU),
        (set_on(None, RescaleType="OD"), Reason.NOT_HU),
        (set_on(None, RescaleIntercept=0), Reason.NOT_HU),  # no value below 0
        (set_on(None, RescaleIntercept=-4000), Reason.NOT_HU),  # nothing but air
        (set_on(None, ImageType=["ORIGINAL", "PRIMARY", "LOCALIZER"]), Reason.NOT_AXIAL),
        (set_on(None, ImageOrientationPatient=[1, 0, 0, 0, 0, -1]), Reason.NOT_AXIAL),
        (set_on(None, ImageOrientationPatient=[0.6, 0.8, 0, -0.8, 0.6, 0]), Reason.NOT_AXIAL),
        (set_on(3, SeriesInstanceUID="1.2.3"), Reason.MIXED_SERIES),
        (set_on(3, PixelSpacing=[1, 1]), Reason.MIXED_SERIES),
        (set_on(3, FrameOfReferenceUID="1.2.3"), Reason.MIXED_SERIES),
        (set_on(3, ImagePositionPatient=[-100, -90, -190]), Reason.DUPLICATE_POSITIONS),
        (set_on(7, ImagePositionPatient=[-100, -90, -160]), Reason.MISSING_SLICES),
    ],
)
def test_unusable_instances_reject_the_series(write_ct, change, reason):
    assert rejected(write_ct(STORED, change)) is reason


def test_cut_and_foreign_files_reject_the_series(write_ct):
    folder = write_ct(STORED)
    path = sorted(folder.iterdir())[2]
    whole = path.read_bytes()
    for length in (0, 100, 300, len(whole) // 2, len(whole) - 100):
        path.write_bytes(whole[:length])
        assert rejected(folder) in (Reason.UNREADABLE, Reason.NO_PIXEL_DATA, Reason.NOT_CT)
    path.write_bytes(whole[:-100])
    assert rejected(folder) is Reason.UNREADABLE
    path.write_text("not DICOM")
    assert rejected(folder) is Reason.UNREADABLE


def test_noise_in_the_bytes_never_escapes_as_another_error(write_ct):
    folder = write_ct(STORED)
    path = sorted(folder.iterdir())[2]
    whole = np.frombuffer(path.read_bytes(), dtype=np.uint8)
    for _ in range(60):
        bytes_ = whole.copy()
        bytes_[rng.integers(132, len(whole), size=20)] = rng.integers(0, 256, size=20)
        path.write_bytes(bytes_.tobytes())
        with contextlib.suppress(SeriesRejected):
            read_series(folder)


def test_few_slices_and_empty_folder(write_ct, tmp_path):
    assert rejected(write_ct(STORED[:3])) is Reason.TOO_FEW_SLICES
    (tmp_path / "empty").mkdir()
    assert rejected(tmp_path / "empty") is Reason.NOT_FETCHED
    assert rejected(tmp_path / "missing") is Reason.NOT_FETCHED


def test_details_name_no_patient(write_ct):
    def named(z, ct):
        ct.PatientID, ct.PatientName = "SECRET-1", "Secret^One"
        ct.Modality = "MR"

    with pytest.raises(SeriesRejected) as caught:
        read_series(write_ct(STORED, named))
    assert "secret" not in str(caught.value).lower()


def test_real_series(mirror_series):
    assert len(mirror_series) == 4
    makers = set()
    for uid, folder in mirror_series.items():
        volume = read_series(folder)
        assert volume.series_uid == uid
        assert len(volume.hu) == len(list(folder.iterdir())) == len(volume.positions_mm)
        assert np.allclose(np.diff(volume.positions_mm), volume.slice_spacing_mm, atol=0.01)
        assert volume.hu.min() == -1024
        centre = volume.hu[:, 156:356, 156:356]
        assert 0 < np.median(centre[centre > -200]) < 100  # soft tissue
        makers.add(volume.manufacturer.split()[0].upper())
    assert makers == {"GE", "SIEMENS", "PHILIPS"}
