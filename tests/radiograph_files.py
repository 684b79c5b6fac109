"""Synthetic radiographs, and what becomes of the files that hold them."""

import io
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import (
    ExplicitVRLittleEndian,
    generate_uid,
)

from lungsynth.cohort.cohort import no_slice_labels, picture_uid
from lungsynth.dataset.rejection import SeriesRejected
from lungsynth.hashing import file_sha256
from lungsynth.slicing.radiographs import slices_of_image
from lungsynth.slicing.series import SeriesJob, SeriesSlices, SliceConfig

CLASSES = ("NORMAL", "PNEUMONIA")
WHOLE = SliceConfig(size=64, view="whole")
DX, SECONDARY_CAPTURE = "1.2.840.10008.5.1.4.1.1.1.1", "1.2.840.10008.5.1.4.1.1.7"


def chest(rows: int = 160, columns: int = 128) -> np.ndarray:
    """A synthetic radiograph, uint8 Y×X, that no rotation or flip leaves alone: two lungs, a heart, a bright marker."""
    y, x = np.mgrid[:rows, :columns] / [[[rows]], [[columns]]]
    body = 150 + 60 * y
    for centre, width in ((0.3, 0.13), (0.72, 0.16)):
        body -= 100 * np.exp(-(((x - centre) / width) ** 2) - ((y - 0.45) / 0.3) ** 2)
    body += 40 * np.exp(-(((x - 0.6) / 0.12) ** 2) - ((y - 0.62) / 0.12) ** 2)
    body[rows // 16 : rows // 8, columns // 16 : columns // 8] = 250
    return body.clip(0, 255).astype(np.uint8)


def lungs(rows: int = 160, columns: int = 128) -> np.ndarray:
    y, x = np.mgrid[:rows, :columns] / [[[rows]], [[columns]]]
    found = [((x - centre) / width) ** 2 + ((y - 0.45) / 0.3) ** 2 < 1 for centre, width in ((0.3, 0.13), (0.72, 0.16))]
    return found[0] | found[1]


def picture_job(path: Path, uid: str) -> SeriesJob:
    """The job of one image file."""
    return SeriesJob(uid, "P-1", "NORMAL", "folder", "train", "", path, (), (), None, no_slice_labels())


def cut(path: Path, config: SliceConfig = WHOLE, **fields: object) -> SeriesSlices:
    """What becomes of one image file."""
    job = picture_job(path, picture_uid(file_sha256(path)))
    return slices_of_image(replace(job, **fields), config, CLASSES)


def rejection(path: Path, config: SliceConfig = WHOLE, **fields: object) -> SeriesRejected:
    with pytest.raises(SeriesRejected) as caught:
        cut(path, config, **fields)
    assert str(path.parent) not in caught.value.detail
    assert "\n" not in caught.value.detail
    return caught.value


def difference(slices: SeriesSlices, expected: np.ndarray) -> float:
    return float(np.abs(slices.images[0].astype(int) - expected).mean())


def encoded(kind: str, picture: np.ndarray | None = None) -> bytes:
    content = io.BytesIO()
    Image.fromarray(chest() if picture is None else picture).save(content, kind)
    return content.getvalue()


def dicom(path: Path, stored: np.ndarray, **fields: object) -> Path:
    """A synthetic DX file with 12 of 16 bits stored; `fields` overrule, None removes."""
    meta = FileMetaDataset()
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset = Dataset()
    dataset.SOPClassUID, dataset.SOPInstanceUID, dataset.Modality = DX, generate_uid(), "DX"
    dataset.Rows, dataset.Columns, dataset.SamplesPerPixel = *stored.shape[:2], 1
    dataset.PhotometricInterpretation, dataset.PixelRepresentation = "MONOCHROME2", 0
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit = 16, 12, 11
    dataset.ImagerPixelSpacing = [0.2, 0.2]
    dataset.PixelData = stored.tobytes()
    for name, value in fields.items():
        if value is None:
            delattr(dataset, name)
        else:
            setattr(dataset, name, value)
    meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID = dataset.SOPClassUID, dataset.SOPInstanceUID
    dataset.file_meta = meta
    dataset.save_as(path, enforce_file_format=True)
    return path


DEEP = chest().astype(np.uint16) * 16  # 0 to 4080 of 4095


@pytest.fixture
def plain(tmp_path: Path) -> np.ndarray:
    """The slice that the chest gives as an 8-bit PNG."""
    Image.fromarray(chest()).save(tmp_path / "plain.png")
    return cut(tmp_path / "plain.png").images[0].astype(int)
