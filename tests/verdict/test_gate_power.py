"""How often the gate is wrong, over many experiments whose truth is known."""

import pytest
from experiments import outcomes

from lungsynth.verdict.gate import GateConfig

pytestmark = pytest.mark.slow
CONFIG = GateConfig(resamples=500)


@pytest.mark.parametrize("seed_sd", [0.1, 0.3], ids="SD of the distance over seeds {}".format)
def test_slices_without_effect_are_hardly_ever_promoted(seed_sd):
    found = outcomes(200, 0, {"val": 20, "test": 40}, CONFIG, seed_sd)
    print(f"no effect, 40 test patients, SD of the seeds {seed_sd}: {dict(found)}")
    assert found["promote"] <= 10


def test_a_gain_of_a_twentieth_is_found_in_400_patients():
    found = outcomes(100, 0.05, {"val": 100, "test": 400}, CONFIG, 0.1)
    print(f"gain 0.05, 400 test patients: {dict(found)}")
    assert found["promote"] >= 80
