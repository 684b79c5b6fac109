"""Reads the few attributes of a DICOM file that slices need, much faster than the whole data set."""

import struct
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import pydicom
from pydicom.charset import convert_encodings
from pydicom.datadict import dictionary_VR, tag_for_keyword
from pydicom.dataelem import RawDataElement, convert_raw_data_element
from pydicom.tag import BaseTag
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    RLELossless,
)
from pydicom.valuerep import EXPLICIT_VR_LENGTH_32, VR

KEYWORDS = (
    "SpecificCharacterSet",
    "ImageType",
    "SOPClassUID",
    "SOPInstanceUID",
    "Modality",
    "ConversionType",
    "Manufacturer",
    "SliceThickness",
    "SeriesInstanceUID",
    "InstanceNumber",
    "InConcatenationTotalNumber",
    "ImagePositionPatient",
    "ImageOrientationPatient",
    "FrameOfReferenceUID",
    "SamplesPerPixel",
    "PhotometricInterpretation",
    "NumberOfFrames",
    "Rows",
    "Columns",
    "PixelSpacing",
    "BitsAllocated",
    "BitsStored",
    "HighBit",
    "PixelRepresentation",
    "PixelPaddingValue",
    "PixelPaddingRangeLimit",
    "BurnedInAnnotation",
    "RescaleIntercept",
    "RescaleSlope",
    "RescaleType",
    "LossyImageCompression",
)
NATIVE = (ExplicitVRLittleEndian, ImplicitVRLittleEndian)
"""Transfer syntaxes whose pixels lie in the file as they are."""
BIT_FOR_BIT = (*NATIVE, DeflatedExplicitVRLittleEndian, ExplicitVRBigEndian, RLELossless)
"""Transfer syntaxes that keep all allocated bits; in the others values begin at the lowest bit."""

_HEAD_BYTES = 1 << 16
_SNIFFED_BYTES = 4096
UNDEFINED = 0xFFFFFFFF
"""The length in elements that end by a delimiter, such as compressed pixels."""
_PIXEL_DATA = 0x7FE00010
_ITEM, _ITEM_END, _SEQUENCE_END = 0xFFFEE000, 0xFFFEE00D, 0xFFFEE0DD
_LONG_VR = frozenset(vr.value.encode() for vr in EXPLICIT_VR_LENGTH_32)
_VR = frozenset(vr.value.encode() for vr in VR if len(vr.value) == 2)
_WANTED = {tag_for_keyword(keyword): keyword for keyword in KEYWORDS}
_IMPLICIT, _EXPLICIT, _LENGTH = struct.Struct("<HHI"), struct.Struct("<HH2sH"), struct.Struct("<I")


@dataclass(frozen=True)
class Header:
    """`values` by keyword, as pydicom gives them; `pixels_at` is where the value of Pixel Data begins in the file.

    `pixel_bytes` is its length, 0xFFFFFFFF for encapsulated (compressed) pixels.
    """

    values: dict[str, Any]
    transfer_syntax: str
    pixels_at: int | None
    pixel_bytes: int


class _Unusual(Exception):  # noqa: N818 - a case for pydicom, not an error
    """The file has a rare layout, which pydicom has to read."""


def read_header(path: Path) -> Header:
    """Read a DICOM file up to its pixels.

    pydicom reads files that the quick scan does not expect: deflated and big endian ones, and files that break the
    standard in ways that pydicom can handle.

    Raises:
        Exception: nearly any, where the file is not DICOM or is corrupt.
    """
    try:
        with path.open("rb", buffering=0) as file:
            head = file.read(_HEAD_BYTES)
            try:
                return scan_header(head)
            except struct.error:  # the header is longer than that
                return scan_header(head + file.read())
    except (_Unusual, struct.error):
        return parse_header(path)


def is_dicom(head: bytes) -> bool:
    """Whether a file with these first bytes is DICOM, by its preamble, or, since old files have none, by its elements.

    The first elements must be of group 2 or 8, ascend, and have plausible even lengths, with VR or without.
    """
    if head[128:132] == b"DICM" or (head[:2] == b"\0\x08" and head[4:6] in _VR):  # the latter is big endian
        return True
    return _begins(head, implicit=False) or _begins(head, implicit=True)


def _begins(head: bytes, implicit: bool) -> bool:
    at, last = 0, -1
    try:
        for _ in range(3):
            tag, _, start, length = _element(head, at, implicit)
            if not last < tag < 0x00090000 or tag >> 16 not in (2, 8) or length > 1024 or length % 2:
                return False
            at, last = start + length, tag
    except (_Unusual, struct.error):
        return False
    return True


