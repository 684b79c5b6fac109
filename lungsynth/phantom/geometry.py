"""Sampling grid, distance functions and the canvas on which anatomy is painted.

Lengths are in mm in the body frame: x to the patient's left, y to the back, z to the head; the carina is at z = 0.
Smooth shapes are computed on a coarse grid and interpolated, so that their cost hardly depends on the matrix.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from scipy.sparse import csr_array

from lungsynth.phantom.patient import PhantomPatient

PITCH_MM = 4.0
"""Coarse grid pitch: half the smallest radius of curvature that is painted from it."""
Point = tuple[float, float, float]


def cubic_weights(positions: np.ndarray, nodes: int) -> csr_array:
    """Matrix (positions×nodes) of Keys' cubic interpolation, exact for quadratics; positions in units of nodes.

    It is sparse also because dense products would start BLAS threads, which slow down other processes.
    """
    base = np.clip(np.floor(positions).astype(int), 1, nodes - 3)
    t = positions - base
    taps = np.stack(
        [
            ((-0.5 * t + 1) * t - 0.5) * t,
            (1.5 * t - 2.5) * t * t + 1,
            ((-1.5 * t + 2) * t + 0.5) * t,
            (0.5 * t - 0.5) * t * t,
        ]
    )
    columns = base[:, None] + np.arange(-1, 3)
    ends = np.arange(0, 4 * len(positions) + 1, 4)
    return csr_array((taps.T.astype(np.float32).ravel(), columns.ravel(), ends), shape=(len(positions), nodes))


def interpolate(field: np.ndarray, rows: csr_array, columns: csr_array) -> np.ndarray:
    """A stack of images (Z×h×w) brought to Z×H×W by weights H×h and W×w."""
    depth, height, width = field.shape
    across = columns @ field.transpose(2, 0, 1).reshape(width, depth * height)
    across = across.reshape(-1, depth, height).transpose(2, 1, 0).reshape(height, -1)
    result: np.ndarray = (rows @ across).reshape(rows.shape[0], depth, -1).transpose(1, 0, 2)
    return result


@dataclass(frozen=True)
class Grid:
    """The sampling grid of a series: slices `z`, a fine and a coarse matrix over the same field of view."""

    z: np.ndarray
    matrix: int
    spacing_mm: float
    thickness_mm: float
    roll_rad: float

    @classmethod
    def of(cls, patient: PhantomPatient) -> "Grid":
        """The grid of a patient's series; slices from the feet to the head."""
        z = patient.lowest_slice_mm + patient.slice_spacing_mm * np.arange(patient.slices)
        return cls(
            z.astype(np.float32),
            patient.matrix,
            patient.pixel_spacing_mm,
            patient.scanner.thickness_mm,
            np.deg2rad(patient.roll_deg),
        )

    @cached_property
    def fine_axis(self) -> np.ndarray:
        """Pixel centres in mm, the middle of the field of view at 0."""
        return ((np.arange(self.matrix) - (self.matrix - 1) / 2) * self.spacing_mm).astype(np.float32)

    @cached_property
    def coarse_axis(self) -> np.ndarray:
        """Nodes in mm; they reach two beyond the field of view."""
        half = int(np.ceil(self.matrix * self.spacing_mm / 2 / PITCH_MM)) + 2
        return (np.arange(-half, half + 1) * PITCH_MM).astype(np.float32)

    @cached_property
    def upsampling(self) -> csr_array:
        """Interpolation from coarse nodes to pixels, matrix×nodes."""
        return cubic_weights((self.fine_axis - self.coarse_axis[0]) / PITCH_MM, len(self.coarse_axis))

    @cached_property
    def coarse(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Body-frame coordinates x (1×h×w), y (1×h×w) and z (Z×1×1) of the coarse grid."""
        return *self._body_frame(self.coarse_axis, self.coarse_axis), self.z[:, None, None]

    def fine(self, rows: slice, columns: slice) -> tuple[np.ndarray, np.ndarray]:
        """Body-frame coordinates x and y (1×h×w) of a window of pixels."""
        return self._body_frame(self.fine_axis[columns], self.fine_axis[rows])

    def window(self, x: tuple[float, float], y: tuple[float, float]) -> tuple[slice, slice]:
        """Rows and columns that cover a body-frame rectangle, its roll included."""
        corners = self.to_scanner(np.array([[a, b, 0.0] for a in x for b in y]))
        low, high = corners.min(0), corners.max(0)
        columns = np.searchsorted(self.fine_axis, [low[0], high[0]])
        rows = np.searchsorted(self.fine_axis, [low[1], high[1]])
        return slice(int(rows[0]), int(rows[1])), slice(int(columns[0]), int(columns[1]))

    def _body_frame(self, x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        cos, sin = np.float32(np.cos(self.roll_rad)), np.float32(np.sin(self.roll_rad))
        return (cos * x + sin * y[:, None])[None], (-sin * x + cos * y[:, None])[None]

    def to_scanner(self, points: np.ndarray) -> np.ndarray:
        """Body-frame points (N×3) turned into the scanner's frame, whose axes are those of the image."""
        cos, sin = np.cos(self.roll_rad), np.sin(self.roll_rad)
        x, y, z = points.T
        return np.stack([cos * x - sin * y, sin * x + cos * y, z], axis=1)

    def lattice_noise(self, rng: np.random.Generator, pitch_mm: float) -> np.ndarray:
        """Smooth noise of about unit variance on the coarse grid, with details of about `pitch_mm`."""
        span_z, span_xy = float(np.ptp(self.z)), float(np.ptp(self.coarse_axis))
        nodes_z, nodes_xy = int(span_z / pitch_mm) + 5, int(span_xy / pitch_mm) + 5
        lattice = rng.standard_normal((nodes_z, nodes_xy, nodes_xy), dtype=np.float32) * 1.5
        along_z = cubic_weights((self.z - self.z[0]) / pitch_mm + 1, nodes_z)
        along_xy = cubic_weights((self.coarse_axis - self.coarse_axis[0]) / pitch_mm + 1, nodes_xy)
        layers = (along_z @ lattice.reshape(nodes_z, -1)).reshape(-1, nodes_xy, nodes_xy)
        return interpolate(layers, along_xy, along_xy)


class Canvas:
    """A CT volume in HU (Z×Y×X float32), painted from the outside in."""

    def __init__(self, grid: Grid, hu: float) -> None:
        self.grid = grid
        self.hu = np.full((len(grid.z), grid.matrix, grid.matrix), hu, np.float32)

    def cover(self, distance: np.ndarray, softness_mm: float = 0.0) -> tuple[tuple[slice, ...], np.ndarray]:
        """The box of voxels that a shape (signed distance, coarse, mm) reaches, and the fraction of each that it fills.

        Slanting surfaces are blurred over the slice thickness, as by partial volume.
        """
        grid = self.grid
        box, coarse_box = self.boxes(distance)
        part = distance[coarse_box]
        slope = np.abs(np.gradient(distance, grid.z, axis=0)[coarse_box])
        width = 1.2 * grid.spacing_mm + softness_mm + grid.thickness_mm * np.minimum(slope, 3.0)
        return box, np.clip(0.5 - self._upsample(part / width, box, coarse_box), 0.0, 1.0)

    def paint(self, distance: np.ndarray, hu: float | np.ndarray, softness_mm: float = 0.0) -> None:
        """Fill a shape (signed distance, coarse, mm) with one HU value or a coarse field of them."""
        if distance.min() > 0:
            return
        box, alpha = self.cover(distance, softness_mm)
        if isinstance(hu, np.ndarray):
            hu = self.upsample(hu, box)
        self.blend(box, alpha, hu)

    def blend(self, box: tuple[slice, ...], alpha: np.ndarray, hu: float | np.ndarray) -> None:
        """Mix `hu` into a box of the volume by `alpha`, 0 to 1."""
        target = self.hu[box]
        target += alpha * (hu - target)

    def upsample(self, field: np.ndarray, box: tuple[slice, ...]) -> np.ndarray:
        """A coarse field at the pixels of `box`."""
        everywhere = slice(None)
        return self._upsample(field[box[0]], box, (box[0], everywhere, everywhere))

    def _upsample(self, part: np.ndarray, box: tuple[slice, ...], coarse_box: tuple[slice, ...]) -> np.ndarray:
        weights = self.grid.upsampling
        return interpolate(part, weights[box[1], coarse_box[1]], weights[box[2], coarse_box[2]])

    def boxes(self, distance: np.ndarray) -> tuple[tuple[slice, ...], tuple[slice, ...]]:
        """The pixels that a shape can touch, and the coarse nodes needed to interpolate them."""
        near = distance < 2 * PITCH_MM
        spans = [np.flatnonzero(near.any(axis=axes))[[0, -1]] for axes in ((1, 2), (0, 2), (0, 1))]
        (z0, z1), *inplane = spans
        fine, coarse = [slice(z0, z1 + 1)], [slice(z0, z1 + 1)]
        for low, high in inplane:
            axis = self.grid.coarse_axis
            pixels = np.searchsorted(self.grid.fine_axis, [axis[low], axis[high]])
            fine.append(slice(int(pixels[0]), int(pixels[1])))
            coarse.append(slice(max(low - 2, 0), min(high + 3, len(axis))))
        return tuple(fine), tuple(coarse)


def smooth_min(a: np.ndarray, b: np.ndarray, radius: float) -> np.ndarray:
    """Union of two distance fields with a fillet of about `radius` mm (polynomial smooth minimum)."""
    overlap = np.maximum(radius - np.abs(a - b), 0.0)
    result: np.ndarray = np.minimum(a, b) - overlap * overlap / (4 * radius)
    return result


def smooth_max(a: np.ndarray, b: np.ndarray, radius: float) -> np.ndarray:
    """Intersection of two distance fields with a fillet of about `radius` mm."""
    return -smooth_min(-a, -b, radius)


def ellipsoid(grid: Grid, centre: Point, radii: Point, *, turn_deg: float = 0.0) -> np.ndarray:
    """Approximate signed distance to an ellipsoid, coarse; `turn_deg` turns it about z, from x towards y."""
    x, y, z = (axis - np.float32(offset) for axis, offset in zip(grid.coarse, centre, strict=True))
    cos, sin = np.float32(np.cos(np.deg2rad(turn_deg))), np.float32(np.sin(np.deg2rad(turn_deg)))
    u, v, w = (cos * x + sin * y) / radii[0], (cos * y - sin * x) / radii[1], z / radii[2]
    level = np.sqrt(u * u + v * v + w * w)
    gradient = np.sqrt((u / radii[0]) ** 2 + (v / radii[1]) ** 2 + (w / radii[2]) ** 2)
    result: np.ndarray = level * (level - 1) / np.maximum(gradient, 1e-6)
    return result


def tube(grid: Grid, points: Sequence[Point], radii: Sequence[float]) -> np.ndarray:
    """Signed distance to a chain of tapering cylinders with round ends, coarse; `points` and `radii` go together."""
    x, y, z = grid.coarse
    distance = np.full((len(grid.z), *x.shape[1:]), 1e3, np.float32)
    for start, end, first, last in zip(points[:-1], points[1:], radii[:-1], radii[1:], strict=True):
        reach = max(first, last) + 30.0
        near = slice(*np.searchsorted(grid.z, [min(start[2], end[2]) - reach, max(start[2], end[2]) + reach]))
        axis = np.subtract(end, start).astype(np.float32)
        dx, dy, dz = x - start[0], y - start[1], z[near] - start[2]
        t = np.clip((dx * axis[0] + dy * axis[1] + dz * axis[2]) / float(axis @ axis), 0.0, 1.0)
        away = np.sqrt((dx - t * axis[0]) ** 2 + (dy - t * axis[1]) ** 2 + (dz - t * axis[2]) ** 2)
        distance[near] = np.minimum(distance[near], away - (first + t * (last - first)))
    return distance
