"""Small DICOM series made on the spot."""

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pydicom
import pytest
from pydicom.dataset import FileMetaDataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, generate_uid


def ct_instances(
    stored: np.ndarray, spacing_mm: tuple[float, float] = (2.5, 2.5), step_mm: float = 5.0
) -> Iterator[pydicom.Dataset]:
    """CT slices of stored values (Z×Y×X, int16 or uint16), from feet to head; HU are the stored values minus 1024."""
    series, frame = generate_uid(), generate_uid()
    for z, pixels in enumerate(stored):
        ct = pydicom.Dataset()
        ct.SOPClassUID, ct.SOPInstanceUID, ct.SeriesInstanceUID = CTImageStorage, generate_uid(), series
        ct.FrameOfReferenceUID, ct.Modality, ct.Manufacturer = frame, "CT", "SIEMENS"
        ct.InstanceNumber = len(stored) - z
        ct.ImageType = ["ORIGINAL", "PRIMARY", "AXIAL"]
        ct.ImageOrientationPatient = [1, 0, 0, 0, 1, 0]
        ct.ImagePositionPatient = [-100, -90, -200 + z * step_mm]
        ct.PixelSpacing, ct.SliceThickness = list(spacing_mm), step_mm
        ct.RescaleSlope, ct.RescaleIntercept, ct.RescaleType = 1, -1024, "HU"
        ct.SamplesPerPixel, ct.PhotometricInterpretation = 1, "MONOCHROME2"
        ct.Rows, ct.Columns = pixels.shape
        ct.BitsAllocated, ct.BitsStored, ct.HighBit = 16, 16, 15
        ct.PixelRepresentation = int(pixels.dtype.kind == "i")
        ct.add_new("PixelData", "OW", np.ascontiguousarray(pixels).tobytes())
        ct.file_meta = FileMetaDataset()
        ct.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
        yield ct


@pytest.fixture(scope="session")
def chest_hu() -> np.ndarray:
    """HU, 40×128×128 for pixels of 2.8 mm: a body on a table, a vessel in each of two lungs, a nodule on the pleura."""
    slices, size = 40, 128
    y, x = np.mgrid[:size, :size] / size - 0.5
    plane = np.full((size, size), -1000, dtype=np.int16)
    plane[(x / 0.42) ** 2 + (y / 0.32) ** 2 < 1] = 40
    plane[np.abs(y - 0.36) < 0.012] = 200
    hu = np.repeat(plane[None], slices, axis=0)
    for z in range(slices):
        radius = 0.2 * np.sin(np.pi * (z + 0.5) / slices)
        for side in (-1, 1):
            lung = ((x - 0.2 * side) / 0.75) ** 2 + y**2 < radius**2
            hu[z][lung] = -850
            hu[z][lung & (np.hypot(x - 0.2 * side, y) < 0.02)] = 30
    middle = slices // 2
    hu[middle - 2 : middle + 3, np.hypot(x - 0.33, y - 0.02) < 0.025] = 20
    return hu


Writer = Callable[..., Path]


@pytest.fixture
def write_ct(tmp_path: Path) -> Writer:
    """Write a series into a new folder; `change(z, dataset)` may alter each instance before it is written."""

    def write(
        stored: np.ndarray, change: Callable[[int, pydicom.Dataset], None] = lambda z, ct: None, **geometry: object
    ) -> Path:
        folder = tmp_path / f"series{len(list(tmp_path.iterdir()))}"
        folder.mkdir()
        for z, ct in enumerate(ct_instances(stored, **geometry)):
            change(z, ct)
            ct.file_meta.MediaStorageSOPClassUID = ct.SOPClassUID
            ct.file_meta.MediaStorageSOPInstanceUID = ct.SOPInstanceUID
            # Names in another order than the positions: nothing may rest on them.
            ct.save_as(folder / f"{(z * 7) % 101:03d}.dcm", enforce_file_format=True)
        return folder

    return write
