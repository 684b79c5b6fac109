"""Lung masks by Hounsfield threshold and connected components: no weights, about the time that decoding takes."""

from typing import Self

import numpy as np
from pydantic import Field, model_validator
from scipy import ndimage

from lungsynth.config import Config
from lungsynth.imaging.read import AIR_HU, Reason, SeriesRejected

GRID_MM = 2.5
"""Aim for the in-plane pixel of the grid on which lungs are found: vessels below it average out, and so does noise."""
GAS_HU = -970
"""Mean HU below which a component is bare gas (bowel, a pocket of room air): emphysema stays above, with its walls."""
SECOND_LUNG = 0.2
"""Least volume of the second lung as a share of the first: a smaller one lies beside two lungs that are joined."""
CLOSING_MM = 10.0
"""Half-width of the closing that brings hilar vessels and nodules on the pleura inside."""
MAX_HOLE_CM2 = 20.0
"""Largest enclosed area that counts as lung: a mass of 5 cm does; the heart between two joined lungs does not."""


class LungConfig(Config):
    """When an air-filled structure of the body counts as the lungs."""

    threshold_hu: float = Field(-400, ge=-900, le=-200, description="HU; lung lies below, soft tissue above")
    min_litres: float = Field(1.0, gt=0, description="litres; a part of the chest still holds this much")
    max_litres: float = Field(10.0, gt=0, description="litres; total lung capacity of tall men is 6 to 8")

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if self.min_litres >= self.max_litres:
            raise ValueError("min_litres must be below max_litres")
        return self


def lung_mask(
    hu: np.ndarray, spacing_mm: tuple[float, float], slice_spacing_mm: float, config: LungConfig
) -> np.ndarray:
    """Find both lungs with their vessels and nodules; the trachea may be among them.

    Args:
        hu: int16, Z×Y×X, in the standard axial view.
        spacing_mm: (row, column).
        slice_spacing_mm: distance of neighbouring slices.
        config: threshold and plausible volumes.

    Returns:
        bool, Z×Y×X, in steps of `GRID_MM` or so.

    Raises:
        SeriesRejected: `NO_LUNGS`, where nothing is found or its volume is implausible.
    """
    rows, columns = (max(1, round(GRID_MM / spacing)) for spacing in spacing_mm)
    grid_mm = (spacing_mm[0] * rows, spacing_mm[1] * columns)
    coarse = _block_mean(hu, rows, columns)
    lungs = _fill(_lung_components(coarse, _enclosed(coarse < config.threshold_hu)), grid_mm)
    litres = float(lungs.sum()) * grid_mm[0] * grid_mm[1] * slice_spacing_mm * 1e-6
    if not config.min_litres <= litres <= config.max_litres:
        limits = f"{config.min_litres:g} to {config.max_litres:g}"
        raise SeriesRejected(Reason.NO_LUNGS, f"{litres:.2f} litres found, {limits} are plausible")
    return lungs.repeat(rows, axis=1).repeat(columns, axis=2)[:, : hu.shape[1], : hu.shape[2]]


def _block_mean(hu: np.ndarray, rows: int, columns: int) -> np.ndarray:
    """Mean over blocks of rows×columns pixels, float32; the last blocks are filled up with air."""
    missing = (-hu.shape[1] % rows, -hu.shape[2] % columns)
    if any(missing):
        hu = np.pad(hu, ((0, 0), (0, missing[0]), (0, missing[1])), constant_values=AIR_HU)
    # Adding strided views is five times as fast as a mean over two reshaped axes.
    down = hu[:, ::rows].astype(np.float32)
    for row in range(1, rows):
        down += hu[:, row::rows]
    both = down[:, :, ::columns].copy()
    for column in range(1, columns):
        both += down[:, :, column::columns]
    return both / (rows * columns)


def _in_plane_components(mask: np.ndarray) -> tuple[np.ndarray, int]:
    """Label the 4-connected components of every slice, all slices in one numbering from 1."""
    plane = np.zeros((3, 3, 3), dtype=bool)
    plane[1] = ndimage.generate_binary_structure(2, 1)
    return ndimage.label(mask, plane)


def _at_border(labels: np.ndarray) -> np.ndarray:
    """The labels that touch the edge of their slice."""
    edges = (labels[:, 0], labels[:, -1], labels[:, :, 0], labels[:, :, -1])
    return np.unique(np.concatenate([edge.ravel() for edge in edges]))


def _enclosed(air: np.ndarray) -> np.ndarray:
    """Air that the body encloses within its slice.

    Slice by slice, since in three dimensions the lungs open to the room through the airways and where the scan ends.
    """
    labels, count = _in_plane_components(air)
    keep = np.ones(count + 1, dtype=bool)
    keep[_at_border(labels)] = False
    keep[0] = False
    return keep[labels]


def _lung_components(coarse: np.ndarray, enclosed: np.ndarray) -> np.ndarray:
    """The largest component that is not bare gas, and the next if it is large enough to be the other lung."""
    labels, count = ndimage.label(enclosed)
    sizes = np.bincount(labels.ravel(), minlength=count + 1)
    means = np.bincount(labels.ravel(), weights=coarse.ravel(), minlength=count + 1) / sizes.clip(min=1)
    sizes[means < GAS_HU] = 0
    sizes[0] = 0
    largest = np.argsort(sizes)[::-1][:2]
    return np.isin(labels, largest[sizes[largest] > SECOND_LUNG * sizes.max()])


def _fill(lungs: np.ndarray, grid_mm: tuple[float, float]) -> np.ndarray:
    """Close each slice of the mask, then fill its small holes."""
    size = tuple(2 * round(CLOSING_MM / spacing) + 1 for spacing in grid_mm)
    closed = ndimage.grey_closing(lungs.view(np.uint8), size=(1, *size), mode="constant").astype(bool) | lungs
    labels, count = _in_plane_components(~closed)
    fill = np.bincount(labels.ravel(), minlength=count + 1) * grid_mm[0] * grid_mm[1] < MAX_HOLE_CM2 * 100
    fill[_at_border(labels)] = False
    fill[0] = False
    return closed | fill[labels]
