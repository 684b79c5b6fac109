"""The spiculated nodule, and granulomas that look like nodules."""

import numpy as np

from lungsynth.phantom.geometry import Canvas, Grid
from lungsynth.phantom.organs import SIDES, Organs
from lungsynth.phantom.patient import Nodule, PhantomPatient
from lungsynth.phantom.trees import spread_points
from lungsynth.phantom.tubes import Samples, deposit, sample_segments


def paint_nodule(canvas: Canvas, nodule: Nodule, organs: Organs, *, rng: np.random.Generator) -> np.ndarray:
    """Paint the nodule and give its mask (Z×Y×X bool): the ball without the spicules, never empty."""
    grid = canvas.grid
    centre = _place(nodule, organs, grid)
    radius = nodule.diameter_mm / 2
    waves, phases = rng.normal(0.0, 2.6, (6, 3)), rng.uniform(0, 2 * np.pi, 6)
    reach = 1.8 * radius + 3.0
    rows, columns = grid.window((centre[0] - reach, centre[0] + reach), (centre[1] - reach, centre[1] + reach))
    x, y = grid.fine(rows, columns)
    # A slice is averaged over several heights, since a nodule may be hardly thicker than a slice.
    heights = grid.z[:, None] + grid.thickness_mm * (np.arange(5) - 2) / 5
    layers = np.flatnonzero(np.abs(grid.z - centre[2]) < reach + grid.thickness_mm)
    box = (slice(int(layers[0]), int(layers[-1]) + 1), rows, columns)
    fraction = np.zeros((len(layers), *x.shape[1:]), np.float32)
    for height in heights[layers].T:
        offset = np.stack(np.broadcast_arrays(x - centre[0], y - centre[1], height[:, None, None] - centre[2]))
        distance = np.linalg.norm(offset, axis=0)
        direction = offset / np.maximum(distance, 1e-3)
        bumps = np.cos(np.einsum("wc,cnij->wnij", waves, direction) + phases[:, None, None, None]).sum(0) / np.sqrt(3)
        edge = radius * (1 + nodule.irregularity * bumps)
        fraction += np.clip(0.5 - (distance - edge) / (1.2 * grid.spacing_mm + 0.8), 0, 1) / len(heights.T)
    mask = np.zeros(canvas.hu.shape, bool)
    mask[box] = fraction > 0.5 * fraction.max()
    canvas.blend(*deposit(_spicules(nodule, centre, rng, grid=grid), grid), nodule.hu)
    canvas.blend(box, fraction, nodule.hu)
    return mask


def paint_granulomas(canvas: Canvas, patient: PhantomPatient, organs: Organs, *, rng: np.random.Generator) -> None:
    """Paint granulomas of 2 to 4 mm, some calcified, so that not every dot is a vessel or a nodule."""
    for _ in range(patient.granulomas):
        place = spread_points(organs.lungs[SIDES[int(rng.integers(2))]], canvas.grid, 1, margin_mm=6.0, rng=rng)
        radius, hu = rng.uniform(1.0, 2.0), rng.uniform(20.0, 350.0)
        length = np.array([[0.0, 0.0, radius * 2 / 3]])  # a cylinder with the volume of the ball
        speck = sample_segments(
            place - length, place + length, np.array([radius]), last=np.array([radius]), grid=canvas.grid
        )
        canvas.blend(*deposit(speck, canvas.grid), hu)


def _place(nodule: Nodule, organs: Organs, grid: Grid) -> np.ndarray:
    """Centre in mm: the node of the coarse grid that `height` and `place` select, deep enough in the lung."""
    lung = organs.lungs[1 if nodule.left else -1].copy()
    lung[[0, 1, -2, -1]] = 1.0
    room = np.maximum(lung.min() * 0.75, -0.55 * nodule.diameter_mm - 2.0)
    layers = np.flatnonzero((lung < room).any(axis=(1, 2)))
    layer = layers[round(nodule.height * (len(layers) - 1))]
    row, column = np.nonzero(lung[layer] < room)
    chosen = round(nodule.place * (len(row) - 1))
    x, y, _ = grid.coarse
    return np.array([x[0, row[chosen], column[chosen]], y[0, row[chosen], column[chosen]], grid.z[layer]], float)


def _spicules(nodule: Nodule, centre: np.ndarray, rng: np.random.Generator, *, grid: Grid) -> Samples:
    direction = rng.normal(size=(nodule.spicules, 3)) * [1.0, 1.0, 0.7]
    direction /= np.linalg.norm(direction, axis=1, keepdims=True)
    radius = nodule.diameter_mm / 2
    length = radius * rng.uniform(0.4, 1.0, (nodule.spicules, 1)) + 2.0
    sway = rng.normal(0.0, 0.15, direction.shape) * length
    starts = centre + 0.75 * radius * direction
    middle = centre + (radius + 0.5 * length) * direction + sway
    ends = centre + (radius + length) * direction
    thick, thin = np.full(nodule.spicules, 0.5 + 0.08 * radius), np.full(nodule.spicules, 0.3)
    half = (thick + thin) / 2
    return Samples.join(
        [
            sample_segments(starts, middle, thick, last=half, grid=grid),
            sample_segments(middle, ends, half, last=thin, grid=grid),
        ]
    )
