"""Thin structures by volume: each sample stands for a small volume, and voxels sum the samples in them.

So a vessel thinner than a pixel fills the right fraction of a voxel; an inside-or-outside test would not give that.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from lungsynth.phantom.geometry import Grid

_GOLDEN_ANGLE = np.pi * (3 - np.sqrt(5))


@dataclass(frozen=True)
class Samples:
    """Points (N×3, body frame, mm) and the volume in mm³ that each stands for."""

    points: np.ndarray
    volumes: np.ndarray

    @classmethod
    def join(cls, parts: Sequence["Samples"]) -> "Samples":
        """All samples of several structures."""
        return cls(np.concatenate([p.points for p in parts]), np.concatenate([p.volumes for p in parts]))


def sample_chain(points: np.ndarray, radii: np.ndarray, grid: Grid) -> Samples:
    """Samples of a tapering tube along a chain of points (N×3, mm) with radii (N, mm)."""
    return sample_segments(points[:-1], points[1:], radii[:-1], last=radii[1:], grid=grid)


def sample_segments(
    starts: np.ndarray, ends: np.ndarray, first: np.ndarray, *, last: np.ndarray, grid: Grid
) -> Samples:
    """Samples of many tapering tubes (starts and ends N×3, radii N, mm), without those far from all slices."""
    step = 0.6 * grid.spacing_mm
    lengths = np.linalg.norm(ends - starts, axis=1)
    counts = np.maximum(1, np.ceil(lengths / step)).astype(int)
    which = np.repeat(np.arange(len(counts)), counts)
    t = (np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts) + 0.5) / counts[which]
    centres = starts[which] + t[:, None] * (ends - starts)[which]
    radii = first[which] + t * (last - first)[which]
    volumes = np.pi * radii**2 * (lengths / counts)[which]
    seen = (centres[:, 2] > grid.z[0] - 30) & (centres[:, 2] < grid.z[-1] + 30)
    centres, radii, volumes, which = centres[seen], radii[seen], volumes[seen], which[seen]
    axis = (ends - starts) / np.maximum(lengths, 1e-6)[:, None]
    helper = np.where(np.abs(axis[:, 2:]) < 0.9, [[0.0, 0.0, 1.0]], [[1.0, 0.0, 0.0]])
    side = np.cross(axis, helper)
    side /= np.linalg.norm(side, axis=1, keepdims=True)
    up = np.cross(axis, side)
    # Sunflower discs: about two samples for each pixel of the section.
    discs = np.clip(np.ceil(2 * np.pi * (radii / grid.spacing_mm) ** 2), 1, 3000).astype(int)
    owner = np.repeat(np.arange(len(discs)), discs)
    k = np.arange(discs.sum()) - np.repeat(np.cumsum(discs) - discs, discs)
    reach = radii[owner] * np.sqrt((k + 0.5) / discs[owner]) * (discs[owner] > 1)
    angle = (k + 7 * owner) * _GOLDEN_ANGLE
    segment = which[owner]
    offset = (reach * np.cos(angle))[:, None] * side[segment] + (reach * np.sin(angle))[:, None] * up[segment]
    # Samples are spread along the axis too, else a thin slice would contain a varying number of whole discs.
    along = ((k * np.sqrt(2)) % 1 - 0.5) * (lengths / counts)[segment]
    offset += along[:, None] * axis[segment]
    return Samples(centres[owner] + offset, (volumes / discs)[owner])


def sample_sheet(corners: np.ndarray, thickness_mm: float, grid: Grid) -> Samples:
    """Samples of a plate spanned bilinearly by 2×2 corners (2×2×3, mm)."""
    rise = np.linalg.norm(corners[1] - corners[0], axis=-1).max()
    run = np.linalg.norm(corners[:, 1] - corners[:, 0], axis=-1).max()
    step = 0.5 * grid.spacing_mm
    v, u = np.meshgrid(
        (np.arange(int(rise / step)) + 0.5) / int(rise / step), (np.arange(int(run / step)) + 0.5) / int(run / step)
    )
    v, u = v.ravel()[:, None], u.ravel()[:, None]
    points = (1 - v) * ((1 - u) * corners[0, 0] + u * corners[0, 1]) + v * ((1 - u) * corners[1, 0] + u * corners[1, 1])
    breadth = np.linalg.norm((1 - v) * (corners[0, 1] - corners[0, 0]) + v * (corners[1, 1] - corners[1, 0]), axis=1)
    volumes = thickness_mm * (rise / int(rise / step)) * breadth / int(run / step)
    normal = np.cross(corners[1, 0] - corners[0, 0], corners[0, 1] - corners[0, 0])
    normal /= np.linalg.norm(normal)
    layers = [Samples(points + normal * thickness_mm * d, volumes / 3) for d in (-0.33, 0.0, 0.33)]
    return Samples.join(layers)


def deposit(samples: Samples, grid: Grid) -> tuple[tuple[slice, ...], np.ndarray]:
    """The box of voxels that the samples reach, and the fraction of each (float32, 0 to 1) that they fill.

    Slices are slabs with a rectangular profile; in a slice each sample is spread over the four nearest pixels.
    """
    spacing, pitch = grid.spacing_mm, float(grid.z[1] - grid.z[0])
    x, y, z = grid.to_scanner(samples.points).T
    column, row = x / spacing + (grid.matrix - 1) / 2, y / spacing + (grid.matrix - 1) / 2
    height = (z - grid.z[0]) / pitch
    c0, r0 = np.floor(column).astype(np.int32), np.floor(row).astype(np.int32)
    inside = (c0 >= 0) & (c0 < grid.matrix - 1) & (r0 >= 0) & (r0 < grid.matrix - 1)
    hits, layers = [], []
    reach = int(np.ceil(grid.thickness_mm / pitch / 2))
    for shift in range(-reach + 1, reach + 1):
        layer = np.floor(height).astype(np.int32) + shift
        near = (np.abs(height - layer) * pitch <= grid.thickness_mm / 2) & (layer >= 0) & (layer < len(grid.z))
        hits.append(np.flatnonzero(near & inside))
        layers.append(layer[hits[-1]])
    hit, layer = np.concatenate(hits), np.concatenate(layers)
    if not len(hit):
        return (slice(0), slice(0), slice(0)), np.zeros((0, 0, 0), np.float32)
    c0, r0, dc, dr = c0[hit], r0[hit], (column - c0)[hit], (row - r0)[hit]
    box = tuple(slice(int(a.min()), int(a.max()) + extra) for a, extra in ((layer, 1), (r0, 2), (c0, 2)))
    shape = tuple(side.stop - side.start for side in box)
    corner = ((layer - box[0].start) * shape[1] + r0 - box[1].start) * shape[2] + c0 - box[2].start
    filled = samples.volumes[hit] / (spacing * spacing * grid.thickness_mm)
    right, down = filled * dc, dr
    total = np.bincount(
        np.concatenate([corner, corner + 1, corner + shape[2], corner + shape[2] + 1]),
        np.concatenate([(filled - right) * (1 - down), right * (1 - down), (filled - right) * down, right * down]),
        int(np.prod(shape)),
    )
    return box, np.minimum(total, 1.0).astype(np.float32).reshape(shape)
