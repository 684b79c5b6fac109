"""Lungs by Hounsfield threshold and connected components on a coarse grid: no weights, a third of decoding's time."""

import cv2
import numpy as np
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from lungsynth.lungs.grid import Enclosed, cell_means, cell_pixels
from lungsynth.lungs.mask import Edges, LungMask

GAS_HU = -970
"""Mean HU below which a cell is pure gas (airway, bowel); emphysema is denser, since some walls remain."""
GAS_FRACTION = 0.5
"""Least fraction of gas cells in a large component that is bowel."""
SMALL_GAS_FRACTION = 0.08
"""The same for components as small as an airway, whose wall reaches into most of its cells."""
SMALL_CM2 = 8.0
"""Greatest area of a component that may be an airway; tracheas have 2 to 4 cm²."""
AIRWAY_MM = 30.0
"""Least length of a stack of small gas components that is an airway; bullae and bubbles are shorter."""
LUNG_MM = 50.0
"""Least greatest depth of a lung, from front to back; the foam in a scanner's table is flatter."""
SECOND_LUNG = 0.2
"""Least volume of the second lung as a fraction of the first; a smaller stack is no lung, the two lungs are joined."""
CLOSING_MM = 12.0
"""Radius of the closing that includes hilar vessels and nodules at the pleura."""
CANDIDATES = 4
"""Number of the largest stacks that are examined: two lungs, and stacks that may be larger than one of them."""
MAX_HOLE_CM2 = 20.0
"""Largest enclosed hole that is filled: one of a 5 cm mass is, the heart between two joined lungs is not."""


def lungs(
    volume_hu: np.ndarray, spacing_mm: tuple[float, float], slice_spacing_mm: float, threshold_hu: float
) -> LungMask:
    """Both lungs with the vessels and nodules in them; empty where there are none.

    Args:
        volume_hu: int16, Z×Y×X, in the standard axial view.
        spacing_mm: (row, column).
        slice_spacing_mm: distance of neighbouring slices.
        threshold_hu: lung lies below.
    """
    cell_px = cell_pixels(spacing_mm)
    cell_mm = (spacing_mm[0] * cell_px[0], spacing_mm[1] * cell_px[1])
    means = cell_means(volume_hu, cell_px)
    # Slice by slice: in 3-D the lungs are connected to the air outside through the airways and at the scan's ends.
    air = Enclosed.of(means < threshold_hu)
    links = _links(air)
    small = air.size * cell_mm[0] * cell_mm[1] < SMALL_CM2 * 100
    gas = _gas_fraction(air, means) > np.where(small, SMALL_GAS_FRACTION, GAS_FRACTION)
    airways = air.mask(_airways(links, gas & small, slice_spacing_mm))
    cells = _fill(_largest(air, links, ~gas & (air.size > 0), cell_mm=cell_mm), cell_mm) & ~airways
    return LungMask(cells, cell_px, edges=Edges(volume_hu, threshold_hu))


def _links(air: Enclosed) -> np.ndarray:
    """Pairs of components that overlap in neighbouring slices, 2×M."""
    above = air.cells + air.labels[0].size
    inside = int(np.searchsorted(above, air.labels.size))
    upper = air.labels.ravel().take(above[:inside])
    both = air.size.take(upper) > 0
    ones = np.ones(np.count_nonzero(both), np.int32)
    overlap = coo_array((ones, (air.part[:inside][both], upper[both])), shape=(len(air.size), len(air.size)))
    return np.stack(overlap.tocsr().nonzero())  # which merges repetitions


def _stacks(links: np.ndarray, keep: np.ndarray) -> np.ndarray:
    """Join the components `keep` (bool) along the links; returns the stack number of each component."""
    lower, upper = links[:, keep[links].all(axis=0)]
    graph = coo_array((np.ones(len(lower), np.int32), (lower, upper)), shape=(len(keep), len(keep)))
    result: np.ndarray = connected_components(graph, directed=False)[1]
    return result


def _gas_fraction(air: Enclosed, means: np.ndarray) -> np.ndarray:
    """The fraction of each component's cells that are pure gas."""
    tall = np.zeros(air.labels.shape, bool)
    np.less(means, GAS_HU, out=tall[:, 1:, 1:-1])
    result: np.ndarray = np.bincount(air.part[tall.ravel()[air.cells]], minlength=len(air.size)) / air.size.clip(min=1)
    return result


def _airways(links: np.ndarray, small_gas: np.ndarray, slice_spacing_mm: float) -> np.ndarray:
    """Which components belong to trachea or main bronchi: long stacks of small gas components."""
    stacks = _stacks(links, small_gas)
    parts = np.bincount(stacks[small_gas], minlength=len(stacks))  # one in a slice, or two below the fork
    result: np.ndarray = small_gas & (parts[stacks] * slice_spacing_mm >= AIRWAY_MM)
    return result


def _largest(air: Enclosed, links: np.ndarray, keep: np.ndarray, *, cell_mm: tuple[float, float]) -> np.ndarray:
    """The largest stack that may be a lung, and the second if it is large enough: bool Z×h×w."""
    stacks = _stacks(links, keep)
    size = np.bincount(stacks[keep], weights=air.size[keep], minlength=len(stacks))
    chosen, first, count = np.zeros_like(keep), 0.0, 0
    for stack in np.argsort(size)[::-1][:CANDIDATES]:
        if count == 2 or size[stack] <= SECOND_LUNG * first:
            break
        parts = keep & (stacks == stack)
        if air.mask(parts).sum(axis=1, dtype=np.uint16).max() * cell_mm[0] >= LUNG_MM:
            chosen |= parts
            first, count = first or size[stack], count + 1
    return air.mask(chosen)


def _fill(mask: np.ndarray, cell_mm: tuple[float, float]) -> np.ndarray:
    """Close each slice of the mask, then fill its small holes; bool Z×h×w."""
    filled = np.zeros_like(mask)
    if not mask.any():
        return filled
    shadow = np.logical_or.reduce(mask)
    lines = (mask.any(axis=(1, 2)), shadow.any(axis=1), shadow.any(axis=0))
    extents = [np.flatnonzero(line) for line in lines]
    box = tuple(slice(indices[0], indices[-1] + 1) for indices in extents)
    radii = [round(CLOSING_MM / size) for size in cell_mm]
    # Padded, so that slices in the tall image stay apart and what is open to the box's border is no hole.
    tall = np.pad(mask[box].view(np.uint8), ((0, 0), *((radius + 1, radius + 1) for radius in radii)))
    disc = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * radii[1] + 1, 2 * radii[0] + 1))
    closed = cv2.morphologyEx(tall.reshape(-1, tall.shape[2]), cv2.MORPH_CLOSE, disc).reshape(tall.shape)
    holes = Enclosed.of(closed == 0)
    closed = closed.astype(bool) | holes.mask(holes.size * cell_mm[0] * cell_mm[1] < MAX_HOLE_CM2 * 100)
    filled[box] = closed[:, radii[0] + 1 : -radii[0] - 1, radii[1] + 1 : -radii[1] - 1]
    return filled
