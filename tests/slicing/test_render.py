"""Resampling and windowing against slow float64 references."""

import math

import numpy as np
import pytest
from scipy import ndimage

from lungsynth.slicing.crop import Crop
from lungsynth.slicing.render import render, render_mask, resample

WINDOW = (-1350.0, 150.0)


def texture(shape: tuple[int, int], seed: int = 0) -> np.ndarray:
    """Tissue, lung and bone with sharp edges and noise, int16."""
    rng = np.random.default_rng(seed)
    smooth = ndimage.gaussian_filter(rng.normal(size=shape), 4)
    hu = np.select([smooth > 0.08, smooth > 0.0, smooth > -0.08], [900, 40, -100], -860)
    return (hu + rng.normal(0, 40, shape)).round().clip(-1024, 3071).astype(np.int16)


def windowed(hu: np.ndarray) -> np.ndarray:
    return ((hu - WINDOW[0]) / (WINDOW[1] - WINDOW[0])).clip(0, 1) * 255


def cut(hu: np.ndarray, crop: Crop) -> np.ndarray:
    padded = np.pad(hu, 300, constant_values=-1024).astype(np.float64)
    return padded[crop.top + 300 :, crop.left + 300 :][: crop.height, : crop.width]


def reference(hu: np.ndarray, crop: Crop, size: int) -> np.ndarray:
    """The mean of n×n bilinear samples of each output pixel, in float64, then the window."""
    region = cut(hu, crop)
    n = math.ceil(max(region.shape) / size)
    places = [(np.arange(n * size) + 0.5) * extent / (n * size) - 0.5 for extent in region.shape]
    fine = ndimage.map_coordinates(region, np.meshgrid(*places, indexing="ij"), order=1, mode="nearest")
    return windowed(fine.reshape(size, n, size, n).mean(axis=(1, 3)))


@pytest.mark.parametrize("size", [32, 64, 128, 256])
@pytest.mark.parametrize(
    "crop",
    [
        Crop(40, 30, 417, 417),
        Crop(0, 0, 512, 512),
        Crop(-60, -7, 600, 600),  # beyond every edge
        Crop(10, 100, 300, 410),  # pixels that are no squares
        Crop(400, 420, 260, 260),  # beyond two edges
    ],
)
def test_reduced_slices_are_those_of_the_reference(crop, size):
    hu = texture((512, 512))
    image = render(hu, crop, size, window_hu=WINDOW)
    assert (image.shape, image.dtype) == ((size, size), np.uint8)
    assert np.abs(image - reference(hu, crop, size)).max() <= 1


@pytest.mark.parametrize("size", [64, 128, 256])
def test_that_reference_is_within_noise_of_averaging_over_areas(size):
    hu = texture((512, 512))
    crop = Crop(40, 30, 417, 417)
    overlap = np.clip(
        np.minimum((np.arange(size) + 1)[:, None] * 417 / size, np.arange(417) + 1)
        - np.maximum(np.arange(size)[:, None] * 417 / size, np.arange(417)),
        0,
        None,
    ) / (417 / size)
    exact = overlap @ cut(hu, crop) @ overlap.T
    difference = resample(hu, crop, size, outside=-1024) - exact
    assert abs(difference.mean()) < 0.6
    assert difference.std() < 0.15 * exact.std()


def test_whole_ratios_average_exactly():
    hu = texture((512, 512))
    exact = hu.astype(np.float64).reshape(256, 2, 256, 2).mean(axis=(1, 3))
    assert np.abs(resample(hu, Crop(0, 0, 512, 512), 256, outside=-1024) - exact).max() <= 0.5


def test_the_same_size_changes_nothing():
    hu = texture((64, 64))
    assert np.array_equal(resample(hu, Crop(0, 0, 64, 64), 64, outside=-1024), hu)


def test_hu_are_averaged_before_they_are_clipped():
    """Of 900 HU and -860 HU in turn the mean is 20 HU; clipped to the window first, it would be -355."""
    hu = np.where(np.indices((64, 64)).sum(axis=0) % 2, 900, -860).astype(np.int16)
    assert np.abs(render(hu, Crop(0, 0, 64, 64), 32, window_hu=WINDOW) - round(1370 / 1500 * 255)).max() <= 1


@pytest.mark.parametrize(("hu", "grey"), [(-1350, 0), (150, 255), (-600, 128), (-1000, 60), (2000, 255), (-1024, 55)])
def test_the_window_is_linear_between_its_ends(hu, grey):
    plane = np.full((100, 100), hu, dtype=np.int16)
    assert (render(plane, Crop(10, 10, 70, 70), 32, window_hu=WINDOW) == grey).all()
    assert (render(plane, Crop(10, 10, 70, 70), 96, window_hu=WINDOW) == grey).all()


def test_enlarged_patches_are_smooth():
    """A Gaussian blob of 8 pixels, eight times as large: the blob itself, with no block or facet in it."""
    y, x = np.indices((64, 64))
    blob = 1000 * np.exp(-((y - 31.5) ** 2 + (x - 31.5) ** 2) / 128) - 900
    image = render(blob.round().astype(np.int16), Crop(0, 0, 64, 64), 512, window_hu=WINDOW).astype(float)
    places = (np.arange(512) + 0.5) / 8 - 0.5
    exact = windowed(1000 * np.exp(-((places[:, None] - 31.5) ** 2 + (places - 31.5) ** 2) / 128) - 900)
    assert np.abs(image - exact).max() < 2
    assert np.abs(np.diff(image, axis=0)).max() <= np.abs(np.diff(exact, axis=0)).max() + 1.5


def test_masks_lie_where_the_slices_do():
    mask = np.zeros((200, 300), bool)
    mask[40:120, 100:180] = True
    hu = np.where(mask, 150, -1350).astype(np.int16)
    for crop in (Crop(20, 80, 130, 130), Crop(-30, 60, 160, 160), Crop(0, 0, 200, 300)):
        for size in (32, 128, 256):
            drawn = render_mask(mask, crop, size)
            assert drawn.dtype == np.uint8
            assert set(np.unique(drawn)) == {0, 1}
            assert np.array_equal(drawn == 1, render(np.where(mask, hu, -1350), crop, size, window_hu=WINDOW) >= 128)
            assert drawn.mean() * crop.height * crop.width == pytest.approx(6400, rel=0.06)
