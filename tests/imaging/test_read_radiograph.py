"""DICOM radiographs: how they are shown, what is refused, what is decoded; all of them are synthetic."""

import imagecodecs
import numpy as np
import pydicom
import pytest
from pydicom.dataset import Dataset
from pydicom.encaps import encapsulate
from pydicom.uid import (
    JPEG2000Lossless,
    JPEGLosslessSV1,
    JPEGLSLossless,
    RLELossless,
)
from radiographs import DEEP, SECONDARY_CAPTURE, chest, cut, dicom, difference, rejection

from lungsynth.imaging.rejection import Reason


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"PhotometricInterpretation": "MONOCHROME1", "PixelData": (4080 - DEEP).tobytes()},
        {"WindowCenter": 2048, "WindowWidth": 4096},
        {"WindowCenter": [2040, 100], "WindowWidth": [4080, 50], "VOILUTFunction": "LINEAR_EXACT"},
        {"WindowCenter": -1000 + 1020, "WindowWidth": 2040, "RescaleSlope": 0.5, "RescaleIntercept": -1000},
        {"RescaleSlope": 2, "RescaleIntercept": -7, "RescaleType": "US"},
        {"PixelRepresentation": 1, "PixelData": (DEEP.astype(np.int16) - 2048).tobytes()},
        {"SOPClassUID": SECONDARY_CAPTURE, "BurnedInAnnotation": "NO", "Modality": "CR"},
    ],
)
def test_dicom_shows_its_window_or_all_stored_bits(tmp_path, plain, fields):
    slices = cut(dicom(tmp_path / "a.dcm", DEEP, **fields))
    assert difference(slices, plain) < 1
    row = slices.table.iloc[0]
    assert row["pixel_mm"] == 0.2
    assert row["spacing_mm"] == pytest.approx(0.2 * 160 / 64)
    assert row["sop_uid"] == pydicom.dcmread(tmp_path / "a.dcm").SOPInstanceUID


def test_dicom_window_clips_and_sigmoid_does_not(tmp_path):
    window = {"WindowCenter": 3000, "WindowWidth": 400}
    shown = cut(dicom(tmp_path / "a.dcm", DEEP, **window)).images[0][:, 8:56]
    assert {0, 255} <= set(np.unique(shown))
    soft = cut(dicom(tmp_path / "b.dcm", DEEP, **window, VOILUTFunction="SIGMOID")).images[0][:, 8:56].astype(int)
    steep = np.abs(shown.astype(int) - 128) < 20
    assert np.abs(soft - shown)[steep].max() < 20


def test_dicom_voi_lut_is_applied(tmp_path, plain):
    lut = Dataset()
    lut.LUTDescriptor, lut.LUTData = [4096, 0, 12], (4095 - np.arange(4096)).astype(np.uint16).tobytes()
    lut["LUTDescriptor"].VR, lut["LUTData"].VR = "US", "OW"
    slices = cut(dicom(tmp_path / "a.dcm", DEEP, VOILUTSequence=[lut], RescaleSlope=1, RescaleIntercept=0))
    assert difference(slices, np.where(plain > 0, 255 - plain, 0)) < 4  # but for the padding and its edge


def test_dicom_in_colour_of_several_frames_or_compressed_is_read(tmp_path, plain):
    rgb = np.stack([chest()] * 3, 2)
    colour = {"SamplesPerPixel": 3, "PhotometricInterpretation": "RGB", "PlanarConfiguration": 0}
    bits = {"BitsAllocated": 8, "BitsStored": 8, "HighBit": 7}
    slices = cut(dicom(tmp_path / "a.dcm", rgb, **colour, **bits))
    assert difference(slices, plain) == 0
    frames = np.stack([DEEP, 4080 - DEEP])
    slices = cut(dicom(tmp_path / "b.dcm", DEEP, NumberOfFrames=2, PixelData=frames.tobytes()))
    assert difference(slices, plain) < 1
    assert slices.notes == ("the first of 2 frames",)
    codes = {
        JPEGLosslessSV1: imagecodecs.ljpeg_encode(DEEP, bitspersample=12),
        JPEG2000Lossless: imagecodecs.jpeg2k_encode(DEEP, reversible=True, codecformat="j2k"),
        JPEGLSLossless: imagecodecs.jpegls_encode(DEEP),
    }
    for syntax, code in codes.items():
        dataset = pydicom.dcmread(dicom(tmp_path / "c.dcm", DEEP))
        dataset.file_meta.TransferSyntaxUID = syntax
        dataset.PixelData = encapsulate([code])
        dataset["PixelData"].is_undefined_length = True
        dataset.save_as(tmp_path / "c.dcm")
        assert difference(cut(tmp_path / "c.dcm"), plain) < 1


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"BurnedInAnnotation": "YES"}, Reason.BURNED_IN_ANNOTATION),
        ({"SOPClassUID": SECONDARY_CAPTURE}, Reason.SECONDARY_CAPTURE),
        ({"SOPClassUID": SECONDARY_CAPTURE, "BurnedInAnnotation": "YES"}, Reason.BURNED_IN_ANNOTATION),
        ({"Modality": "CT"}, Reason.NOT_CT),
        ({"Modality": None}, Reason.NOT_CT),
        ({"PixelData": None}, Reason.NO_PIXEL_DATA),
        ({"PhotometricInterpretation": "PALETTE COLOR"}, Reason.UNREADABLE),
        ({"PixelData": DEEP.tobytes()[:9000]}, Reason.UNREADABLE),
        ({"BitsStored": None}, Reason.UNREADABLE),
        ({"Rows": 40_000, "Columns": 40_000}, Reason.UNREADABLE),
    ],
)
def test_dicom_that_is_no_usable_radiograph_is_rejected(tmp_path, fields, reason):
    assert rejection(dicom(tmp_path / "a.dcm", DEEP, **fields)).reason == reason


def test_dicom_of_an_unknown_transfer_syntax_has_no_decoder(tmp_path):
    path = dicom(tmp_path / "a.dcm", DEEP)
    dataset = pydicom.dcmread(path)
    dataset.compress(RLELossless)
    dataset.file_meta.TransferSyntaxUID = "1.2.840.10008.1.2.4.100"  # MPEG-2
    dataset.save_as(path)
    assert rejection(path).reason == Reason.NO_DECODER
