"""The lung mask: coarse cells for crops and areas, refined to pixels on demand."""

from dataclasses import dataclass

import cv2
import numpy as np

_AROUND = np.ones((3, 3), np.uint8)


@dataclass(frozen=True)
class Edges:
    """Refines the mask's surface: the volume (int16, Z×Y×X), and the HU below which a pixel is lung."""

    hu: np.ndarray
    threshold_hu: float


@dataclass(frozen=True)
class LungMask:
    """Parenchyma with its vessels and nodules, without trachea and main bronchi as far as the backend separates them.

    `cells` is bool, Z×⌊Y/r⌋×⌊X/c⌋, where `cell_px` (r, c) is the size of a cell in pixels; the pixels of an incomplete
    last row or column of cells are no lung. `notes` say what was odd. Without `edges` whole cells are lung or are not.
    """

    cells: np.ndarray
    cell_px: tuple[int, int]
    notes: tuple[str, ...] = ()
    edges: Edges | None = None

    def pixels(self, shape: tuple[int, int, int]) -> np.ndarray:
        """The mask at the volume's own Z×Y×X `shape`, bool; it takes a few ms a slice."""
        mask = np.zeros(shape, bool)
        for z in range(len(mask)):
            mask[z] = self.plane(z, shape[1:])
        return mask

    def plane(self, z: int, shape: tuple[int, int]) -> np.ndarray:
        """Slice `z` of the mask at the volume's own Y×X `shape`, bool."""
        plane = np.zeros(shape, bool)
        cells = self.cells[z]
        if cells.any():
            sharp = self.edges and self.cell_px != (1, 1)
            fine = self._sharpen(z) if sharp else cells.repeat(self.cell_px[0], 0).repeat(self.cell_px[1], 1)
            plane[: fine.shape[0], : fine.shape[1]] = fine
        return plane

    def _sharpen(self, z: int) -> np.ndarray:
        """Refine the mask to pixels where cells of lung meet other cells.

        Dense lung (vessels, nodules) has no edge at the threshold, so its cells are only smoothed.
        """
        assert self.edges is not None
        cells = self.cells[z].view(np.uint8)
        rows, columns = self.cell_px
        size = (cells.shape[1] * columns, cells.shape[0] * rows)
        light = self.edges.hu[z, : size[1], : size[0]] < self.edges.threshold_hu
        light_cells = cv2.resize(light.view(np.uint8) * 255, cells.shape[::-1], interpolation=cv2.INTER_AREA) > 127
        inside = cv2.erode(cells, _AROUND).astype(bool)
        # Air cells that the backend left out, such as the trachea's, stay out.
        around = cv2.dilate(cells, _AROUND).astype(bool) & (self.cells[z] | ~light_cells)
        dense = self.cells[z] & ~light_cells
        smooth = cv2.resize(cells * 255, size, interpolation=cv2.INTER_LINEAR) > 127
        inside, around, dense = (
            cv2.resize(each.view(np.uint8), size, interpolation=cv2.INTER_NEAREST).view(bool)
            for each in (inside, around, dense)
        )
        mask = inside | (around & light) | (dense & smooth)
        result: np.ndarray = cv2.medianBlur(mask.view(np.uint8), 3 if min(rows, columns) < 4 else 5).view(bool)
        return result
