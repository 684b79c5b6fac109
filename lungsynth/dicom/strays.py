"""Files in a series' folder that are no images: DICOMDIR, and files of viewers and operating systems."""

from enum import StrEnum
from pathlib import Path

from pydicom.uid import MediaStorageDirectoryStorage

from lungsynth.dicom.header import is_dicom, read_dataset


class Stray(StrEnum):
    """Kinds of stray files, as notes name them."""

    DIRECTORY = "DICOMDIR"
    OTHER = "stray file"


DIRECTORIES = {"dicomdir", "dirfile"}
"""Names of a DICOM disc's directory: today's and that of ACR-NEMA."""
NAMES = {
    *("version", "lockfile", "license", "readme", "changelog", "checksum", "checksums", "md5sums", "sha256sums"),
    *("@eadir", "__macosx", "lost+found"),
}
SUFFIXES = {
    *("inf", "ini", "db", "txt", "md", "xml", "htm", "html", "css", "js", "json", "csv", "tsv", "pdf"),
    *("md5", "sha1", "sha256", "log", "exe", "dll", "bat", "url", "lnk", "ico", "jpg", "png", "gif"),
}
"""Suffixes that no archive gives to images; such a file is a stray if its content is no DICOM either."""


def named_like_stray(path: Path) -> Stray | None:
    """The kind of stray file, by name and content; none if the file may be an image."""
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
