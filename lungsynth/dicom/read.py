"""From a folder of DICOM CT instances to a volume in Hounsfield units, or to the reason why there is none."""

import os
import warnings
from collections import Counter, defaultdict
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from pydicom.errors import InvalidDicomError

from lungsynth.dataset.rejection import Reason, SeriesRejected, preview_of
from lungsynth.dicom import recycled
from lungsynth.dicom.frames import AIR_HU, Frame, read_frames
from lungsynth.dicom.geometry import SAME_PLACE_MM, AxialAxes, check_spacing
from lungsynth.dicom.pixels import read_stored, to_hu
from lungsynth.dicom.strays import Stray, is_directory, named_like_stray

MIN_SLICES = 5
"""Least slices of a series. With fewer, spacing is unknown and lungs look like bowel; localizers have one or two."""
MAX_ODD = 0.1
"""Fraction of slices that may differ from the others in size, spacing or orientation; these are left out."""
MIN_FRACTION = 0.001
"""Least fraction of a volume that must have the HU of air and lungs, and the HU of soft tissue, for values to be HU."""


@dataclass(frozen=True)
class Volume:
    """A CT series as radiologists view it: slices from feet to head, patient's right on the left, anterior on top.

    `hu` is int16, Z×Y×X, at least -1024; outside the field of view it is -1024. `positions_mm` (Z, ascending) are the
    slices' positions along `normal`, the unit vector in patient coordinates (DICOM LPS) that points to the head.
    `sop_uids` name the slices: SOP Instance UID, and `<UID>#<frame>` in a multi-frame image, whose frames count from 1
    as in Referenced Frame Number. `instance_numbers` are none where a slice has none of its own.
    `spacing_mm` is (row, column), the distance of neighbouring pixels down and across. `corners_mm` (Z×3) are the
    centres of the slices' first pixels in patient coordinates; `down` and `across` are the unit vectors of growing rows
    and columns. `notes` list oddities that were corrected, left out or only recorded.
    """

    hu: np.ndarray
    positions_mm: np.ndarray
    sop_uids: tuple[str, ...]
    instance_numbers: tuple[int | None, ...]
    spacing_mm: tuple[float, float]
    thickness_mm: float
    corners_mm: np.ndarray
    down: np.ndarray
    across: np.ndarray
    normal: np.ndarray
    frame_of_reference_uid: str
    series_uid: str
    manufacturer: str
    notes: tuple[str, ...]

    @property
    def slice_spacing_mm(self) -> float:
        """Median distance of neighbouring slices."""
        return float(np.median(np.diff(self.positions_mm)))


