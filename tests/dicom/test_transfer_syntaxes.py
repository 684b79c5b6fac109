"""Every transfer syntax gives the same HU; GDCM writes the files where it can, so that no codec checks itself."""

import imagecodecs
import numpy as np
import pydicom
import pytest
from pydicom.encaps import encapsulate
from pydicom.uid import (
    HTJ2K,
    JPEG2000,
    MPEG2MPML,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    HTJ2KLossless,
    HTJ2KLosslessRPCL,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    JPEGExtended12Bit,
    JPEGLossless,
    JPEGLosslessSV1,
    JPEGLSLossless,
    JPEGLSNearLossless,
    RLELossless,
)

from lungsynth.dataset.rejection import Reason, SeriesRejected
from lungsynth.dicom.read import read_series

gdcm = pytest.importorskip("gdcm")
GDCM_NAMES = {
    JPEGLossless: gdcm.TransferSyntax.JPEGLosslessProcess14,
    JPEGLosslessSV1: gdcm.TransferSyntax.JPEGLosslessProcess14_1,
    JPEGLSLossless: gdcm.TransferSyntax.JPEGLSLossless,
    JPEG2000Lossless: gdcm.TransferSyntax.JPEG2000Lossless,
    JPEG2000: gdcm.TransferSyntax.JPEG2000,
    RLELossless: gdcm.TransferSyntax.RLELossless,
}
y, x = np.mgrid[:48, :40]
SMOOTH = np.stack([1500 + 1400 * np.sin(x / 9 + z / 5) * np.cos(y / 11) for z in range(6)])
"""Stored values 100 to 2900, so 12 bits."""


def stored(kind: str) -> np.ndarray:
    """12 unsigned bits, or 16 signed ones with negative values."""
    return SMOOTH.astype(np.uint16) if kind == "u12" else (SMOOTH - 1024).astype(np.int16)


def described(kind):
    def change(z, ct):
        if kind == "u12":
            ct.BitsStored, ct.HighBit = 12, 11
        else:
            ct.RescaleIntercept = 0

    return change


def with_codec(kind, syntax, encode):
    """A change that replaces an instance's pixels by what `encode` makes of them."""

    def change(z, ct):
        described(kind)(z, ct)
        ct.PixelData = encapsulate([bytes(encode(stored(kind)[z]))])
        ct["PixelData"].VR = "OB"
        ct.file_meta.TransferSyntaxUID = syntax

    return change


def by_gdcm(path, syntax):
    reader = gdcm.ImageReader()
    reader.SetFileName(str(path))
    assert reader.Read()
    change = gdcm.ImageChangeTransferSyntax()
    change.SetTransferSyntax(gdcm.TransferSyntax(GDCM_NAMES[syntax]))
    change.SetInput(reader.GetImage())
    assert change.Change()
    writer = gdcm.ImageWriter()
    writer.SetFileName(str(path))
    writer.SetFile(reader.GetFile())
    writer.SetImage(change.GetOutput())
    assert writer.Write()


def error(folder):
    """Largest difference from the true HU."""
    return np.abs(read_series(folder).hu - (np.trunc(SMOOTH).astype(int) - 1024)).max()


@pytest.mark.parametrize("kind", ["u12", "i16"])
@pytest.mark.parametrize("syntax", GDCM_NAMES, ids=lambda syntax: syntax.keyword)
def test_lossless_files_of_gdcm(write_ct, syntax, kind):
    folder = write_ct(stored(kind), described(kind))
    for path in folder.iterdir():
        by_gdcm(path, syntax)
        assert pydicom.dcmread(path).file_meta.TransferSyntaxUID == syntax
    assert error(folder) <= (kind == "i16")  # -0.5 is truncated to 0, not to -1


@pytest.mark.parametrize(
    "syntax", [ImplicitVRLittleEndian, DeflatedExplicitVRLittleEndian], ids=lambda uid: uid.keyword
)
def test_uncompressed_files(write_ct, syntax):
    def change(z, ct):
        described("u12")(z, ct)
        ct.file_meta.TransferSyntaxUID = syntax

    assert error(write_ct(stored("u12"), change)) == 0


