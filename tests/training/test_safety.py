"""Killed, stopped or out of memory: nothing is lost, and the reader is told what to do."""

import errno
import os
import random
import re
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest
import torch
from brief_run import BRIEF, brief_run, log_of

from lungsynth.errors import LungsynthError
from lungsynth.generators.package import GeneratorPackage
from lungsynth.locks import alone
from lungsynth.training import loop, output, stopping
from lungsynth.training.memory import within_memory
from lungsynth.training.stopping import Stop, StoppedError

RUN = """
import sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
from brief_run import brief_run
from lungsynth.training import loop
from lungsynth.training.stopping import StoppedError

step = loop._step

def told(state, *rest):
    found = step(state, *rest)
    print(f"shown {state.shown};", file=sys.stderr, flush=True)
    return found

loop._step = told
try:
    brief_run(Path(sys.argv[2]))
except StoppedError as error:
    sys.exit(error.exit_code)
"""
FULL = "DefaultCPUAllocator: can't allocate memory: you tried to allocate 4 bytes"


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    """A brief run from its start to its end."""
    return brief_run(tmp_path_factory.mktemp("undisturbed"))


def start(folder):
    """The same run in a process of its own, once it has shown 600 slices: a checkpoint, and 6 steps more."""
    command = [sys.executable, "-c", RUN, str(Path(__file__).parent), str(folder)]
    process = subprocess.Popen(command, stderr=subprocess.PIPE)
    assert process.stderr is not None
    while b"shown 608;" not in (line := process.stderr.read1()):
        assert line, "the run ended by itself"
    return process


def checkpoint(folder):
    (run,) = (folder / "checkpoints").iterdir()
    assert not list(run.glob("*.partial"))
    return torch.load(run / "state.pt", weights_only=True)


def check_same(package, undisturbed):
    assert package.sha256 == undisturbed.sha256
    assert log_of(package) == log_of(undisturbed)


def test_killed_at_any_step_a_run_ends_as_if_it_had_not_been(tmp_path, undisturbed):
    process = start(tmp_path)
    for _ in range(random.randrange(20)):  # steps, more or less
        process.stderr.read1()
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert process.returncode == -signal.SIGKILL
    assert checkpoint(tmp_path)["shown"] in (512, 1008)
    check_same(brief_run(tmp_path), undisturbed)


def second(first, folder):
    """The same run once more, as soon as it says that it waits; the first is halted until then."""
    command = [sys.executable, "-c", RUN, str(Path(__file__).parent), str(folder)]
    first.send_signal(signal.SIGSTOP)
    process = subprocess.Popen(command, stderr=subprocess.PIPE)
    said = process.stderr.readline().decode()
    assert re.match(r"another run \(pid \d+ on .*\) is at work in .*checkpoints/\w{16}; waiting until it ends\.", said)
    first.send_signal(signal.SIGCONT)
    return process


def test_of_two_equal_runs_the_second_waits_and_takes_what_the_first_has_done(tmp_path, undisturbed):
    first = start(tmp_path)
    waiting = second(first, tmp_path)
    first.communicate()
    _, said = waiting.communicate()
    assert (first.returncode, waiting.returncode) == (0, 0)
    check_same(GeneratorPackage(tmp_path / "package"), undisturbed)
    assert said.count(b"another run") == 0
    assert b"shown" not in said  # no step was left to do
    assert list((tmp_path / "checkpoints").iterdir()) == []


def test_where_the_first_of_two_equal_runs_is_killed_the_second_goes_on(tmp_path, undisturbed):
    first = start(tmp_path)
    waiting = second(first, tmp_path)
    first.send_signal(signal.SIGKILL)
    first.communicate()
    _, said = waiting.communicate()
    assert waiting.returncode == 0
    assert re.search(rb"shown (\d+);", said)[1] in (b"528", b"1024")  # the first step after the other's checkpoint
    check_same(GeneratorPackage(tmp_path / "package"), undisturbed)


def test_two_runs_for_one_folder_take_turns(tmp_path):
    """Of another seed, so that they share no checkpoint."""
    with alone(tmp_path / "package" / ".lock", tmp_path / "package", ""):
        waiting = threading.Thread(target=brief_run, args=(tmp_path, BRIEF.model_copy(update={"kimg": 0.1})))
        waiting.start()
        waiting.join(1)
        assert waiting.is_alive()
        assert not (tmp_path / "package" / "weights.safetensors").exists()
    waiting.join()
    assert sorted(path.name for path in tmp_path.glob("package/*.safetensors"))[-1] == "weights.safetensors"
    assert not (tmp_path / "package" / ".lock").exists()


def test_sigterm_leaves_a_checkpoint_of_that_moment(tmp_path, undisturbed):
    process = start(tmp_path)
    process.send_signal(signal.SIGTERM)
    process.communicate()
    assert process.returncode == 128 + signal.SIGTERM
    assert checkpoint(tmp_path)["shown"] >= 608
    check_same(brief_run(tmp_path), undisturbed)


