"""Airways, arteries and veins of the lungs as branching trees.

Each tree grows from its hilum to random points in the lung, the nearest first. A point is joined to the node from which
it is reached with the least length and turning. Radii follow Murray's law with exponent 2.4.
"""

from dataclasses import dataclass

import numpy as np

from lungsynth.phantom.geometry import Grid, Point
from lungsynth.phantom.organs import SIDES, Organs
from lungsynth.phantom.patient import PhantomPatient
from lungsynth.phantom.tubes import Samples, sample_chain, sample_segments

MURRAY_EXPONENT = 2.4
_TRACHEA: tuple[Point, ...] = ((0, 26, 150), (0, 22, 90), (1, 19, 40), (0, 20, 4))
_BRONCHI: dict[int, tuple[Point, ...]] = {
    -1: ((0, 20, 4), (-20, 16, -9), (-40, 12, -20)),
    1: ((0, 20, 4), (24, 18, -10), (47, 15, -24)),
}
_ARTERY_ROOTS: dict[int, tuple[Point, ...]] = {-1: ((-30, 2, -12), (-46, 5, -17)), 1: ((32, 4, -1), (50, 13, -8))}
_VEIN_ROOTS: dict[int, tuple[Point, ...]] = {-1: ((-16, 8, -30), (-42, 2, -36)), 1: ((20, 10, -30), (46, 6, -36))}


@dataclass(frozen=True)
class Tree:
    """Nodes (N×3, mm), the parent of each (the root's is itself) and radii (N, mm)."""

    nodes: np.ndarray
    parents: np.ndarray
    radii: np.ndarray

    def samples(self, grid: Grid, extra_mm: float = 0.0) -> Samples:
        """Samples of all branches, thickened by `extra_mm`."""
        child, parent = np.arange(1, len(self.nodes)), self.parents[1:]
        # A branch has one radius along its length, so that it does not swell at its fork.
        radii = self.radii[child] + extra_mm
        return sample_segments(self.nodes[parent], self.nodes[child], radii, last=radii, grid=grid)


@dataclass(frozen=True)
class Trees:
    """Samples of the blood vessels, of the airways with their walls and of the air in them."""

    blood: Samples
    airway_walls: Samples
    airway_lumens: Samples


def grow_trees(patient: PhantomPatient, organs: Organs, grid: Grid, *, rng: np.random.Generator) -> Trees:
    """The trees of both lungs, with trachea and main bronchi."""
    s = patient.size
    fit = np.array([s * patient.width, s * patient.depth, s])
    trachea, width = np.array(_TRACHEA) * fit, np.array([8.4, 8.6, 8.8, 9.0]) * s
    blood, walls = [], [sample_chain(trachea, width + 1.6, grid)]
    lumens = [sample_chain(trachea, width, grid)]
    for side in SIDES:
        lung = organs.lungs[side]
        stem, stem_radii = np.array(_BRONCHI[side]) * fit, np.array([7.4, 6.6, 5.6]) * s
        walls.append(sample_chain(stem, stem_radii + 1.4, grid))
        lumens.append(sample_chain(stem, stem_radii, grid))
        airway = _grow(stem[-2:], spread_points(lung, grid, 26, margin_mm=12.0, rng=rng), 0.85, root_mm=5.4 * s)
        walls.append(airway.samples(grid, extra_mm=0.55))
        lumens.append(airway.samples(grid))
        for roots, count in ((_ARTERY_ROOTS, 360), (_VEIN_ROOTS, 280)):
            tree = _grow(
                np.array(roots[side]) * fit,
                spread_points(lung, grid, count, margin_mm=3.0, rng=rng),
                0.66,
                root_mm=7.5 * s,
            )
            blood.append(tree.samples(grid))
    return Trees(Samples.join(blood), Samples.join(walls), Samples.join(lumens))


def spread_points(
    lung: np.ndarray, grid: Grid, count: int, *, margin_mm: float, rng: np.random.Generator
) -> np.ndarray:
    """Points (count×3, mm, body frame) at random in a lung, at least about `margin_mm` from its surface."""
    z, row, column = np.nonzero(lung < -margin_mm)
    chosen = rng.integers(len(z), size=count)
    x, y, _ = grid.coarse
    jitter = rng.uniform(-0.5, 0.5, (count, 3)) * [4.0, 4.0, float(grid.z[1] - grid.z[0])]
    places = x[0, row[chosen], column[chosen]], y[0, row[chosen], column[chosen]], grid.z[z[chosen]]
    return np.stack(places, axis=1) + jitter


def _grow(root: np.ndarray, targets: np.ndarray, tip_mm: float, *, root_mm: float) -> Tree:
    """Grow from the segment `root` (2×3) to all targets; radii run from `tip_mm` to at most `root_mm`."""
    order = np.argsort(np.linalg.norm(targets - root[-1], axis=1))
    nodes = np.empty((2 + 12 * len(targets), 3))
    heading, parents = np.zeros_like(nodes), np.zeros(len(nodes), int)
    path = np.zeros(len(nodes))
    nodes[:2], parents[1], count = root, 0, 2
    heading[:2] = (root[1] - root[0]) / np.linalg.norm(root[1] - root[0])
    tips = []
    for target in targets[order]:
        gap = target - nodes[1:count]
        length = np.linalg.norm(gap, axis=1)
        turn = 1 - np.einsum("ij,ij->i", gap, heading[1:count]) / np.maximum(length, 1e-6)
        start = 1 + int(np.argmin(length * (1 + 0.7 * turn) + 0.25 * path[1:count]))
        reach = length[start - 1]
        steps = int(np.clip(np.ceil(reach / 7.0), 1, 12))
        t = (np.arange(1, steps + 1) / steps)[:, None]
        bend = nodes[start] + 0.45 * reach * heading[start]
        curve = (1 - t) ** 2 * nodes[start] + 2 * t * (1 - t) * bend + t**2 * target
        new = slice(count, count + steps)
        nodes[new] = curve
        parents[new] = np.r_[start, np.arange(count, count + steps - 1)]
        ahead = np.diff(np.vstack([nodes[start], curve]), axis=0)
        stride = np.maximum(np.linalg.norm(ahead, axis=1), 1e-6)
        heading[new] = ahead / stride[:, None]
        path[new] = path[start] + np.cumsum(stride)
        count += steps
        tips.append(count - 1)
    load = np.zeros(count)
    load[tips] = 1.0
    for node in range(count - 1, 0, -1):
        load[parents[node]] += load[node]
    radii = np.minimum(tip_mm * load ** (1 / MURRAY_EXPONENT), root_mm)
    return Tree(nodes[:count], parents[:count], radii)