def read_series(folder: Path) -> Volume:
    """Read the series whose instances are the files of `folder`, without hidden files (`.…`) and those of `strays`.

    Raises:
        SeriesRejected: for every reason in `Reason` down to `MISSING_SLICES`, with a slice as its preview where one was
            read.
    """
    with warnings.catch_warnings():
        # Archived files often violate DICOM in ways that do not matter here.
        warnings.filterwarnings("ignore", module="pydicom")
        frames, notes = _frames(folder)
        frames, left_out = _alike(frames)
        axes = AxialAxes.of(frames[0].orientation)
        frames.sort(key=lambda frame: (float(frame.position @ axes.normal), frame.uid))
        hu = _hounsfield(frames, axes)
    try:
        _check_values(hu)
        frames, hu, doubles = _single(frames, hu, axes)
        positions = np.array([frame.position @ axes.normal for frame in frames])
        gaps = check_spacing(positions)
    except SeriesRejected as rejected:
        raise SeriesRejected(rejected.reason, rejected.detail, preview_of(hu[len(hu) // 2])) from None
    first = frames[0]
    row, column = first.spacing_mm[::-1] if axes.transposed else first.spacing_mm
    shape = hu.shape[1], hu.shape[2]
    oddities = Counter(oddity for frame in frames for oddity in frame.oddities)
    return Volume(
        hu=hu,
        positions_mm=positions,
        sop_uids=tuple(frame.uid for frame in frames),
        instance_numbers=tuple(frame.instance_number for frame in frames),
        spacing_mm=(row, column),
        thickness_mm=first.thickness_mm or float(np.median(np.diff(positions))),
        corners_mm=np.array([axes.corner(frame.position, shape, (row, column)) for frame in frames]),
        down=axes.down,
        across=axes.across,
        normal=axes.normal,
        frame_of_reference_uid=first.frame_of_reference_uid,
        series_uid=first.series_uid,
        manufacturer=first.manufacturer,
        notes=(
            *notes,
            *left_out,
            *doubles,
            *gaps,
            *axes.notes(),
            *(f"{text} ({n} slices)" for text, n in oddities.items()),
        ),
    )


def _frames(folder: Path) -> tuple[list[Frame], list[str]]:
    """All slices of the folder's files, unordered, and notes on other files."""
    names = sorted(os.listdir(folder)) if folder.is_dir() else []  # noqa: PTH208 - paths take long to sort
    paths = [folder / name for name in names if not name.startswith(".")]
    read = [_read(path) for path in paths]
    of_files = [content for content in read if not isinstance(content, Stray)]
    if not of_files:
        raise SeriesRejected(Reason.NOT_FETCHED, "its folder is missing or empty")
    strays = Counter(content for content in read if isinstance(content, Stray))
    notes = [f"a {stray} left out" if count == 1 else f"{count} {stray}s left out" for stray, count in strays.items()]
    frames = [frame for of_file, _ in of_files for frame in of_file]
    if localizers := sum(count for _, count in of_files):
        notes.append(f"{localizers} localizers left out")
    if not frames:
        raise SeriesRejected(Reason.NOT_AXIAL, f"nothing but {localizers} localizers")
    parts = max(frame.parts for frame in frames)
    if parts > len(of_files):
        raise SeriesRejected(Reason.MISSING_SLICES, f"{len(of_files)} of {parts} files of a concatenation")
    return frames, notes


def _read(path: Path) -> tuple[list[Frame], int] | Stray:
    """A file's slices and the number of its localizers, or the kind of stray file."""
    if stray := named_like_stray(path):
        return stray
    try:
        return read_frames(path)
    except Exception as error:  # on corrupt bytes pydicom raises nearly anything, from EOFError to struct.error
        if is_directory(path):
            return Stray.DIRECTORY
        if isinstance(error, SeriesRejected):
            raise _of_file(error, path) from None
        raise SeriesRejected(Reason.UNREADABLE, f"{path.name}: {_cause(error)}") from error


def _cause(error: Exception) -> str:
    return "no DICOM" if isinstance(error, InvalidDicomError) else type(error).__name__


def _of_file(rejected: SeriesRejected, path: Path) -> SeriesRejected:
    return SeriesRejected(rejected.reason, f"{path.name}: {rejected.detail}")


def _alike(frames: list[Frame]) -> tuple[list[Frame], list[str]]:
    """The slices of the most common size, spacing and orientation, and notes on others; many others are an error."""
    if len({frame.series_uid for frame in frames}) > 1:
        raise SeriesRejected(Reason.MIXED_SERIES, "instances of more than one series")
    names = Counter(_names(frame) for frame in frames)
    numbers = Counter((*frame.spacing_mm, *frame.orientation) for frame in frames)
    usual_names, usual_numbers = names.most_common(1)[0][0], np.array(numbers.most_common(1)[0][0])
    if not (usual_numbers[:2] > 0).all():
        raise SeriesRejected(Reason.NO_GEOMETRY, "pixel spacing is not positive")
    off = np.abs(np.array([(*frame.spacing_mm, *frame.orientation) for frame in frames]) - usual_numbers) > 1e-3
    named = np.array([_names(frame) != usual_names for frame in frames])
    odd = off.any(axis=1) | named
    differences = {
        "pixel spacing": off[:, :2].any(),
        "orientation": off[:, 2:].any(),
        "image size or frame of reference": named.any(),
    }
    what = (
        f"{odd.sum()} of {len(frames)} slices differ in {', '.join(name for name, any_ in differences.items() if any_)}"
    )
    if odd.mean() > MAX_ODD:
        raise SeriesRejected(Reason.MIXED_SERIES, what)
    alike = [frame for frame, is_odd in zip(frames, odd, strict=True) if not is_odd]
    if len(alike) < MIN_SLICES:
        raise SeriesRejected(Reason.TOO_FEW_SLICES, f"{len(alike)} of at least {MIN_SLICES}")
    return alike, [f"{what}; left out"] if odd.any() else []


def _names(frame: Frame) -> tuple[int, int, str]:
    return frame.layout.rows, frame.layout.columns, frame.frame_of_reference_uid


def _hounsfield(frames: list[Frame], axes: AxialAxes) -> np.ndarray:
    """HU of all slices, int16 Z×Y×X in the axial view."""
    rows, columns = frames[0].layout.rows, frames[0].layout.columns
    hu = recycled.empty((len(frames), *((columns, rows) if axes.transposed else (rows, columns))), np.int16)
    scratch = bytearray(rows * columns * 4)
    of_file = defaultdict(list)
    for z, frame in enumerate(frames):
        of_file[frame.path].append((frame.index, z))
    for path, places in of_file.items():
        places.sort()
        try:
            stored = read_stored(path, frames[places[0][1]].layout, [index for index, _ in places], scratch=scratch)
            for (_, z), values in zip(places, stored, strict=True):
                to_hu(values, frames[z], out=axes.undo(hu[z]))
        except SeriesRejected as rejected:
            raise _of_file(rejected, path) from None
        except Exception as error:  # decoders have errors of their own
            raise SeriesRejected(Reason.UNREADABLE, f"{path.name}: {type(error).__name__}") from error
    return hu


def _check_values(hu: np.ndarray) -> None:
    """Reject values that cannot be HU: scans show soft tissue, and air or lung. -1024 may be padding."""
    sample = hu[:: max(1, len(hu) // 16), ::4, ::4]
    if (np.mean((sample > AIR_HU) & (sample < -500)) < MIN_FRACTION) or np.mean(sample > -200) < MIN_FRACTION:
        low, high = np.percentile(sample, (1, 99))
        raise SeriesRejected(Reason.NOT_HU, f"no air or no tissue: 98 % of values are {low:.0f} to {high:.0f}")


def _single(frames: list[Frame], hu: np.ndarray, axes: AxialAxes) -> tuple[list[Frame], np.ndarray, list[str]]:
    """Leave out copies of slices; reject the series if different images have the same position."""
    positions = np.array([frame.position for frame in frames])
    again = np.diff(positions @ axes.normal, prepend=-np.inf) < SAME_PLACE_MM
    for z in np.flatnonzero(again):
        if np.abs(positions[z] - positions[z - 1]).max() > SAME_PLACE_MM or not np.array_equal(hu[z], hu[z - 1]):
            raise SeriesRejected(
                Reason.DUPLICATE_POSITIONS, f"{again.sum()} of {len(frames)} slices, with other pixels"
            )
    if not again.any():
        return frames, hu, []
    if len(frames) - again.sum() < MIN_SLICES:
        raise SeriesRejected(
            Reason.TOO_FEW_SLICES, f"{len(frames) - again.sum()} different ones of at least {MIN_SLICES}"
        )
    single = [frame for frame, repeated in zip(frames, again, strict=True) if not repeated]
    return single, hu[~again], [f"{again.sum()} copies of slices left out"]