def read_dataset(
    path: Path, stop_before_pixels: bool = False, specific_tags: list[str] | None = None
) -> pydicom.FileDataset:
    """A data set read by pydicom. Where the file meta information lacks the transfer syntax, it is guessed.

    Raises:
        Exception: nearly any, where the file is not DICOM or is corrupt.
    """
    with path.open("rb") as file:
        force = is_dicom(file.read(_SNIFFED_BYTES))
    dataset = pydicom.dcmread(
        path, stop_before_pixels=stop_before_pixels, specific_tags=list(specific_tags or []) or None, force=force
    )
    if not dataset.file_meta.get("TransferSyntaxUID"):
        implicit, little = dataset.original_encoding
        plain = ExplicitVRLittleEndian if little else ExplicitVRBigEndian
        dataset.file_meta.TransferSyntaxUID = ImplicitVRLittleEndian if implicit else plain
    return dataset


def parse_header(path: Path) -> Header:
    """The result of `read_header`, by pydicom."""
    dataset = read_dataset(path, specific_tags=[*KEYWORDS, "PixelData"])
    values = {keyword: dataset[keyword].value for keyword in KEYWORDS if keyword in dataset}
    raw = dataset.get_item("PixelData")
    at, length = (raw.value_tell, raw.length) if isinstance(raw, RawDataElement) else (None, 0)
    if "SOPInstanceUID" not in values and "MediaStorageSOPInstanceUID" in dataset.file_meta:
        values["SOPInstanceUID"] = dataset.file_meta.MediaStorageSOPInstanceUID
    return Header(values, str(dataset.file_meta.TransferSyntaxUID), at, length)


def scan_header(data: bytes) -> Header:
    """The result of `read_header`, from the first bytes of a file; struct.error if they are too few."""
    if data[128:132] != b"DICM":
        raise _Unusual
    at, syntax = 132, ""
    while data[at : at + 2] == b"\x02\x00":  # the file meta information
        tag, vr, start, length = _element(data, at, implicit=False)
        at = start + length
        if tag == 0x00020010:
            syntax = data[start:at].decode("ascii").rstrip("\0 ")
    implicit = syntax == ImplicitVRLittleEndian
    if syntax in ("", DeflatedExplicitVRLittleEndian, ExplicitVRBigEndian) or (
        implicit and data[at + 4 : at + 6] in _VR
    ):
        raise _Unusual
    values: dict[str, Any] = {}
    charset = b""
    while True:
        tag, vr, start, length = _element(data, at, implicit)
        if tag == _PIXEL_DATA:
            return Header(values, syntax, start, length)
        if length == UNDEFINED:
            at = sequence_end(data, start, implicit or vr == b"UN")
            continue
        at = start + length
        if tag in _WANTED:
            if tag == 0x00080005:
                charset = data[start:at]
            values[_WANTED[tag]] = _value(tag, vr, data[start:at], charset=charset)


def _element(data: bytes, at: int, implicit: bool) -> tuple[int, bytes, int, int]:
    """Tag, VR, start of the value and its length in bytes of the element that begins at `at`."""
    if implicit or data[at : at + 2] == b"\xfe\xff":  # delimiters have no VR
        group, number, length = _IMPLICIT.unpack_from(data, at)
        return group << 16 | number, b"", at + 8, length
    group, number, vr, length = _EXPLICIT.unpack_from(data, at)
    if vr in _LONG_VR:
        return group << 16 | number, vr, at + 12, _LENGTH.unpack_from(data, at + 8)[0]
    if vr not in _VR:
        raise _Unusual
    return group << 16 | number, vr, at + 8, length


def sequence_end(data: bytes, at: int, implicit: bool) -> int:
    """The end of a sequence of undefined length whose first item begins at `at`; struct.error if it is cut short."""
    while True:
        tag, _, at, length = _element(data, at, implicit=True)
        if tag == _SEQUENCE_END:
            return at
        if tag != _ITEM:
            raise _Unusual
        at = _item_end(data, at, implicit) if length == UNDEFINED else at + length


def _item_end(data: bytes, at: int, implicit: bool) -> int:
    while True:
        tag, vr, start, length = _element(data, at, implicit)
        if tag == _ITEM_END:
            return start
        at = sequence_end(data, start, implicit or vr == b"UN") if length == UNDEFINED else start + length


@lru_cache(maxsize=4096)  # most values are the same in all slices of a series
def _value(tag: int, vr: bytes, value: bytes, *, charset: bytes) -> Any:
    name = vr.decode() or dictionary_VR(tag)
    # Padding is US or SS, as the pixels are; `padding_of` corrects a wrong choice.
    name = "US" if " or " in name else name
    raw = RawDataElement(BaseTag(tag), name, len(value), value, 0, not vr, True)
    encoding = convert_encodings(charset.decode("ascii").strip().split("\\")) if charset else None
    return convert_raw_data_element(raw, encoding=encoding).value
