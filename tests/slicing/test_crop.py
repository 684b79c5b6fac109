"""Crops: the whole slice, the lungs' box and patches, in pixels and millimetres."""

import numpy as np
import pytest
from volumes import axial_volume

from lungsynth.dicom.read import Volume
from lungsynth.lungs.mask import LungMask
from lungsynth.slicing.crop import Crop, lesion_patch, lung_box, lung_patch, whole_slice
from lungsynth.slicing.lesions import Lesion


def volume(shape: tuple[int, int, int], spacing_mm: tuple[float, float] = (1.0, 1.0), step_mm: float = 5.0) -> Volume:
    return axial_volume(np.full(shape, -850, np.int16), spacing_mm, step_mm)


def lungs(cells: np.ndarray, cell_px: tuple[int, int] = (1, 1)) -> LungMask:
    return LungMask(cells, cell_px)


def test_box_is_the_square_around_the_lungs_of_all_slices():
    cells = np.zeros((3, 40, 60), dtype=bool)
    cells[0, 10:20, 30], cells[2, 15, 10:50] = True, True
    crop = lung_box(volume((3, 40, 60), (2.0, 1.0)), lungs(cells), margin_mm=5)
    assert crop == Crop(top=2, left=5, height=25, width=50)  # rows of 20 to 40 mm and columns of 10 to 50 mm
    assert np.allclose(crop.lung_fractions(cells, (1, 1)), [10 / 1250, 0, 40 / 1250])
    assert crop.pixel_mm((2.0, 1.0), 64) == pytest.approx(50 / 64)
    coarse = lung_box(volume((3, 160, 180)), lungs(cells, (4, 3)), margin_mm=5)
    assert (coarse.height, coarse.width) == (130, 130)  # columns 30 to 150


def test_shares_count_parts_of_cells():
    cells = np.zeros((1, 4, 4), dtype=bool)
    cells[0, 1, 1] = True  # pixels 4 to 8, both ways
    for crop, shared in (
        (Crop(6, 6, 4, 4), 4),
        (Crop(0, 0, 16, 16), 16),
        (Crop(7, 0, 8, 16), 4),
        (Crop(-9, -9, 4, 4), 0),
    ):
        assert crop.lung_fractions(cells, (4, 4)) == pytest.approx([shared / (crop.height * crop.width)])


@pytest.mark.parametrize(
    ("shape", "spacing", "expected"),
    [
        ((9, 512, 512), (0.7, 0.7), Crop(0, 0, 512, 512)),
        ((9, 300, 400), (0.5, 0.5), Crop(-50, 0, 400, 400)),
        ((9, 400, 400), (0.5, 1.0), Crop(-200, 0, 800, 400)),
    ],
)
def test_whole_slices_are_padded_to_squares(shape, spacing, expected):
    assert whole_slice(volume(shape, spacing)) == expected


def test_patch_is_centred_on_the_largest_lesion():
    small = Lesion(0, 10, 10, 14, 14, area_px=16, diameter_mm=5)
    large = Lesion(0, 90.5, 100, 110.5, 120, area_px=300, diameter_mm=25)
    crop = lesion_patch([small, large], 32, (0.5, 1.0))
    assert (crop.height, crop.width) == (64, 32)
    assert crop.top + crop.height / 2 == pytest.approx(100.5, abs=0.5)
    assert crop.left + crop.width / 2 == 110


def patches(count: int, lesions: list[Lesion], index: int, **changes: object) -> list[Crop | None]:
    cells = np.zeros((12, 64, 64), dtype=bool)
    cells[:, 8:56, 4:30] = cells[:, 8:56, 34:60] = True
    options = {"patch_mm": 32, "margin_mm": 10, "min_lung_fraction": 0.5} | changes
    scan = volume((12, 256, 256))
    return [
        lung_patch(scan, lungs(cells, (4, 4)), index, lesions=lesions, **options, rng=np.random.default_rng(seed))
        for seed in range(count)
    ]


def distance(crop: Crop, lesion: Lesion) -> float:
    """Largest of the gaps down and across between a patch and a lesion, in pixels of 1 mm."""
    down = max(lesion.top - crop.top - crop.height, crop.top - lesion.bottom)
    return max(down, lesion.left - crop.left - crop.width, crop.left - lesion.right)


def test_random_patches_lie_in_the_lung_away_from_every_lesion():
    lesion = Lesion(5, 60, 40, 90, 80, area_px=900, diameter_mm=50)
    near = [crop for crop in patches(200, [lesion], index=6) if crop]
    assert len({(crop.top, crop.left) for crop in near}) > 50
    assert min(distance(crop, lesion) for crop in near) >= 10
    assert min(distance(crop, lesion) for crop in patches(200, [lesion], index=7)) < 0  # 10 mm up: far enough
    assert patches(2, [Lesion(5, 0, 0, 256, 256, area_px=1, diameter_mm=1)], index=5) == [None, None]


def test_random_patches_are_mostly_lung_and_cover_both_lungs():
    cells = np.zeros((1, 64, 64), dtype=bool)
    cells[:, 8:56, 4:30] = cells[:, 8:56, 34:60] = True
    found = patches(100, [], index=0)
    assert min(crop.lung_fractions(cells, (4, 4))[0] for crop in found) > 0.45
    assert {crop.left + 16 < 128 for crop in found} == {True, False}
    assert patches(2, [], index=0, patch_mm=200, min_lung_fraction=0.9) == [None, None]
    assert patches(3, [], index=0) == patches(3, [], index=0)
