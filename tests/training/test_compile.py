"""A compiled run takes the same steps as one that is not."""

import shutil

import pytest
from brief_run import BRIEF, brief_run, log_of

from lungsynth.generators.r3gan import R3ganConfig


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor:UserWarning")  # from inside torch.compile
@pytest.mark.skipif(not shutil.which("g++"), reason="torch.compile needs a C++ compiler")
def test_compiled_networks_learn_the_same(tmp_path):
    network = R3ganConfig(size=32, nz=8, channel_base=512, channel_max=32, blocks=1)
    penalties = BRIEF.loss.model_copy(update={"kind": "relativistic", "r2_gamma": 0.1, "penalty_every": 3})
    logs = []
    for compiled in (False, True):
        settings = {"kimg": 0.6, "loss": penalties, "compile": compiled, "beta1": 0.0}
        logs.append(log_of(brief_run(tmp_path / str(compiled), BRIEF.model_copy(update=settings), network)))
    for plain, quick in zip(*logs, strict=True):
        assert quick == pytest.approx(plain, rel=1e-2, abs=0.02)
