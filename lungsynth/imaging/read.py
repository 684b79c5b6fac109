"""From a folder of DICOM CT instances to a volume in Hounsfield units, or to the reason why there is none."""

import warnings
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

import numpy as np
import pydicom
from pydicom.pixels import get_decoder

AIR_HU = -1024
MIN_SLICES = 5
"""Fewer tell neither the slice spacing nor lungs apart from bowel; localizers have one or two."""
MAX_TILT_DEG = 20.0
"""Further off the patient's axes than this (gantry tilt, oblique reformats), a slice counts as not axial."""


class Reason(StrEnum):
    """Why a series gives no slices: the closed list that every rejection draws on."""

    NOT_FETCHED = "not_fetched"  # the series store holds no whole copy of it
    UNREADABLE = "unreadable"  # a file is not DICOM, is cut short or is corrupt
    NO_DECODER = "no_decoder"  # no installed decoder for the transfer syntax
    NOT_CT = "not_ct"  # an instance of another modality
    NO_PIXEL_DATA = "no_pixel_data"
    NO_GEOMETRY = "no_geometry"  # position, orientation or pixel spacing is missing or makes no sense
    NOT_HU = "not_hu"  # no rescale to Hounsfield units
    NOT_AXIAL = "not_axial"  # a localizer, or tilted by more than MAX_TILT_DEG
    MIXED_SERIES = (
        "mixed_series"  # more than one series, orientation, size or spacing, or another series than asked for
    )
    TOO_FEW_SLICES = "too_few_slices"
    DUPLICATE_POSITIONS = "duplicate_positions"
    MISSING_SLICES = "missing_slices"  # a gap between neighbours
    NO_LUNGS = "no_lungs"  # no lungs found, or of an implausible volume
    NO_LESION_EVIDENCE = "no_lesion_evidence"  # a cancer patient's series of which no usable annotation says where
    NO_SLICES = "no_slices"  # no slice has both a label and enough lung


class SeriesRejected(Exception):  # noqa: N818 - an outcome of a series, which the run records and goes on
    """A series is of no use, for a reason from the closed list; `detail` names files and numbers, never a patient."""

    def __init__(self, reason: Reason, detail: str) -> None:
        super().__init__(reason, detail)
        self.reason = reason
        self.detail = detail


@dataclass(frozen=True)
class Volume:
    """A CT series as radiologists view it: slices from feet to head, patient's right on the left, anterior on top.

    `hu` is int16, Z×Y×X, at least -1024, which also stands outside the field of view. `positions_mm` (Z, ascending) are
    the slices' places along `normal`, the unit vector in patient coordinates (DICOM LPS) that points to the head.
    `spacing_mm` is (row, column), the distance of neighbouring pixels down and across.
    """

    hu: np.ndarray
    positions_mm: np.ndarray
    sop_uids: tuple[str, ...]
    spacing_mm: tuple[float, float]
    thickness_mm: float
    normal: np.ndarray
    frame_of_reference_uid: str
    series_uid: str
    manufacturer: str

    @property
    def slice_spacing_mm(self) -> float:
        """Median distance of neighbouring slices."""
        return float(np.median(np.diff(self.positions_mm)))


@dataclass(frozen=True)
class _Instance:
    hu: np.ndarray
    position: np.ndarray
    orientation: np.ndarray
    spacing_mm: np.ndarray
    thickness_mm: float | None
    sop_uid: str
    series_uid: str
    frame_of_reference_uid: str
    manufacturer: str


