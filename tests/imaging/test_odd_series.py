"""Series with something odd about them: what is mended is noted, what is too much rejects the series."""

import shutil
from pathlib import Path

import numpy as np
import pydicom
import pytest
from pydicom.uid import ImplicitVRLittleEndian, RLELossless

from lungsynth.imaging.read import read_series
from lungsynth.imaging.rejection import Reason, SeriesRejected

STORED = np.random.default_rng(2).integers(0, 2000, size=(24, 12, 20), dtype=np.uint16)
HU = STORED.astype(int) - 1024


def rejected(folder: Path) -> SeriesRejected:
    with pytest.raises(SeriesRejected) as caught:
        read_series(folder)
    return caught.value


def at(*slices, **attributes):
    """A change of single attributes on some slices; an attribute set to none is removed."""

    def change(z, ct):
        for name, value in attributes.items() if z in slices else ():
            delattr(ct, name) if value is None else setattr(ct, name, value)

    return change


def moved(*slices, by_mm):
    def change(z, ct):
        if z in slices:
            ct.ImagePositionPatient[2] = float(ct.ImagePositionPatient[2]) + by_mm

    return change


def without(folder: Path, *instance_numbers: int) -> Path:
    for path in list(folder.iterdir()):
        if pydicom.dcmread(path).InstanceNumber in instance_numbers:
            path.unlink()
    return folder


def test_an_ordinary_series_has_no_notes(write_ct):
    volume = read_series(write_ct(STORED))
    assert volume.notes == ()
    assert volume.instance_numbers == tuple(range(24, 0, -1))


def test_localizers_are_left_out(write_ct):
    localizer = at(5, 23, ImageType=["ORIGINAL", "PRIMARY", "LOCALIZER"], ImagePositionPatient=None, RescaleSlope=None)
    with pytest.raises(SeriesRejected):  # what remains has a gap in the middle and lacks too much
        read_series(write_ct(STORED[:8], localizer))
    volume = read_series(write_ct(STORED, at(0, 23, ImageType="LOCALIZER", ImagePositionPatient=None)))
    assert np.array_equal(volume.hu, HU[1:23])
    assert volume.notes == ("2 localizers left out",)


@pytest.mark.parametrize(
    ("odd", "named"),
    [
        ({"PixelSpacing": [1, 1]}, "pixel spacing"),
        ({"ImageOrientationPatient": [1, 0, 0, 0, 0, -1]}, "orientation"),
        ({"FrameOfReferenceUID": "1.2.3"}, "frame of reference"),
        ({"Rows": 6, "PixelData": b"\0" * 240}, "image size"),
    ],
)
def test_few_odd_slices_are_left_out_and_more_of_them_reject(write_ct, odd, named):
    volume = read_series(write_ct(STORED, at(0, 23, **odd)))
    assert np.array_equal(volume.hu, HU[1:23])
    assert len(volume.notes) == 1
    assert named in volume.notes[0]
    outcome = rejected(write_ct(STORED, at(0, 22, 23, **odd)))
    assert outcome.reason is Reason.MIXED_SERIES
    assert named in outcome.detail


def test_rounding_differences_are_not_odd(write_ct):
    orientation = [0.99996, 0, 0.0001, 0, 1, 0]
    volume = read_series(write_ct(STORED, at(3, 9, PixelSpacing=[2.5004, 2.5], ImageOrientationPatient=orientation)))
    assert len(volume.hu) == 24
    assert volume.notes == ()


def test_gaps_are_noted_and_wide_ones_reject(write_ct):
    volume = read_series(without(write_ct(STORED), 10, 11))
    assert len(volume.hu) == 22
    assert volume.slice_spacing_mm == 5
    assert volume.notes == (
        "2 of 24 slices missing; the widest gap is 15.00 mm at -140.0 mm, where slices are 5.00 mm apart",
    )
    for lost in ((10, 11, 12, 13), (5, 10, 15)):  # one gap of 25 mm; 12 % of the slices
        outcome = rejected(without(write_ct(STORED), *lost))
        assert outcome.reason is Reason.MISSING_SLICES
        assert outcome.picture is not None
        assert (outcome.picture.dtype, outcome.picture.shape) == (np.uint8, (12, 20))


def test_uneven_spacing_is_noted_and_interleaved_scans_reject(write_ct):
    volume = read_series(write_ct(STORED, moved(7, by_mm=1)))
    assert volume.notes == ("uneven spacing: 2 of 23 steps; they run from 4.00 to 6.00 mm",)
    assert rejected(write_ct(STORED, moved(*range(0, 24, 2), by_mm=1))).reason is Reason.MIXED_SERIES
    rounded = moved(*range(0, 24, 2), by_mm=0.05)
    assert read_series(write_ct(STORED, rounded, step_mm=0.625)).notes == ()


