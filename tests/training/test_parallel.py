"""Two processes train what one would."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from brief_run import BRIEF, SMALL, brief_run, halves, log_of

from lungsynth.generators.package import GeneratorPackage
from lungsynth.training import TrainingConfig
from lungsynth.training.state import TrainingState

HERE = Path(__file__).parent
SHORT = TrainingConfig.model_validate(BRIEF.model_dump() | {"kimg": 0.09, "checkpoint_kimg": 0.05})
RUN = """
import os, signal, sys, time
from pathlib import Path
sys.path.insert(0, sys.argv[1])
from brief_run import SMALL, brief_run
from test_parallel import SHORT
from lungsynth.errors import LungsynthError
from lungsynth.training import loop
from lungsynth.training.state import TrainingState

folder, rank = Path(sys.argv[2]), int(os.environ["RANK"])
step, save = loop._step, TrainingState.save

def slowly(state, path):
    time.sleep(2)
    save(state, path)

TrainingState.save = slowly

def signalled(state, *rest):
    if rank == 1 and state.step == 2:
        signal.raise_signal(signal.SIGTERM)
    return step(state, *rest)

loop._step = signalled
try:
    brief_run(folder, SHORT)
except LungsynthError as error:
    print(f"process {rank}: {error}", flush=True)
loop._step = step
brief_run(folder, SHORT)
print(f"process {rank}: done", flush=True)

def failing(state, *rest):
    if rank == 1 and state.step == 2:
        raise LungsynthError("no slices here")
    return step(state, *rest)

loop._step = failing
brief_run(folder / "failing", SHORT)
"""


def torchrun(*arguments):
    command = [
        sys.executable,
        "-m",
        "torch.distributed.run",
        "--standalone",
        "--nproc-per-node",
        "2",
        *map(str, arguments),
    ]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONWARNINGS": "default"}
    return subprocess.run(command, env=environment, text=True, capture_output=True, check=False)


@pytest.fixture(scope="module")
def both(tmp_path_factory):
    """The same run by two processes, stopped on its way, and by one; and what the two said."""
    folder = tmp_path_factory.mktemp("parallel")
    (folder / "run.py").write_text(RUN)
    done = torchrun(str(folder / "run.py"), str(HERE), str(folder / "two"))
    return done, GeneratorPackage(folder / "two" / "package"), brief_run(folder / "one", SHORT)


def test_losses_and_weights_are_those_of_one_process(both):
    _, two, one = both
    assert two.card == one.card
    for mine, theirs in zip(log_of(two), log_of(one), strict=True):
        assert mine == pytest.approx(theirs, rel=1e-4)
    before = TrainingState.new(SMALL, SHORT, torch.device("cpu")).average.state_dict()
    ours, theirs = (package.load().state_dict() for package in (two, one))
    assert any("running_var" in name for name in theirs)  # batch norm, too
    for name, tensor in theirs.items():
        torch.testing.assert_close(ours[name], tensor, rtol=1e-3, atol=2e-5)
        assert not torch.equal(tensor, before[name])


def test_a_signal_to_one_process_stops_all(both):
    done, *_ = both
    for rank in range(2):
        assert f"process {rank}: stopped by SIGTERM at 0.05 kimg" in done.stdout
        assert f"process {rank}: done" in done.stdout


def test_an_error_of_one_process_ends_all(both):
    done, *_ = both
    assert done.returncode == 1
    assert "LungsynthError: no slices here" in done.stderr


def test_a_batch_that_cannot_be_dealt_out(tmp_path):
    images, labels = halves()
    np.savez(tmp_path / "set.npz", images=images, labels=labels)
    (tmp_path / "run.yaml").write_text("parameters: {generator: {size: 32}, training: {batch: 20, device: cpu}}")
    folders = ["--out", tmp_path / "package", "--checkpoints", tmp_path / "checkpoints"]
    done = torchrun("-m", "lungsynth.training", "-c", tmp_path / "run.yaml", "--data", tmp_path / "set.npz", *folders)
    assert done.returncode == 1
    assert "error in process 0: a batch of 20 cannot be dealt to 2 processes in groups of 4 slices" in done.stderr