def read_series(folder: Path) -> Volume:
    """Read the series whose instances are the files of `folder`.

    Raises:
        SeriesRejected: for every reason in `Reason` down to `MISSING_SLICES`.
    """
    paths = sorted(folder.iterdir()) if folder.is_dir() else []
    if not paths:
        raise SeriesRejected(Reason.NOT_FETCHED, "its folder is missing or empty")
    with warnings.catch_warnings():
        # Archived data are full of values that break their own format in ways that do not matter here.
        warnings.filterwarnings("ignore", module="pydicom")
        instances = [_read_instance(path) for path in paths]
    _check_uniform(instances)
    if len(instances) < MIN_SLICES:
        raise SeriesRejected(Reason.TOO_FEW_SLICES, f"{len(instances)} of at least {MIN_SLICES}")
    first = instances[0]
    axes = _AxialAxes.of(first.orientation)
    instances.sort(key=lambda instance: float(instance.position @ axes.normal))
    positions = np.array([instance.position @ axes.normal for instance in instances])
    _check_positions(positions)
    row, column = (float(value) for value in (first.spacing_mm[::-1] if axes.transposed else first.spacing_mm))
    return Volume(
        hu=np.stack([axes.apply(instance.hu) for instance in instances]),
        positions_mm=positions,
        sop_uids=tuple(instance.sop_uid for instance in instances),
        spacing_mm=(row, column),
        thickness_mm=first.thickness_mm or float(np.median(np.diff(positions))),
        normal=axes.normal,
        frame_of_reference_uid=first.frame_of_reference_uid,
        series_uid=first.series_uid,
        manufacturer=first.manufacturer,
    )


def _read_instance(path: Path) -> _Instance:
    try:
        return _instance(pydicom.dcmread(path))
    except SeriesRejected as rejected:
        raise SeriesRejected(rejected.reason, f"{path.name}: {rejected.detail}") from None
    except Exception as error:  # on corrupt bytes pydicom raises nearly anything, from EOFError to struct.error
        raise SeriesRejected(Reason.UNREADABLE, f"{path.name}: {type(error).__name__}") from error


def _instance(dataset: pydicom.Dataset) -> _Instance:
    if dataset.get("Modality") != "CT":
        raise SeriesRejected(Reason.NOT_CT, f"modality {dataset.get('Modality')}")
    if "LOCALIZER" in dataset.get("ImageType", ()):
        raise SeriesRejected(Reason.NOT_AXIAL, "a localizer")
    if "PixelData" not in dataset:
        raise SeriesRejected(Reason.NO_PIXEL_DATA, "no pixel data")
    thickness = dataset.get("SliceThickness")
    return _Instance(
        hu=_hounsfield(dataset),
        position=_vector(dataset, "ImagePositionPatient", 3),
        orientation=_vector(dataset, "ImageOrientationPatient", 6),
        spacing_mm=_vector(dataset, "PixelSpacing", 2),
        thickness_mm=float(thickness) if thickness else None,
        sop_uid=str(dataset.SOPInstanceUID),
        series_uid=str(dataset.SeriesInstanceUID),
        frame_of_reference_uid=str(dataset.get("FrameOfReferenceUID", "")),
        manufacturer=str(dataset.get("Manufacturer", "")),
    )


def _vector(dataset: pydicom.Dataset, keyword: str, length: int) -> np.ndarray:
    vector = np.array(dataset.get(keyword) or (), dtype=np.float64)
    if vector.shape != (length,) or not np.isfinite(vector).all():
        raise SeriesRejected(Reason.NO_GEOMETRY, f"no {keyword} of {length} numbers")
    return vector


def _hounsfield(dataset: pydicom.Dataset) -> np.ndarray:
    """Stored values to HU, int16 Y×X, by the slice's own rescale; padding and all below air become air."""
    rescale = (dataset.get("RescaleSlope"), dataset.get("RescaleIntercept"))
    if None in rescale or not rescale[0]:
        raise SeriesRejected(Reason.NOT_HU, "no rescale slope and intercept")
    if dataset.get("RescaleType") not in (None, "", "HU", "US"):  # US: unspecified
        raise SeriesRejected(Reason.NOT_HU, f"rescale type {dataset.RescaleType}")
    if dataset.get("SamplesPerPixel", 1) != 1:
        raise SeriesRejected(Reason.NOT_HU, "a colour image")
    if not get_decoder(dataset.file_meta.TransferSyntaxUID).is_available:
        raise SeriesRejected(Reason.NO_DECODER, f"transfer syntax {dataset.file_meta.TransferSyntaxUID.name}")
    stored = dataset.pixel_array
    hu = np.multiply(stored, float(rescale[0]), dtype=np.float32)
    hu += float(rescale[1])
    np.rint(hu, out=hu)
    np.clip(hu, AIR_HU, np.iinfo(np.int16).max, out=hu)
    if (padding := dataset.get("PixelPaddingValue")) is not None:
        limit = dataset.get("PixelPaddingRangeLimit", padding)
        low, high = sorted((_as_stored(padding, stored.dtype), _as_stored(limit, stored.dtype)))
        hu[(stored >= low) & (stored <= high)] = AIR_HU
    return hu.astype(np.int16)


