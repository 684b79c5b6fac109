"""DICOM radiographs: how they are shown, what is refused, what is decoded; all of them are synthetic."""

from pathlib import Path

import imagecodecs
import numpy as np
import pydicom
import pytest
from PIL import Image
from pydicom.dataset import Dataset
from pydicom.encaps import encapsulate
from pydicom.uid import (
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGLosslessSV1,
    JPEGLSLossless,
    RLELossless,
)
from radiograph_files import DEEP, SECONDARY_CAPTURE, chest, cut, dicom, difference, rejection

from lungsynth.dataset.rejection import Reason
from lungsynth.radiographs.read_radiograph import read_radiograph


@pytest.fixture
def deep(tmp_path: Path) -> np.ndarray:
    """The slice that the chest gives as a 16-bit PNG: without a window, percentiles decide."""
    Image.fromarray(DEEP).save(tmp_path / "deep.png")
    return cut(tmp_path / "deep.png").images[0].astype(int)


WINDOW = {"WindowCenter": 2048, "WindowWidth": 4096}
TALL = {"BitsStored": 16, "HighBit": 15}


@pytest.mark.parametrize(
    "fields",
    [
        WINDOW,
        WINDOW | {"PhotometricInterpretation": "MONOCHROME1", "PixelData": (4080 - DEEP).tobytes()},
        {"WindowCenter": [2040, 100], "WindowWidth": [4080, 50], "VOILUTFunction": "LINEAR_EXACT"},
        {"WindowCenter": -1000 + 1020, "WindowWidth": 2040, "RescaleSlope": 0.5, "RescaleIntercept": -1000},
        WINDOW | {"SOPClassUID": SECONDARY_CAPTURE, "BurnedInAnnotation": "NO", "Modality": "CR"},
        WINDOW | TALL,
        WINDOW | {"HighBit": 15, "PixelData": (DEEP << 4).tobytes()},
        WINDOW | {"PixelData": (DEEP | 1 << 14).tobytes()},  # an overlay above the bits stored
        WINDOW | {"BitsStored": None},
        WINDOW | {"RescaleSlope": 0, "RescaleIntercept": 0},
        {"WindowCenter": [9000, 2048], "WindowWidth": [10, 4096]},
    ],
)
def test_dicom_shows_its_window(tmp_path, plain, fields):
    slices = cut(dicom(tmp_path / "a.dcm", DEEP, **fields))
    assert difference(slices, plain) < 1
    row = slices.table.iloc[0]
    assert row["pixel_mm"] == 0.2
    assert row["spacing_mm"] == pytest.approx(0.2 * 160 / 64)
    assert row["sop_uid"] == pydicom.dcmread(tmp_path / "a.dcm").SOPInstanceUID


SIGNED = (DEEP.astype(np.int16) - 2048).tobytes()


@pytest.mark.parametrize(
    "fields",
    [
        {},
        TALL,  # 12 bits in 16, as many detectors write them
        {"PhotometricInterpretation": "MONOCHROME1", "PixelData": (4080 - DEEP).tobytes()},
        {"PresentationLUTShape": "INVERSE", "PixelData": (4080 - DEEP).tobytes()},
        {
            "PhotometricInterpretation": "MONOCHROME1",
            "PresentationLUTShape": "INVERSE",
            "PixelData": (4080 - DEEP).tobytes(),
        },
        {"PresentationLUTShape": "IDENTITY"},
        {"RescaleSlope": 2, "RescaleIntercept": -7, "RescaleType": "US"},
        {"PixelRepresentation": 1, "PixelData": SIGNED},
        {"PixelRepresentation": 1, "PixelData": SIGNED} | TALL,
        {"PixelRepresentation": 1, "PixelData": (np.frombuffer(SIGNED, np.uint16) & 0x0FFF).tobytes()},
        {"WindowCenter": 32768, "WindowWidth": 65536} | TALL,  # a window of the bits, not of the values
        {"WindowCenter": 60000, "WindowWidth": 100},
        {"WindowCenter": 0, "WindowWidth": 0},
        {"PresentationIntentType": "FOR PROCESSING", "PixelIntensityRelationshipSign": -1},
        {
            "PresentationIntentType": "FOR PROCESSING",
            "PixelIntensityRelationshipSign": 1,
            "PixelData": (4080 - DEEP).tobytes(),
        },
    ],
)
def test_dicom_without_a_window_is_scaled_by_percentiles_with_a_note(tmp_path, deep, fields):
    slices = cut(dicom(tmp_path / "a.dcm", DEEP, **fields))
    assert difference(slices, deep) < 1
    assert "became 0 to 255" in " ".join(slices.notes)
    assert any("do not fit" in note for note in slices.notes) == (fields.get("WindowWidth", 0) > 0)
    assert any("for processing" in note for note in slices.notes) == ("PresentationIntentType" in fields)


def test_8_bits_without_a_window_are_shown_as_they_are(tmp_path, plain):
    bits = {"BitsAllocated": 8, "BitsStored": 8, "HighBit": 7}
    slices = cut(dicom(tmp_path / "a.dcm", chest(), **bits))
    assert difference(slices, plain) == 0
    assert slices.notes == ()