def test_copies_are_left_out_and_other_images_in_one_place_reject(write_ct):
    folder = write_ct(STORED)
    first, second = list(folder.iterdir())[:2]
    shutil.copy(first, folder / "copy")
    again = pydicom.dcmread(second)
    again.SOPInstanceUID = "1.2.3.4"
    again.save_as(folder / "renamed")
    volume = read_series(folder)
    assert np.array_equal(volume.hu, HU)
    assert volume.notes == ("2 copies of slices left out",)
    assert len(set(volume.sop_uids)) == len(volume.positions_mm) == len(volume.instance_numbers) == 24
    again.PixelData = again.PixelData[::-1]
    again.save_as(folder / "renamed")
    assert rejected(folder).reason is Reason.DUPLICATE_POSITIONS


def test_copies_do_not_make_up_for_slices(write_ct):
    folder = write_ct(STORED[:4])
    for path in list(folder.iterdir()):
        shutil.copy(path, folder / f"copy-{path.name}")
    assert rejected(folder).reason is Reason.TOO_FEW_SLICES


@pytest.mark.parametrize("degrees", [-12, 3, 18])
def test_gantry_tilt_is_noted(write_ct, degrees):
    angle = np.deg2rad(degrees)
    tilt = at(*range(24), ImageOrientationPatient=[1, 0, 0, 0, np.cos(angle), -np.sin(angle)])
    volume = read_series(write_ct(STORED, tilt))
    assert volume.notes == (f"gantry tilt of {abs(degrees):.1f} degrees",)
    assert np.allclose(np.diff(volume.positions_mm), 5 * np.cos(angle))


def test_monochrome1_changes_no_hu(write_ct):
    inverted = at(*range(24), PhotometricInterpretation="MONOCHROME1", PresentationLUTShape="INVERSE")
    volume = read_series(write_ct(STORED, inverted))
    assert np.array_equal(volume.hu, HU)
    assert volume.notes == ("MONOCHROME1: to be shown inverted, which does not change its HU (24 slices)",)


def test_sparse_tags(write_ct):
    optional = ("SliceThickness", "ImageType", "FrameOfReferenceUID", "Manufacturer", "InstanceNumber", "RescaleType")
    sparse = at(*range(24), **dict.fromkeys((*optional, "BitsStored", "HighBit", "SamplesPerPixel")))
    volume = read_series(write_ct(STORED, sparse))
    assert np.array_equal(volume.hu, HU)
    assert volume.thickness_mm == 5  # the slice spacing
    assert (volume.frame_of_reference_uid, volume.manufacturer) == ("", "")
    assert volume.instance_numbers == (None,) * 24
    empty = at(*range(24), **dict.fromkeys(optional[:1], 0), Manufacturer="", InstanceNumber="", ImageType="")
    assert read_series(write_ct(STORED, empty)).thickness_mm == 5


def test_other_files_in_the_folder(write_ct):
    folder = write_ct(STORED)
    (folder / ".DS_Store").write_bytes(b"\0\0\0\1Bud1")
    (folder / "DICOMDIR").write_bytes(b"no instance")
    volume = read_series(folder)
    assert np.array_equal(volume.hu, HU)
    assert volume.notes == ("a DICOMDIR left out",)
    (folder / "subfolder").mkdir()
    assert rejected(folder).reason is Reason.UNREADABLE


def test_texts_of_the_file_stay_short_and_on_one_line(write_ct):
    def hostile(z, ct):
        ct.add(pydicom.DataElement("Modality", "CS", "../../ETC\n" + "X" * 5000, validation_mode=0))

    outcome = rejected(write_ct(STORED, hostile))
    assert outcome.reason is Reason.NOT_CT
    assert len(outcome.detail) < 80
    assert "\n" not in outcome.detail


def test_one_series_may_mix_transfer_syntaxes(write_ct):
    folder = write_ct(STORED)
    for number, path in enumerate(sorted(folder.iterdir())):
        ct = pydicom.dcmread(path)
        if number % 3 == 1:
            ct.file_meta.TransferSyntaxUID = ImplicitVRLittleEndian
        if number % 3 == 2:
            ct.compress(RLELossless)
        ct.save_as(path)
    volume = read_series(folder)
    assert np.array_equal(volume.hu, HU)
    assert volume.notes == ()
