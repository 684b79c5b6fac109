"""The average of the weights."""

import pytest
from torch import nn

from lungsynth.training import ema


def test_average_forgets_half_in_one_half_life():
    one, two = nn.BatchNorm1d(3), nn.BatchNorm1d(3)
    nn.init.constant_(two.weight, 5.0)
    nn.init.constant_(two.running_mean, 4.0)
    two.num_batches_tracked += 9
    average = ema.average_of(one)
    for _ in range(50):
        ema.update(average, two, ema.decay(0.5, warm_up=0.2, shown_kimg=100, step_kimg=0.01))
    assert average.weight.tolist() == pytest.approx([3, 3, 3], abs=1e-4)
    assert average.running_mean.tolist() == pytest.approx([2, 2, 2], abs=1e-4)
    assert average.num_batches_tracked == 9
    assert not average.training
    assert not average.weight.requires_grad


def test_average_warms_up():
    assert ema.decay(1.0, warm_up=0.2, shown_kimg=0.05, step_kimg=0.01) == pytest.approx(0.5)
    assert ema.decay(1.0, warm_up=0.2, shown_kimg=50, step_kimg=0.01) == pytest.approx(0.5**0.01)
    assert ema.decay(1.0, warm_up=0.2, shown_kimg=0, step_kimg=0.01) == 0
