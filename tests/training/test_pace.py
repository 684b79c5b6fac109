"""How many threads a step takes, against machines whose speed is known."""

import pytest
import torch

from lungsynth.training import pace
from lungsynth.training.pace import RETRY_S, Pace


class Machine:
    """A clock that a step moves on by `seconds` of the number of threads in use."""

    def __init__(self, seconds: dict[int, float]) -> None:
        self.seconds, self.now, self.used = seconds, 0.0, []

    def clock(self) -> float:
        return self.now

    def step(self) -> None:
        self.used.append(torch.get_num_threads())
        self.now += self.seconds[self.used[-1]]

    def run(self, pace: Pace, seconds: float) -> list[int]:
        """The numbers of threads that are used from now on for so long."""
        end, first = self.now + seconds, len(self.used)
        while self.now < end:
            pace.timed(self.step)
        return self.used[first:]


QUIET, BUSY = {1: 0.10, 2: 0.06}, {1: 0.10, 2: 0.20}


@pytest.fixture(autouse=True)
def two_cores(monkeypatch):
    """Two cores, whatever the machine has."""
    monkeypatch.setattr(pace, "usable_cpus", lambda: 2)
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(1)


@pytest.mark.parametrize(("seconds", "best"), [(QUIET, 2), (BUSY, 1), ({1: 0.057, 2: 0.06}, 2), ({1: 5.0, 2: 3.0}, 2)])
def test_the_faster_number_is_taken_after_a_trial_and_a_tie_keeps_all(seconds, best):
    machine = Machine(seconds)
    pace = Pace(clock=machine.clock)
    assert set(machine.run(pace, 30 * max(seconds.values()))) == {1, 2}
    assert pace.threads == best


def test_a_machine_that_becomes_busy_costs_two_seconds_and_one_that_becomes_quiet_is_noticed():
    machine = Machine(QUIET)
    pace = Pace(clock=machine.clock)
    machine.run(pace, 10)
    assert pace.threads == 2
    machine.seconds = BUSY
    used = machine.run(pace, 10)
    assert sum(BUSY[2] for number in used if number == 2) < 3
    assert pace.threads == 1
    machine.seconds = QUIET
    machine.run(pace, RETRY_S + 2)
    assert pace.threads == 2


def test_a_quiet_machine_is_left_alone():
    machine = Machine(QUIET)
    pace = Pace(clock=machine.clock)
    machine.run(pace, 3)
    assert set(machine.run(pace, 300)) == {2}


def test_what_a_busy_machine_tries_again_costs_little():
    machine = Machine(BUSY)
    pace = Pace(clock=machine.clock)
    machine.run(pace, 3)
    used = machine.run(pace, 300)
    assert len(used) * BUSY[1] > 0.96 * 300


def test_a_step_that_always_takes_longer_from_now_on_is_tried_once():
    machine = Machine(QUIET)
    pace = Pace(clock=machine.clock)
    machine.run(pace, 5)
    machine.seconds = {1: 1.0, 2: 0.6}  # a network has grown
    machine.run(pace, 20)
    assert pace.threads == 2
    assert set(machine.run(pace, 100)) == {2}


def test_one_step_in_four_that_takes_three_times_as_long_starts_no_trial():
    machine = Machine(QUIET)
    pace = Pace(clock=machine.clock)
    machine.run(pace, 3)
    used = []
    for number in range(400):
        machine.seconds = {name: (3 if number % 4 == 0 else 1) * taken for name, taken in QUIET.items()}
        pace.timed(machine.step)
        used.append(pace.threads)
    assert set(used) == {2}


def test_a_fixed_number_is_kept():
    machine = Machine({3: 1.0})
    assert set(machine.run(Pace(3, clock=machine.clock), 50)) == {3}


def test_a_run_that_goes_on_begins_with_the_number_it_had():
    machine = Machine(BUSY)
    pace = Pace(recorded=1, clock=machine.clock)
    assert set(machine.run(pace, RETRY_S - 1)) == {1}


def test_a_number_recorded_on_a_larger_machine_is_not_taken():
    assert Pace(recorded=7).threads == 2


def test_many_cores_are_not_tried_one_by_one(monkeypatch):
    monkeypatch.setattr(pace, "usable_cpus", lambda: 16)
    torch.set_num_threads(16)
    machine = Machine({number: 0.02 if number == 15 else 0.05 + 1 / number for number in range(1, 17)})
    chosen = Pace(clock=machine.clock)
    assert set(machine.run(chosen, 5)) == {16, 15, 8}
    assert chosen.threads == 15
