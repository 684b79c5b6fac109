"""The PatientID of a DICOM file."""

from pathlib import Path

from pydicom import dcmread
from pydicom.tag import Tag

from lungsynth.cohort.identity import names_nobody, normalised

PATIENT_ID = Tag("PatientID")


def patient_id(path: Path) -> str | None:
    """The file's PatientID, normalised; none where it is missing or a dummy such as ANONYMOUS, or the file is no DICOM.

    The raw bytes are decoded here, since pydicom's warnings about them would quote the value.
    """
    try:
        dataset = dcmread(path, stop_before_pixels=True, specific_tags=[PATIENT_ID], force=True)
        value = dataset.get_item(PATIENT_ID).value if PATIENT_ID in dataset else None
    except Exception:  # on damaged files pydicom raises whatever comes; reading the pixels will say what is wrong
        return None
    text = value.decode("utf-8", "surrogateescape") if isinstance(value, bytes) else str(value or "")
    name = normalised(text)
    return None if names_nobody(name) else name
