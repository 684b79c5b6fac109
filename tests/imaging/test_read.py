"""Reading series: geometry, Hounsfield units, and a reason for every series that is of no use."""

import contextlib
from pathlib import Path

import numpy as np
import pydicom
import pytest
from pydicom.encaps import encapsulate
from pydicom.pixels import get_decoder
from pydicom.uid import JPEGLosslessSV1, RLELossless

from lungsynth.imaging.read import Reason, SeriesRejected, read_series

rng = np.random.default_rng(0)
STORED = rng.integers(0, 2000, size=(8, 12, 20), dtype=np.uint16)
"""Asymmetric noise, so that no mirroring or transposition goes unseen."""


def rejected(folder: Path) -> Reason:
    with pytest.raises(SeriesRejected) as caught:
        read_series(folder)
    return caught.value.reason


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

    volume = read_series(write_ct(np.ascontiguousarray(stored), orient))
    assert np.array_equal(volume.hu, STORED.astype(int) - 1024)
    assert volume.spacing_mm == (0.7, 0.8)
    assert volume.normal.tolist() == [0, 0, 1]


def test_tilted_gantry_sorts_along_the_normal(write_ct):
    angle = np.deg2rad(10)

    def tilt(z, ct):
        ct.ImageOrientationPatient = [1, 0, 0, 0, np.cos(angle), -np.sin(angle)]

    volume = read_series(write_ct(STORED, tilt, step_mm=5.0))
    assert np.allclose(np.diff(volume.positions_mm), 5 * np.cos(angle))


def test_rescale_is_per_slice_and_signed_values_work(write_ct):
    def rescale(z, ct):
        ct.RescaleSlope, ct.RescaleIntercept = 0.5 + z, -10

    signed = np.full((6, 4, 4), 100, dtype=np.int16)
    signed[:, 0, 0] = -20
    hu = read_series(write_ct(signed, rescale)).hu
    assert hu[:, 1, 1].tolist() == [40 + 100 * z for z in range(6)]
    assert hu[:, 0, 0].tolist() == [-20 - 20 * z for z in range(6)]


def test_padding_becomes_air_even_with_the_wrong_sign(write_ct):
    def signed_padding(z, ct):
        ct.RescaleIntercept = 0
        ct.add_new("PixelPaddingValue", "US", 63536)  # -2000 read as unsigned, as GE files have it

    stored = np.full((6, 4, 4), 50, dtype=np.int16)
    stored[:, 0] = -2000
    assert read_series(write_ct(stored, signed_padding)).hu[0, :2, 0].tolist() == [-1024, 50]

    def padding_range(z, ct):
        ct.add_new("PixelPaddingValue", "US", 3000)
        ct.add_new("PixelPaddingRangeLimit", "US", 3010)

    stored = np.full((6, 4, 4), 1024, dtype=np.uint16)
    stored[:, 0], stored[:, 1], stored[:, 2] = 3000, 3010, 3011
    assert read_series(write_ct(stored, padding_range)).hu[0, :, 0].tolist() == [-1024, -1024, 3011 - 1024, 0]


def set_on(z_wanted, **attributes):
    """A change of single attributes on one slice, or on all with none; an attribute set to none is removed."""

    def change(z, ct):
        if z_wanted in (None, z):
            for name, value in attributes.items():
                delattr(ct, name) if value is None else setattr(ct, name, value)

    return change


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (set_on(3, Modality="PT"), Reason.NOT_CT),
        (set_on(3, PixelData=None), Reason.NO_PIXEL_DATA),
        (set_on(3, ImagePositionPatient=None), Reason.NO_GEOMETRY),
        (set_on(None, PixelSpacing=None), Reason.NO_GEOMETRY),
        (set_on(None, PixelSpacing=[0, 0]), Reason.NO_GEOMETRY),
        (set_on(None, ImageOrientationPatient=[1, 0, 0, 1, 0, 0]), Reason.NO_GEOMETRY),
        (set_on(None, RescaleSlope=None), Reason.NOT_HU),
        (set_on(None, RescaleType="OD"), Reason.NOT_HU),
        (set_on(None, ImageType=["ORIGINAL", "PRIMARY", "LOCALIZER"]), Reason.NOT_AXIAL),
        (set_on(None, ImageOrientationPatient=[1, 0, 0, 0, 0, -1]), Reason.NOT_AXIAL),
        (set_on(None, ImageOrientationPatient=[0.6, 0.8, 0, -0.8, 0.6, 0]), Reason.NOT_AXIAL),
        (set_on(3, SeriesInstanceUID="1.2.3"), Reason.MIXED_SERIES),
        (set_on(3, PixelSpacing=[1, 1]), Reason.MIXED_SERIES),
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


def test_compressed_pixels(write_ct):
    volume = read_series(write_ct(STORED, lambda z, ct: ct.compress(RLELossless)))
    assert np.array_equal(volume.hu, STORED.astype(int) - 1024)

    def jpeg(z, ct):
        ct.file_meta.TransferSyntaxUID = JPEGLosslessSV1
        ct.PixelData = encapsulate([b"no JPEG"])
        ct["PixelData"].VR = "OB"

    reason = Reason.UNREADABLE if get_decoder(JPEGLosslessSV1).is_available else Reason.NO_DECODER
    assert rejected(write_ct(STORED, jpeg)) is reason


def test_gap_few_slices_and_empty_folder(write_ct, tmp_path):
    folder = write_ct(STORED)
    next(path for path in folder.iterdir() if pydicom.dcmread(path).ImagePositionPatient[2] == -180).unlink()
    assert rejected(folder) is Reason.MISSING_SLICES
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
