"""Which segments of a DICOM SEG are lesions that may be cancer, by the codes that say what was segmented."""

import re
from collections import Counter
from collections.abc import Iterable

import pydicom

Code = tuple[str, str]
"""Coding scheme and value."""

ABNORMAL: set[Code] = {("SCT", "49755003"), ("SRT", "M-01000")}
"""Categories (DICOM CID 7150): morphologically abnormal (formerly altered) structure."""
LESIONS: set[Code] = {
    *(("SCT", value) for value in ("52988006", "27925004", "4147007")),  # lesion, nodule, mass
    *(("SCT", value) for value in ("108369006", "372087000", "86049000", "14799000", "128462008")),  # neoplasms
    *(("SCT", value) for value in ("427359005", "786838002", "309529002", "126713003")),  # of the lung: nodule … tumour
    *(("SCT", value) for value in ("93880001", "363358000", "94391008", "254637007", "254632001")),  # … its cancers
    *(("SCT", value) for value in ("254626006", "254634000", "35917007", "28899001", "1162767002", "68453008")),
    *(("SCT", value) for value in ("74364000", "128632008", "1187332001")),  # by tissue: adenocarcinoma … small cell
    *(("SRT", value) for value in ("M-01100", "M-03000", "M-03010", "M-80000", "M-80003", "M-80006", "M-8FFFF")),
    *(("DCM", value) for value in ("130051", "130052", "112074")),  # gross tumour volumes, target lesion
    *(("RADLEX", value) for value in ("RID38780", "RID3875", "RID3874", "RID3957")),
    *(("NCIT", value) for value in ("C3262", "C113842", "C81175", "C110961")),
}
"""Types (of CID 7151 and beyond) that are lesions whatever their category: some files file them under tissue or organ.

SNOMED CT, and what SNOMED RT, DICOM, RadLex and the NCI Thesaurus call the same.
"""
OTHER_FINDINGS: set[Code] = {
    *(("SCT", value) for value in ("60046008", "41699000", "373945007", "36118008")),  # effusions, pneumothorax
    *(("SCT", value) for value in ("87433001", "46621007", "40779009", "12295008")),  # emphysema, collapse, bronchi
    *(("SCT", value) for value in ("60567007", "9656002", "129614006", "233604007")),  # consolidation, pneumonia
    *(("SCT", value) for value in ("79654002", "19242006", "50960005", "6574001", "112674009", "45559001")),
    *(("SCT", value) for value in ("82650004", "18115005", "396339007", "55584005", "59282003")),  # chalk, clots
    *(("SRT", value) for value in ("M-36700", "M-36300", "M-37000", "M-54000", "M-55400", "M-35000")),
}
"""Types of abnormal structure that are no tumour; the fourth line is oedema, haemorrhage, necrosis and fibrosis."""
UNSPECIFIC: set[Code] = {("", ""), ("SCT", "85756007"), ("SRT", "T-D0050")}
"""No type, and `Tissue`, which 3D Slicer writes where nobody chose one: the label alone says what it is."""
SAYS_LESION = re.compile(
    r"\b(nodules?|tumou?rs?|mass|masses|lesions?|neoplasms?|cancers?|\w*carcinomas?|metastas[ei]s|gtv)\b"
)
SAYS_OTHER = re.compile(r"\b(no|non|not|without|minus|free|vessels?|airways?|bone mass|body mass|muscle mass)\b")
"""Words of a type's meaning, and of a label where the type is private or unspecific."""
PUBLIC = ("SCT", "SRT", "DCM", "FMA", "RADLEX", "NCIT", "UMLS", "UBERON", "MA", "BARI", "LN", "ICD10", "ICDO3")
SAME_SCHEMES = {"SNM3": "SRT", "99SDM": "SRT", "SNOMED-CT": "SCT", "SNOMEDCT": "SCT"}
NAMES: dict[Code, str] = {
    ("SCT", "91723000"): "anatomical structure",
    ("SRT", "T-D000A"): "anatomical structure",
    ("SCT", "123037004"): "body structure",
    ("SCT", "85756007"): "tissue",
    ("SRT", "T-D0050"): "tissue",
    ("SCT", "91772007"): "organ",
    ("SCT", "260787004"): "physical object",
    ("SRT", "A-00004"): "physical object",
    ("SCT", "309825002"): "spatial concept",
    ("SRT", "R-42018"): "spatial concept",
    ("SCT", "91720002"): "body substance",
    ("SRT", "T-D0080"): "body substance",
    ("SCT", "105590001"): "substance",
    ("SRT", "F-C0000"): "substance",
    ("SCT", "246464006"): "function",
    ("SCT", "49755003"): "another finding",
    ("SRT", "M-01000"): "another finding",
}
"""Names of categories in notes; the file's own text is not quoted, since it may contain anything."""


def is_lesion(segment: pydicom.Dataset) -> bool:
    """Whether an item of the Segment Sequence is, or may be, a nodule, a mass or another tumour."""
    category, kind = category_of(segment), _code(segment, "SegmentedPropertyTypeCodeSequence")
    if kind in LESIONS or category in LESIONS:
        return True
    if kind in OTHER_FINDINGS:
        return False
    if category in ABNORMAL or _says_lesion(_item(segment, "SegmentedPropertyTypeCodeSequence").get("CodeMeaning")):
        return True
    private = kind[0] not in PUBLIC or kind in UNSPECIFIC
    return private and _says_lesion(segment.get("SegmentLabel"))


def _says_lesion(text: object) -> bool:
    words = re.sub(r"[^a-z]+", " ", str(text or "").lower())
    return bool(SAYS_LESION.search(words)) and not SAYS_OTHER.search(words)


def category_of(segment: pydicom.Dataset) -> Code:
    """The segment's category, empty where it has none."""
    return _code(segment, "SegmentedPropertyCategoryCodeSequence")


def _item(segment: pydicom.Dataset, keyword: str) -> pydicom.Dataset:
    result: pydicom.Dataset = (segment.get(keyword) or [pydicom.Dataset()])[0]
    return result


def _code(segment: pydicom.Dataset, keyword: str) -> Code:
    item = _item(segment, keyword)
    scheme = str(item.get("CodingSchemeDesignator") or "").strip().upper()
    value = str(item.get("CodeValue") or item.get("LongCodeValue") or "").strip()
    return SAME_SCHEMES.get(scheme, scheme), value


def named(segments: Iterable[pydicom.Dataset]) -> str:
    """The number of segments of each category, for a note; it quotes no text of the file."""
    counts = Counter(_name(category_of(segment)) for segment in segments)
    return ", ".join(f"{count} {name}" for name, count in counts.most_common(6))


def _name(code: Code) -> str:
    shown = f"{code[0]} {code[1]}"
    return NAMES.get(code, shown if re.fullmatch(r"[A-Z0-9]{1,8} [\w.-]{1,16}", shown) else "without a known category")