def test_photometric_interpretation_and_presentation_lut_that_contradict_each_other_are_told(tmp_path):
    for photometric, shape in (("MONOCHROME1", "IDENTITY"), ("MONOCHROME2", "INVERSE")):
        fields = {"PhotometricInterpretation": photometric, "PresentationLUTShape": shape}
        slices = cut(dicom(tmp_path / f"{shape}.dcm", DEEP, **fields))
        assert f"{photometric} with presentation LUT shape {shape}: shown inverted" in slices.notes


@pytest.mark.parametrize("padding", [0, 4095, 60000])
@pytest.mark.parametrize("photometric", ["MONOCHROME1", "MONOCHROME2"])
def test_padding_is_black_and_sets_no_scale(tmp_path, padding, photometric):
    """Half of the image is padding, of the least or the greatest value or one beyond the bits stored."""
    inner = DEEP[20:140, 20:108]
    stored = np.full(DEEP.shape, padding, np.uint16)
    stored[20:140, 20:108] = inner if photometric == "MONOCHROME2" else 4080 - inner
    stored[60, 60] = padding if padding < 4096 else stored[60, 60]  # the same value in the chest
    fields = {"PixelPaddingValue": padding, "PhotometricInterpretation": photometric}
    path = dicom(tmp_path / "a.dcm", stored, **fields)
    grey = read_radiograph(path).grey
    low, high = np.percentile(inner, (0.5, 99.5))
    expected = np.clip((inner - low) * 255 / (high - low), 0, 255)
    assert np.abs(np.delete((grey[20:140, 20:108] - expected).ravel(), 40 * 88 + 40)).max() < 3
    grey[20:140, 20:108] = 0
    assert not grey.any()


def table(bits: int, first: int = 0, dtype: str = "<u2") -> Dataset:
    """A LUT of 4096 entries in a straight line up to the greatest value of 8 or 12 bits, which it may call more."""
    lut, top = Dataset(), 255 if bits == 8 else 4095
    lut.LUTDescriptor = [4096, first % 65536, bits]
    lut.LUTData = np.linspace(0, top, 4096).round().astype(dtype).tobytes()
    lut.ModalityLUTType = "US"
    lut["LUTDescriptor"].VR, lut["LUTData"].VR = "US", "OW"
    return lut


@pytest.mark.parametrize(
    "fields",
    [
        {"VOILUTSequence": [table(12)]},
        {"VOILUTSequence": [table(8)]},  # of more entries than 8 bit can count
        {"VOILUTSequence": [table(8, dtype="u1")]},
        {"VOILUTSequence": [table(12, first=-2048)], "PixelRepresentation": 1, "PixelData": SIGNED},
        {"ModalityLUTSequence": [table(16)]} | WINDOW,
        {"ModalityLUTSequence": [table(8)], "WindowCenter": 128, "WindowWidth": 256},
    ],
)
def test_luts_of_every_kind(tmp_path, plain, fields):
    assert difference(cut(dicom(tmp_path / "a.dcm", DEEP, **fields)), plain) < 1


def test_a_lut_of_fewer_bits_than_it_says_is_not_black(tmp_path, deep):
    slices = cut(dicom(tmp_path / "a.dcm", DEEP, VOILUTSequence=[table(16)]))
    assert difference(slices, deep) < 1
    assert slices.notes[0].startswith("its VOI LUT has less bits than it says: grey values")


@pytest.mark.parametrize("syntax", [ExplicitVRLittleEndian, ImplicitVRLittleEndian])
@pytest.mark.parametrize("meta", [True, False])
def test_dicom_without_preamble_is_read(tmp_path, plain, syntax, meta):
    path = dicom(tmp_path / "a.dcm", DEEP, **WINDOW)
    dataset = pydicom.dcmread(path)
    dataset.file_meta.TransferSyntaxUID = syntax
    dataset.save_as(path)
    content = path.read_bytes()
    path.write_bytes(content[132 if meta else 144 + int.from_bytes(content[140:144], "little") :])
    slices = cut(path)
    assert difference(slices, plain) < 1
    assert slices.table["sop_uid"].tolist() == [dataset.SOPInstanceUID]


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


def test_dicom_in_colour_of_several_frames_or_compressed_is_read(tmp_path, plain, deep):
    rgb = np.stack([chest()] * 3, 2)
    colour = {"SamplesPerPixel": 3, "PhotometricInterpretation": "RGB", "PlanarConfiguration": 0}
    bits = {"BitsAllocated": 8, "BitsStored": 8, "HighBit": 7}
    slices = cut(dicom(tmp_path / "a.dcm", rgb, **colour, **bits))
    assert difference(slices, plain) == 0
    frames = np.stack([DEEP, 4080 - DEEP])
    slices = cut(dicom(tmp_path / "b.dcm", DEEP, NumberOfFrames=2, PixelData=frames.tobytes()))
    assert difference(slices, deep) < 1
    assert slices.notes[0] == "the first of 2 frames"
    tall = {"BitsAllocated": 16, "BitsStored": 16, "HighBit": 15}
    slices = cut(dicom(tmp_path / "d.dcm", np.stack([DEEP] * 3, 2), **colour, **tall))
    assert difference(slices, deep) < 1
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
        assert difference(cut(tmp_path / "c.dcm"), deep) < 1


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
        ({"BitsStored": 20}, Reason.UNREADABLE),
        ({"RescaleSlope": 1, "WindowCenter": 9, "WindowWidth": 9, "Rows": 0}, Reason.UNREADABLE),
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
