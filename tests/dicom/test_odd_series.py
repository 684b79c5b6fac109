"""Series with something odd about them: what is mended is noted, what is too much rejects the series."""

import shutil
from pathlib import Path

import numpy as np
import pydicom
import pytest
from pydicom.dataset import FileMetaDataset
from pydicom.uid import (
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    MediaStorageDirectoryStorage,
    RLELossless,
)

from lungsynth.dataset.rejection import Reason, SeriesRejected
from lungsynth.dicom.read import read_series

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
        assert outcome.preview is not None
        assert (outcome.preview.dtype, outcome.preview.shape) == (np.uint8, (12, 20))


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


def disc_directory(path: Path) -> None:
    directory = pydicom.Dataset()
    directory.FileSetID, directory.DirectoryRecordSequence = "DISC", []
    directory.file_meta = FileMetaDataset()
    directory.file_meta.MediaStorageSOPClassUID = MediaStorageDirectoryStorage
    directory.file_meta.MediaStorageSOPInstanceUID = "1.2.3"
    directory.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    directory.save_as(path, enforce_file_format=True)


@pytest.mark.parametrize(
    ("name", "note"),
    [
        ("DIRFILE", "a DICOMDIR left out"),
        ("dirfile", "a DICOMDIR left out"),
        ("IM0007", "a DICOMDIR left out"),  # by its content alone
        ("autorun.inf", "a stray file left out"),
        ("Thumbs.db", "a stray file left out"),
        ("VERSION", "a stray file left out"),
        ("LICENSE", "a stray file left out"),
        ("DOE^JOHN.pdf", "a stray file left out"),
    ],
)
def test_what_viewers_and_discs_leave_behind_is_left_out(write_ct, name, note):
    folder = write_ct(STORED)
    if "DICOMDIR" in note:
        disc_directory(folder / name)
    else:
        (folder / name).write_bytes(b"[autorun]\r\nopen=viewer.exe\r\n" * 9)
    volume = read_series(folder)
    assert np.array_equal(volume.hu, HU)
    assert volume.notes == (note,)


def test_strays_are_counted_and_alone_are_no_series(write_ct):
    folder = write_ct(STORED)
    for name in ("a.txt", "b.txt"):
        (folder / name).touch()
    (folder / "@eaDir").mkdir()
    assert read_series(folder).notes == ("3 stray files left out",)
    for path in folder.glob("*.dcm"):
        path.unlink()
    assert rejected(folder).reason is Reason.NOT_FETCHED


def test_a_damaged_image_is_never_taken_for_a_stray(write_ct):
    folder = write_ct(STORED)
    image = (folder / "014.dcm").read_bytes()
    for name, content in (
        ("IM1", b""),
        ("IM1", b"text"),
        ("IM1.dcm", bytes(5000)),
        ("IM1", image[:900]),
        ("VERSION", image[:900]),  # named like one, and DICOM
        ("a.txt", image[:-9]),
    ):
        (folder / name).write_bytes(content)
        assert rejected(folder).reason is Reason.UNREADABLE
        (folder / name).unlink()
    (folder / "014.dcm").rename(folder / "VERSION")  # a whole image is one, whatever its name
    assert np.array_equal(read_series(folder).hu, HU)


def without_preamble(path: Path, meta: bool) -> None:
    """As old programs wrote it: no preamble, and no file meta information either."""
    content = path.read_bytes()
    length = int.from_bytes(content[140:144], "little")
    path.write_bytes(content[132 if meta else 144 + length :])


@pytest.mark.parametrize("syntax", [ImplicitVRLittleEndian, ExplicitVRLittleEndian, ExplicitVRBigEndian])
@pytest.mark.parametrize("meta", [True, False])
def test_files_without_preamble_are_read(write_ct, syntax, meta):
    folder = write_ct(STORED)
    for path in folder.iterdir():
        ct = pydicom.dcmread(path)
        ct.file_meta.TransferSyntaxUID = syntax
        if syntax == ExplicitVRBigEndian:
            ct.PixelData = np.frombuffer(ct.PixelData, "<u2").astype(">u2").tobytes()
        big = syntax == ExplicitVRBigEndian
        pydicom.dcmwrite(path, ct, implicit_vr=syntax == ImplicitVRLittleEndian, little_endian=not big, overwrite=True)
        without_preamble(path, meta)
    volume = read_series(folder)
    assert np.array_equal(volume.hu, HU)
    assert volume.notes == ()


def test_compressed_pixels_of_an_unknown_transfer_syntax_are_said(write_ct):
    folder = write_ct(STORED)
    for path in folder.iterdir():
        ct = pydicom.dcmread(path)
        ct.compress(RLELossless)
        ct.save_as(path)
        without_preamble(path, meta=False)
    outcome = rejected(folder)
    assert outcome.reason is Reason.UNREADABLE
    assert outcome.detail.endswith("compressed pixels, and the file does not say how")


WATER = STORED.copy()  # uint16, all of it inside the body
WATER[:, 3:9, 4:16] = np.random.default_rng(3).integers(1020, 1030, (24, 6, 12))


@pytest.mark.parametrize(
    ("padding", "shown"),
    [
        ({"PixelPaddingValue": 1024}, "0 HU"),
        ({"PixelPaddingValue": 1030 - 6, "PixelPaddingRangeLimit": 1026}, "0 to 2 HU"),
        ({"PixelPaddingValue": 1026, "PixelPaddingRangeLimit": 1024}, "0 to 2 HU"),
        ({"PixelPaddingValue": 1028}, "4 HU"),
    ],
)
def test_a_padding_value_that_tissue_has_punches_no_holes(write_ct, padding, shown):
    volume = read_series(write_ct(WATER, at(*range(24), **padding)))
    assert np.array_equal(volume.hu, WATER.astype(int) - 1024)
    note = f"tissue has its padding value too, {shown}: only taken for padding around the image (24 slices)"
    assert volume.notes == (note,)


def test_the_same_value_around_the_image_is_padding(write_ct):
    stored = WATER.copy()
    stored[:, :, :3] = stored[:, 0] = 1024
    inside = stored[:, 3:9, 4:16] == 1024
    hu = read_series(write_ct(stored, at(*range(24), PixelPaddingValue=1024))).hu
    assert (hu[:, :, :3] == -1024).all()
    assert (hu[:, 0] == -1024).all()
    assert inside.any()
    assert (hu[:, 3:9, 4:16][inside] == 0).all()
    # Beyond what tissue has, it is padding wherever it is.
    stored[:, 6, 9] = 60000
    hu = read_series(write_ct(stored, at(*range(24), PixelPaddingValue=60000))).hu
    assert (hu[:, 6, 9] == -1024).all()


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
