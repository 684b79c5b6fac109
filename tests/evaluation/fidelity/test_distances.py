import numpy as np
import pytest
import torch
from torch_fidelity.metric_kid import kid_features_to_metric

from lungsynth.evaluation.fidelity.distances import (
    DistancesConfig,
    draw_weights,
    fid,
    fid_draws,
    kernels,
    kid,
    kid_draws,
)
from lungsynth.evaluation.fidelity.sides import Images

CONFIG = DistancesConfig(resamples=20)


@pytest.fixture
def pair():
    rng = np.random.default_rng(0)
    real, other = rng.normal(size=(90, 6)).astype(np.float32), rng.normal(0.5, 1.3, (60, 6)).astype(np.float32)
    return Images(real, np.zeros(90, int), np.arange(90) // 3), Images(other, np.zeros(60, int), np.arange(60))


def test_fid_of_a_resample_equals_torch_fidelity_on_repeated_rows(pair):
    found = fid_draws(*pair, CONFIG)
    for b, (w, v) in enumerate(zip(*draw_weights(*pair, CONFIG), strict=True)):
        rows = (np.repeat(side.values, times, axis=0) for side, times in zip(pair, (w, v), strict=True))
        assert found[b] == pytest.approx(fid(*rows), rel=1e-4)


def test_kid_without_repeats_equals_torch_fidelity(pair):
    real, other = (side.values[:60] for side in pair)
    once = [Images(values, np.zeros(60, int), np.zeros(60, int)) for values in (real, other)]  # one cluster: as it is
    options = {"kid_subsets": 1, "kid_subset_size": 60, "rng_seed": 0, "verbose": False}
    expected = kid_features_to_metric(torch.from_numpy(other), torch.from_numpy(real), **options)
    assert kid_draws(kernels(real, other), *once, config=CONFIG) == pytest.approx(
        expected["kernel_inception_distance_mean"], rel=1e-4
    )


@pytest.mark.parametrize("size", [60, 25])
def test_kid_of_subsets_equals_torch_fidelity(pair, size):
    real, other = (side.values for side in pair)
    options = {"kid_subsets": 30, "kid_subset_size": size, "rng_seed": 0, "verbose": False}
    expected = kid_features_to_metric(torch.from_numpy(other), torch.from_numpy(real), **options)
    found = kid(kernels(real, other), DistancesConfig(kid_subsets=30, kid_subset_size=size))
    assert found == pytest.approx(expected["kernel_inception_distance_mean"], rel=1e-4)


def test_the_real_side_is_drawn_alike_for_every_other(pair):
    smaller = pair[1]._replace(values=pair[1].values[:40], labels=pair[1].labels[:40], clusters=np.arange(40))
    first, second = (draw_weights(pair[0], other, CONFIG)[0] for other in (pair[1], smaller))
    assert (first == second).all()
    assert (first[:, ::3] == first[:, 1::3]).all()  # slices of a patient come together
