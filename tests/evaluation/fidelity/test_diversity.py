import numpy as np
import pytest
import torch
from scipy.spatial.distance import cdist
from skimage.metrics import structural_similarity
from torch_fidelity.metric_prc import prc_features_to_metric

from lungsynth.evaluation.fidelity.diversity import manifold, modes_of, ms_ssim, share_hit


@pytest.fixture
def clouds():
    rng = np.random.default_rng(0)
    return rng.normal(size=(300, 8)).astype(np.float32), rng.normal(0.3, 0.8, size=(200, 8)).astype(np.float32)


def test_precision_and_recall_equal_torch_fidelity(clouds):
    found = manifold(*clouds)
    real, synthetic = (torch.from_numpy(side) for side in clouds)
    expected = prc_features_to_metric(synthetic, real, verbose=False)
    assert found.precision.mean() == pytest.approx(expected["precision"], rel=1e-4)
    assert found.recall.mean() == pytest.approx(expected["recall"], rel=1e-4)
    assert 0.2 < expected["recall"] < 0.95


def test_density_and_coverage_equal_their_definition(clouds):
    real, synthetic = clouds
    found = manifold(real, synthetic)
    reach = np.sort(cdist(real, real), axis=1)[:, 5]
    within = cdist(real, synthetic) < reach[:, None]
    assert found.density.mean() == pytest.approx(within.sum() / (5 * len(synthetic)), rel=1e-4)
    assert found.coverage.mean() == pytest.approx(within.any(axis=1).mean(), rel=1e-4)


def test_one_slice_for_all_is_precise_and_covers_nothing(clouds):
    real = clouds[0]
    found = manifold(real, np.repeat(real[:1], 200, axis=0))
    assert found.precision.mean() == 1
    assert found.recall.mean() < 0.02
    assert found.coverage.mean() < 0.1


def test_modes_that_are_hit(clouds):
    real = clouds[0]
    modes, count = modes_of(real, np.random.default_rng(1).normal(size=(200, 8)).astype(np.float32), seed=0)
    assert count == 20
    assert share_hit(modes, count) > 0.9
    assert share_hit(modes_of(real, np.repeat(real[:1], 200, axis=0), seed=0)[0], count) == 1 / 20


def test_ssim_at_one_scale_equals_skimage():
    rng = np.random.default_rng(0)
    image = rng.integers(0, 256, (16, 16)).astype(np.uint8)
    other = np.clip(image + rng.normal(0, 30, image.shape), 0, 255).astype(np.uint8)
    everywhere = structural_similarity(
        image, other, data_range=255, gaussian_weights=True, use_sample_covariance=False, full=True
    )[1]
    assert ms_ssim(image[None], other[None])[0] == pytest.approx(everywhere[5:-5, 5:-5].mean(), abs=1e-6)


def test_ms_ssim_falls_with_noise():
    rng = np.random.default_rng(0)
    image = np.kron(rng.integers(0, 256, (4, 8, 8)), np.ones((8, 8))).astype(np.uint8)
    values = [
        ms_ssim(image, np.clip(image + rng.normal(0, sd, image.shape), 0, 255).astype(np.uint8)).mean()
        for sd in (0, 20, 80)
    ]
    assert values[0] == pytest.approx(1)
    assert values[0] > values[1] > values[2]
