"""Settings that change while a network trains."""

import pytest

from lungsynth.training.schedule import Ramp, at


def test_a_number_stays():
    assert at(3.0, 0) == at(3.0, 1e6) == 3


def test_a_ramp_follows_half_a_cosine():
    ramp = Ramp(start=2, end=1, from_kimg=10, until_kimg=30)
    assert [at(ramp, kimg) for kimg in (0, 10, 20, 30, 99)] == [2, 2, 1.5, 1, 1]
    assert at(ramp, 15) == pytest.approx(1 + (1 + 0.5**0.5) / 2)
