"""The quick scan of a file's header gives what pydicom gives, or leaves the file to it."""

import struct
from pathlib import Path

import numpy as np
import pydicom
import pytest
from pydicom import Dataset
from pydicom.uid import DeflatedExplicitVRLittleEndian, ExplicitVRLittleEndian, ImplicitVRLittleEndian

from lungsynth.dicom.header import parse_header, read_header, scan_header

STORED = np.zeros((1, 4, 6), np.uint16)


def a_file(write_ct, change, syntax=ExplicitVRLittleEndian) -> Path:
    def both(z, ct):
        ct.file_meta.TransferSyntaxUID = syntax
        change(ct)

    return next(write_ct(STORED, both).iterdir())


def nested(ct):
    """Sequences within sequences, of defined and undefined length, and much private data before the pixels."""
    inner, outer = Dataset(), Dataset()
    inner.CodeValue, inner.Rows = "1", 77
    outer.PurposeOfReferenceCodeSequence = [inner, inner]
    outer.PixelSpacing = [9, 9]
    ct.ReferencedImageSequence = [outer, Dataset(), outer]
    ct.SourceImageSequence = []
    for sequence in (ct["ReferencedImageSequence"], outer["PurposeOfReferenceCodeSequence"]):
        sequence.is_undefined_length = True
    inner.is_undefined_length_sequence_item = True
    outer.is_undefined_length_sequence_item = True
    ct.private_block(0x0029, "SOMETHING", create=True).add_new(0x10, "OB", bytes(100_000))


def texts(ct):
    ct.SpecificCharacterSet, ct.Manufacturer = "ISO_IR 192", "日本 CT"
    ct.ImageType = ["ORIGINAL", "PRIMARY", "AXIAL", "", "CT_SOM5 SPI"]
    ct.InstanceNumber, ct.SliceThickness, ct.ConversionType = None, "", ""
    ct.ImagePositionPatient = [1e-3, -1.5e2, 3]


def padding(ct):
    ct.PixelRepresentation = 0
    ct.add_new("PixelPaddingValue", "US", 63536)


@pytest.mark.parametrize("change", [nested, texts, padding])
@pytest.mark.parametrize("syntax", [ExplicitVRLittleEndian, ImplicitVRLittleEndian], ids=lambda uid: uid.keyword)
def test_scan_and_pydicom_agree(write_ct, syntax, change):
    path = a_file(write_ct, change, syntax)
    assert (change is nested) == (path.read_bytes().count(b"\xff\xff\xff\xff") > 4)
    header = scan_header(path.read_bytes())
    assert header == read_header(path) == parse_header(path)
    assert header.values["Rows"] == 4
    assert path.read_bytes()[header.pixels_at :] == STORED.tobytes()
    assert header.pixel_bytes == STORED.nbytes


def test_what_the_scan_leaves_to_pydicom(write_ct):
    deflated = a_file(write_ct, texts, DeflatedExplicitVRLittleEndian)
    assert read_header(deflated).values == parse_header(deflated).values
    no_pixels = a_file(write_ct, lambda ct: delattr(ct, "PixelData"))
    assert read_header(no_pixels).pixels_at is None
    path = a_file(write_ct, texts)
    # A file that says that it is implicit while it is not.
    lie = bytearray(path.read_bytes())
    at = lie.index(b"1.2.840.10008.1.2.1\0")
    lie[at : at + 20] = b"1.2.840.10008.1.2\0\0\0"
    path.write_bytes(lie)
    with pytest.warns(UserWarning, match="found explicit VR"):
        assert read_header(path).values["Rows"] == 4


def test_lengths_that_lie_end_the_scan(write_ct):
    data = bytearray(a_file(write_ct, texts).read_bytes())
    at = data.index(b"\x28\x00\x10\x00US")  # Rows
    struct.pack_into("<H", data, at + 6, 60_000)
    with pytest.raises(struct.error):
        scan_header(bytes(data))


def test_real_headers(mirror):
    for folder in sorted((mirror / "idc-open-data").iterdir()):
        for path in sorted(folder.iterdir())[::10]:
            head = path.read_bytes()
            if pydicom.dcmread(path, specific_tags=["Modality"]).Modality == "CT":
                assert scan_header(head) == parse_header(path)