def at_step(monkeypatch, number, action):
    """Call `action` in the middle of a run's step of this number."""
    step = loop._step

    def watched(state, *arguments):
        if state.step == number:
            action()
        return step(state, *arguments)

    monkeypatch.setattr(loop, "_step", watched)


@pytest.mark.parametrize("number", stopping.SIGNALS)
def test_a_signal_ends_a_run_after_its_step(tmp_path, monkeypatch, number):
    others = []
    before = signal.signal(number, lambda *call: others.append(call))  # as an orchestrator's
    try:
        at_step(monkeypatch, 3, lambda: signal.raise_signal(number))
        with pytest.raises(
            StoppedError, match=f"stopped by {number.name} at 0.06 kimg; the same command goes on"
        ) as error:
            brief_run(tmp_path)
        assert error.value.exit_code == 128 + number
        assert checkpoint(tmp_path)["step"] == 4
        assert not others
        signal.raise_signal(number)
        assert len(others) == 1
    finally:
        signal.signal(number, before)


def test_a_signal_breaks_off_a_look_which_comes_first_when_the_run_goes_on(tmp_path, monkeypatch, undisturbed):
    seen = []

    look = loop.Monitor.look

    def interrupted(monitor, level):
        seen.append("begins")
        signal.raise_signal(signal.SIGTERM)
        seen.append("ends")

    monkeypatch.setattr(loop.Monitor, "look", interrupted)
    with pytest.raises(StoppedError):
        brief_run(tmp_path)
    assert seen == ["begins"]
    assert checkpoint(tmp_path)["shown"] == 608
    monkeypatch.setattr(loop.Monitor, "look", look)
    check_same(brief_run(tmp_path), undisturbed)


def test_the_second_signal_is_for_the_handler_before():
    found = []
    before = signal.signal(signal.SIGINT, lambda number, frame: found.append(number))
    try:
        with Stop() as stop:
            signal.raise_signal(signal.SIGINT)
            assert (stop.number, found) == (signal.SIGINT, [])
            signal.raise_signal(signal.SIGINT)
            assert found == [signal.SIGINT]
    finally:
        signal.signal(signal.SIGINT, before)


def test_outside_the_main_thread_signals_are_left_alone():
    found = []

    def look():
        with Stop():
            found.extend(signal.getsignal(number) for number in stopping.SIGNALS)

    before = [signal.getsignal(number) for number in stopping.SIGNALS]
    thread = threading.Thread(target=look)
    thread.start()
    thread.join()
    assert found == before


@pytest.mark.parametrize(
    ("largest", "error", "says"),
    [
        (8, torch.OutOfMemoryError("CUDA out of memory."), "set training.micro_batch to 8, which was tried and fits"),
        (7, RuntimeError(FULL), "set training.micro_batch to 4, which was tried and fits"),
        (3, RuntimeError(FULL), "passes of 16 slices do not fit, nor do 4; take a smaller network"),
    ],
)
def test_out_of_memory_names_what_fits(tmp_path, monkeypatch, largest, error, says):
    def full(module, inputs):
        if len(inputs[0]) > largest:
            raise error

    state_new = loop.TrainingState.new

    def watched(*arguments):
        state = state_new(*arguments)
        state.generator.register_forward_pre_hook(full)
        return state

    monkeypatch.setattr(loop.TrainingState, "new", watched)
    with pytest.raises(LungsynthError, match=says):
        brief_run(tmp_path)


def test_among_several_processes_nothing_is_tried():
    sizes = []

    def step(size):
        sizes.append(size)
        raise torch.OutOfMemoryError

    with pytest.raises(LungsynthError, match=r"in each process; set training\.micro_batch to 12"):
        within_memory(step, 24, alone=False)
    assert sizes == [None]


def test_other_errors_are_not_taken_for_a_lack_of_memory():
    def step(size):
        raise RuntimeError("shapes do not match")

    with pytest.raises(RuntimeError, match="shapes do not match"):
        within_memory(step, 16, alone=True)


def test_a_damaged_checkpoint_is_named(tmp_path, monkeypatch):
    at_step(monkeypatch, 3, lambda: signal.raise_signal(signal.SIGTERM))
    with pytest.raises(StoppedError):
        brief_run(tmp_path)
    (run,) = (tmp_path / "checkpoints").iterdir()
    (run / "state.pt").write_bytes((run / "state.pt").read_bytes()[:-100])
    with pytest.raises(LungsynthError, match=r"state\.pt: not a usable checkpoint; delete it to train from the start"):
        brief_run(tmp_path)


@pytest.mark.parametrize("name", ["save_film", "beside"])
def test_a_full_disk_is_named_and_costs_no_more_than_since_the_checkpoint(tmp_path, monkeypatch, undisturbed, name):
    def full(*arguments):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(output, name, full)
    with pytest.raises(LungsynthError, match=r"files cannot be written \(No space left on device\)"):
        brief_run(tmp_path)
    monkeypatch.undo()
    check_same(brief_run(tmp_path), undisturbed)