def test_big_endian(write_ct):
    def change(z, ct):
        described("u12")(z, ct)
        ct.PixelData = stored("u12")[z].astype(">u2").tobytes()
        ct.file_meta.TransferSyntaxUID = ExplicitVRBigEndian

    assert error(write_ct(stored("u12"), change)) == 0


@pytest.mark.parametrize("syntax", [HTJ2K, HTJ2KLossless, HTJ2KLosslessRPCL], ids=lambda syntax: syntax.keyword)
@pytest.mark.parametrize("kind", ["u12", "i16"])
def test_high_throughput_jpeg_2000(write_ct, syntax, kind):
    assert error(write_ct(stored(kind), with_codec(kind, syntax, imagecodecs.htj2k_encode))) <= (kind == "i16")


def test_lossy_files_come_close_and_say_so(write_ct):
    def extended(pixels):
        return imagecodecs.jpeg_encode(pixels, level=98, bitspersample=12)

    def near(pixels):
        return imagecodecs.jpegls_encode(pixels, level=2)

    for syntax, encode, tolerance in ((JPEGExtended12Bit, extended, 12), (JPEGLSNearLossless, near, 2)):
        folder = write_ct(stored("u12"), with_codec("u12", syntax, encode))
        assert 0 < error(folder) <= tolerance
        assert any("loss" in note for note in read_series(folder).notes)


def test_baseline_jpeg_of_eight_bits(write_ct):
    def change(z, ct):
        eight = (SMOOTH[z] / 12).astype(np.uint8)
        with_codec("u12", JPEGBaseline8Bit, lambda _: imagecodecs.jpeg_encode(eight, level=98))(z, ct)
        ct.BitsAllocated, ct.BitsStored, ct.HighBit, ct.RescaleSlope = 8, 8, 7, 12

    assert error(write_ct(stored("u12"), change)) <= 60  # 5 grey values


def test_several_fragments_make_one_frame(write_ct):
    def change(z, ct):
        code = imagecodecs.jpeg_encode(stored("u12")[z], lossless=True, bitspersample=12)
        with_codec("u12", JPEGLosslessSV1, lambda _: code)(z, ct)
        ct.PixelData = encapsulate([code], fragments_per_frame=3)

    assert error(write_ct(stored("u12"), change)) == 0


@pytest.mark.parametrize("syntax", [*GDCM_NAMES, JPEGExtended12Bit], ids=lambda syntax: syntax.keyword)
def test_cut_and_foreign_code_is_unreadable(write_ct, syntax):
    def extended(pixels):
        return imagecodecs.jpeg_encode(pixels, level=98, bitspersample=12)

    change = with_codec("u12", syntax, extended) if syntax == JPEGExtended12Bit else described("u12")
    folder = write_ct(stored("u12"), change)
    path = next(folder.iterdir())
    if syntax != JPEGExtended12Bit:
        by_gdcm(path, syntax)
    whole = path.read_bytes()
    ct = pydicom.dcmread(path)
    for damaged in (whole[:-10], whole[:-100], whole[: -len(ct.PixelData) // 2]):
        path.write_bytes(damaged)
        with pytest.raises(SeriesRejected) as caught:
            read_series(folder)
        assert caught.value.reason is Reason.UNREADABLE
    ct.PixelData = encapsulate([b"no picture"])
    ct.save_as(path)
    with pytest.raises(SeriesRejected) as caught:
        read_series(folder)
    assert caught.value.reason is Reason.UNREADABLE


def test_what_no_decoder_knows(write_ct):
    folder = write_ct(stored("u12"), with_codec("u12", MPEG2MPML, bytes))
    with pytest.raises(SeriesRejected) as caught:
        read_series(folder)
    assert caught.value.reason is Reason.NO_DECODER
