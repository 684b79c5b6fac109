"""Files in a series' folder that are no images of it: a disc's directory, and what viewers and systems leave behind."""

from enum import StrEnum
from pathlib import Path

from pydicom.uid import MediaStorageDirectoryStorage

from lungsynth.dicom.header import is_dicom, read_dataset


class Stray(StrEnum):
    """The kinds, as a note calls one of them."""

    DIRECTORY = "DICOMDIR"
    OTHER = "stray file"


DIRECTORIES = {"dicomdir", "dirfile"}
"""Names of the directory of a DICOM disc, today's and that of ACR-NEMA's days."""
NAMES = {
    *("version", "lockfile", "license", "readme", "changelog", "checksum", "checksums", "md5sums", "sha256sums"),
    *("@eadir", "__macosx", "lost+found"),
}
SUFFIXES = {
    *("inf", "ini", "db", "txt", "md", "xml", "htm", "html", "css", "js", "json", "csv", "tsv", "pdf"),
    *("md5", "sha1", "sha256", "log", "exe", "dll", "bat", "url", "lnk", "ico", "jpg", "png", "gif"),
}
"""Of files that no archive would give to an image, so that they are none if their content is no DICOM either."""


def named_like_stray(path: Path) -> Stray | None:
    """What a file is that by its name is no image and by its content no DICOM; none: it may be an image."""
    name = path.name.lower()
    if name in DIRECTORIES:
        return Stray.DIRECTORY
    if name not in NAMES and name.rpartition(".")[2] not in SUFFIXES:  # Path.suffix takes longer, of each slice
        return None
    try:
        with path.open("rb") as file:
            return None if is_dicom(file.read(4096)) else Stray.OTHER
    except OSError:
        return Stray.OTHER


def is_directory(path: Path) -> bool:
    """Whether a file, whatever its name, is the directory of a disc; a damaged image is not."""
    try:
        meta = read_dataset(path, specific_tags=["Modality"]).file_meta
        return bool(meta.get("MediaStorageSOPClassUID") == MediaStorageDirectoryStorage)
    except Exception:  # on corrupt bytes pydicom raises nearly anything
        return False