def _as_stored(value: int, dtype: np.dtype) -> int:
    """Undo a wrong VR: -2000 in 16 signed bits is often written as the unsigned 63536, and the other way round."""
    unsigned = np.array(value % (1 << 8 * dtype.itemsize), dtype=f"u{dtype.itemsize}")
    return int(unsigned.view(dtype))


@dataclass(frozen=True)
class _AxialAxes:
    """How to re-index a slice into the standard axial view: by transposition and mirroring, so without resampling."""

    transposed: bool
    flip_rows: bool
    flip_columns: bool
    normal: np.ndarray

    @classmethod
    def of(cls, orientation: np.ndarray) -> "_AxialAxes":
        """`orientation` (6) holds the directions of a growing column index, then of a growing row index."""
        across, down = orientation[:3], orientation[3:]
        normal = np.cross(across, down)
        if not np.allclose([across @ across, down @ down, across @ down], [1, 1, 0], atol=0.01):
            raise SeriesRejected(Reason.NO_GEOMETRY, "row and column directions are not orthogonal unit vectors")
        transposed = bool(abs(across[1]) > abs(across[0]))
        if transposed:
            across, down = down, across
        if min(abs(across[0]), abs(down[1]), abs(normal[2])) < np.cos(np.deg2rad(MAX_TILT_DEG)):
            raise SeriesRejected(Reason.NOT_AXIAL, f"orientation {np.round(orientation, 2).tolist()}")
        return cls(transposed, bool(down[1] < 0), bool(across[0] < 0), normal * np.sign(normal[2]))

    def apply(self, image: np.ndarray) -> np.ndarray:
        """A view of the Y×X `image` with x growing to the patient's left and y to the back."""
        image = image.T if self.transposed else image
        return image[:: -1 if self.flip_rows else 1, :: -1 if self.flip_columns else 1]


def _check_uniform(instances: list[_Instance]) -> None:
    first = instances[0]
    if not (first.spacing_mm > 0).all():
        raise SeriesRejected(Reason.NO_GEOMETRY, "pixel spacing is not positive")
    uniform = {
        "series": len({one.series_uid for one in instances}) == 1,
        "frame of reference": len({one.frame_of_reference_uid for one in instances}) == 1,
        "image size": len({one.hu.shape for one in instances}) == 1,
        "pixel spacing": np.ptp([one.spacing_mm for one in instances], axis=0).max() < 1e-3,
        "orientation": np.ptp([one.orientation for one in instances], axis=0).max() < 1e-3,
    }
    if differing := [name for name, same in uniform.items() if not same]:
        raise SeriesRejected(Reason.MIXED_SERIES, f"instances differ in {', '.join(differing)}")


def _check_positions(positions: np.ndarray) -> None:
    steps = np.diff(positions)
    usual = float(np.median(steps))
    if repeated := int((steps < 0.01).sum()):
        raise SeriesRejected(Reason.DUPLICATE_POSITIONS, f"{repeated} of {len(positions)} slices")
    if steps.max() > 1.5 * usual:
        where = positions[int(steps.argmax())]
        detail = f"a gap of {steps.max():.2f} mm at {where:.1f} mm, where slices are {usual:.2f} mm apart"
        raise SeriesRejected(Reason.MISSING_SLICES, detail)
