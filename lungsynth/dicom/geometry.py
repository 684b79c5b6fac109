"""The geometry of a series: the axial view, the order of the slices, gaps between them."""

from dataclasses import dataclass
from typing import Self

import numpy as np

from lungsynth.dataset.rejection import Reason, SeriesRejected

MAX_TILT_DEG = 20.0
"""Greatest angle to the patient's axes (gantry tilt, oblique reformats) at which a slice counts as axial."""
SAME_PLACE_MM = 0.01
"""Slices nearer than this have the same position: makers write positions with two decimals or more."""
MAX_MISSING = 0.1
"""Fraction of a scan's slices that may be missing or unevenly spaced. Slices are used singly, lungs found in 3-D."""
MAX_GAP_MM = 20.0
"""Beyond this distance the lungs of neighbouring slices need not overlap, least of all at the diaphragm."""


@dataclass(frozen=True)
class AxialAxes:
    """How to re-index a slice into the standard axial view: by transposition and mirroring, so without resampling.

    `across` and `down` are the unit vectors (patient coordinates, DICOM LPS) of growing columns and rows of that view;
    `normal` is the unit vector along the slices' axis, towards the head. `tilt_deg` is its angle to the patient's axis;
    `turn_deg` is the rotation of the view about it.
    """

    transposed: bool
    flip_rows: bool
    flip_columns: bool
    across: np.ndarray
    down: np.ndarray
    normal: np.ndarray
    tilt_deg: float
    turn_deg: float

    @classmethod
    def of(cls, orientation: tuple[float, ...]) -> Self:
        """`orientation` (6) holds the directions of a growing column index, then of a growing row index.

        Raises:
            SeriesRejected: NO_GEOMETRY where these are no directions, NOT_AXIAL.
        """
        across, down = np.array(orientation[:3]), np.array(orientation[3:])
        normal = np.cross(across, down)
        if not np.allclose([across @ across, down @ down, across @ down], [1, 1, 0], atol=0.01):
            raise SeriesRejected(Reason.NO_GEOMETRY, "row and column directions are not orthogonal unit vectors")
        transposed = bool(abs(across[1]) > abs(across[0]))
        if transposed:
            across, down = down, across
        tilt, turn, lean = (
            float(np.rad2deg(np.arccos(min(1.0, abs(cosine))))) for cosine in (normal[2], across[0], down[1])
        )
        if max(tilt, turn, lean) > MAX_TILT_DEG:
            raise SeriesRejected(Reason.NOT_AXIAL, f"tilted by {tilt:.1f} degrees, turned by {max(turn, lean):.1f}")
        return cls(
            transposed=transposed,
            flip_rows=bool(down[1] < 0),
            flip_columns=bool(across[0] < 0),
            across=across * np.sign(across[0]),
            down=down * np.sign(down[1]),
            normal=normal * np.sign(normal[2]),
            tilt_deg=tilt,
            turn_deg=turn,
        )

    def apply(self, image: np.ndarray) -> np.ndarray:
        """A view of the Y×X `image` with x growing to the patient's left and y to the back."""
        image = image.T if self.transposed else image
        return image[:: -1 if self.flip_rows else 1, :: -1 if self.flip_columns else 1]

    def undo(self, view: np.ndarray) -> np.ndarray:
        """A view of the standard Y×X `view` in the file's order of pixels."""
        view = view[:: -1 if self.flip_rows else 1, :: -1 if self.flip_columns else 1]
        return view.T if self.transposed else view

    def corner(self, position: np.ndarray, shape: tuple[int, int], spacing_mm: tuple[float, float]) -> np.ndarray:
        """The centre of the view's first pixel; `position` is that of the file's, `spacing_mm` is (row, column)."""
        rows, columns = (
            (size - 1) * spacing * flipped
            for size, spacing, flipped in zip(shape, spacing_mm, (self.flip_rows, self.flip_columns), strict=True)
        )
        return position - rows * self.down - columns * self.across

    def notes(self) -> list[str]:
        """Notes on tilt and rotation."""
        angles = (("gantry tilt of {:.1f} degrees", self.tilt_deg), ("turned by {:.1f} degrees", self.turn_deg))
        return [text.format(angle) for text, angle in angles if angle > 0.5]


def check_spacing(positions_mm: np.ndarray) -> list[str]:
    """Notes on gaps and uneven steps between slices at ascending, different positions.

    Raises:
        SeriesRejected: MISSING_SLICES where a gap is too wide or too many slices are missing; MIXED_SERIES where the
            steps are so uneven that the slices of two scans must interleave.
    """
    steps = np.diff(positions_mm)
    usual = float(np.median(steps))
    gaps = steps > 1.5 * usual
    missing = int(np.rint(steps[gaps] / usual - 1).sum())
    notes = []
    if missing:
        widest = int(steps.argmax())
        notes.append(
            f"{missing} of {missing + len(positions_mm)} slices missing; the widest gap is {steps[widest]:.2f} mm at "
            f"{positions_mm[widest]:.1f} mm, where slices are {usual:.2f} mm apart"
        )
        if missing > MAX_MISSING * (missing + len(positions_mm)) or steps[widest] > MAX_GAP_MM:
            raise SeriesRejected(Reason.MISSING_SLICES, notes[0])
    # Positions of thin slices are often rounded to 0.1 mm.
    uneven = ~gaps & (np.abs(steps - usual) > 0.1 * usual + 0.1)
    if uneven.any():
        low, high = steps[~gaps].min(), steps[~gaps].max()
        notes.append(
            f"uneven spacing: {int(uneven.sum())} of {len(steps)} steps; they run from {low:.2f} to {high:.2f} mm"
        )
        if uneven.mean() > MAX_MISSING:
            raise SeriesRejected(Reason.MIXED_SERIES, notes[-1])
    return notes
