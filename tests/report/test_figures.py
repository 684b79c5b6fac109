"""The figures: what is drawn where, and in which colour."""

from io import BytesIO

import numpy as np
import pytest
from PIL import Image

from lungsynth.dataset.vocabulary import CLASSES
from lungsynth.evaluation.quantities import COMPARED
from lungsynth.evaluation.scorecard import Metric
from lungsynth.report.figures import BAND, COLUMNS, GAP, GUTTER, OUTLINE, ROWS, TILE, block, forest, sample_sheet


def test_sheet_holds_real_slices_left_and_synthetic_ones_right():
    count = ROWS * COLUMNS
    real = np.arange(2 * count, dtype=np.uint8).reshape(2, count, 1, 1) * np.ones((32, 32), np.uint8)
    sheet = np.asarray(sample_sheet(real, real + 100, CLASSES))
    block, band = COLUMNS * (TILE + GAP) - GAP, BAND + ROWS * (TILE + GAP)
    centre = BAND + TILE // 2
    assert sheet[centre, TILE // 2] == real[0, 0, 0, 0]
    assert sheet[band + centre + TILE + GAP, block - TILE // 2] == real[1, -1, 0, 0]
    assert sheet[centre, block + GUTTER + TILE // 2] == real[0, 0, 0, 0] + 100


def test_block_sets_slices_in_rows_with_clear_gaps():
    slices = np.arange(1, 7, dtype=np.uint8)[:, None, None] * np.full((8, 8), 30, np.uint8)
    picture = block(slices, 4, TILE)
    grey, opaque = (np.asarray(channel) for channel in picture.split())
    assert picture.size == (4 * (TILE + GAP) - GAP, 2 * (TILE + GAP) - GAP)
    assert [grey[TILE // 2, TILE // 2 + place * (TILE + GAP)] for place in range(4)] == [30, 60, 90, 120]
    assert grey[TILE + GAP, 2 * TILE] == 180
    assert opaque.mean() == pytest.approx(255 * 6 * TILE**2 / grey.size)
    assert (opaque[:, TILE : TILE + GAP] == 0).all()


def test_block_outlines_masks_on_their_slices():
    slices, masks = np.full((2, 32, 32), 90, np.uint8), np.zeros((2, 32, 32), np.uint8)
    masks[1, 8:24, 8:24] = 1
    pixels = np.asarray(block(slices, 2, TILE, masks=masks).convert("RGB"))
    found = np.argwhere((pixels == OUTLINE).all(axis=-1))
    assert (found.min(axis=0) == (TILE // 4, TILE + GAP + TILE // 4)).all()
    assert (found.max(axis=0) == (3 * TILE // 4 - 1, TILE + GAP + 3 * TILE // 4 - 1)).all()
    assert (pixels[TILE // 2, TILE + GAP + TILE // 2] == 90).all()  # inside


def test_forest_puts_a_higher_value_further_right():
    def centre(value: float) -> float:
        arms = {"real+classical+synthetic@1": (value, value - 0.01, value + 0.01), "real": (0.5, 0.0, 1.0)}
        rows = {
            arm: Metric(quantity=COMPARED["AUROC"], arm=arm, value=middle, low=low, high=high, computed_with="test")
            for arm, (middle, low, high) in arms.items()
        }
        pixels = np.asarray(Image.open(BytesIO(forest(rows, "AUROC", "light"))).convert("RGBA")).astype(int)
        coloured = (pixels[..., 2] - pixels[..., 0] > 80) & (pixels[..., 3] > 200)
        return float(np.argwhere(coloured)[:, 1].mean())

    assert centre(0.3) + 50 < centre(0.6)
