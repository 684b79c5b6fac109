import numpy as np
import pytest
from skimage.exposure import match_histograms

from lungsynth.evaluation.fidelity.normalisation import histogram, normalise


@pytest.fixture
def images():
    rng = np.random.default_rng(0)
    return np.clip(rng.normal([[[90]], [[140]]], 15, (2, 40, 40)), 30, 220).astype(np.uint8)


def test_min_max_stretches_each_slice(images):
    found = normalise(images, "min-max", histogram(images))
    assert (found.min(axis=(1, 2)) == 0).all()
    assert (found.max(axis=(1, 2)) == 255).all()
    expected = (images[0].astype(float) - images[0].min()) / np.ptp(images[0]) * 255
    assert found[0] == pytest.approx(expected, abs=0.5)


def test_clip_leaves_out_the_brightest_and_darkest_hundredth(images):
    found = normalise(images, "clip", histogram(images))
    assert (found == 0).mean(axis=(1, 2)) == pytest.approx(0.01, abs=0.02)
    assert (found == 255).mean(axis=(1, 2)) == pytest.approx(0.01, abs=0.02)


def test_matched_slices_have_the_histogram_of_the_reference(images):
    found = normalise(images[:1], "matched", histogram(images[1:]))
    assert found[0] == pytest.approx(match_histograms(images[0], images[1]), abs=1.01)


def test_the_window_of_the_dataset_changes_nothing(images):
    assert normalise(images, "window", histogram(images)) is images


@pytest.mark.parametrize("how", ["min-max", "clip", "matched"])
def test_a_slice_of_one_grey_value_is_no_trouble(images, how):
    flat = np.full((1, 8, 8), 70, np.uint8)
    assert normalise(flat, how, histogram(images)).shape == (1, 8, 8)
