"""How many CPU threads a training step uses: measured, since no number is best on quiet and on busy machines alike.

torch's threads wait for each other hundreds of times a step, spinning. Where another process takes one of their cores,
all wait for the thread that lost it, and two threads are slower than one (benchmarks/bench_busy.py).
"""

import statistics
import time
from collections.abc import Callable
from typing import TypeVar

import torch

from lungsynth.cpus import usable_cpus

Result = TypeVar("Result")

TRIAL_S, TRIAL_STEPS = 0.4, 2
"""A number of threads is tried for so many seconds, and so many steps, at least."""
WINDOW_S, WINDOW_STEPS = 1.5, 4
"""The median of so many seconds of steps, and so many steps, at least, is what a step takes now."""
SLOWER = 1.3
"""A step that takes so many times what it took in the last trial starts another trial."""
BETTER = 0.9
"""Fewer threads are taken if a step takes at most so much of its time with more: noise must not decide."""
RETRY_S = 20.0
"""Seconds until more threads are tried again: the other process may have ended."""


class Pace:
    """Runs steps in the number of threads that is fastest now.

    The number changes the last bits of what a step computes. So it is part of a run's state and of its log, and a run
    that goes on begins with the number that it had.
    """

    def __init__(self, threads: int = 0, recorded: int = 0, clock: Callable[[], float] = time.monotonic) -> None:
        """`threads`: always this number; 0 measures. `recorded`: the number of the run that goes on; 0 if it is new."""
        most = threads or min(torch.get_num_threads(), usable_cpus())
        fewer = () if threads else (most - 1, *(most >> halvings for halvings in range(1, most.bit_length())))
        self._numbers = sorted({most, *filter(None, fewer)}, reverse=True)
        self.threads = recorded if recorded in self._numbers else most
        self._clock = clock
        self._times: list[float] = []
        self._spent = 0.0  # their sum
        self._usual: float | None = None  # seconds of a step in the last trial
        self._untried = [] if recorded else list(self._numbers)
        self._tried: dict[int, float] = {}
        self._chosen_at = clock()
        self._before = 0  # threads of the step before: the first step after a change is slow, and does not count

    def timed(self, step: Callable[[], Result]) -> Result:
        """What `step` gives, run in `self.threads`, which are chosen anew where it took too long."""
        torch.set_num_threads(self.threads)
        start = self._clock()
        result = step()
        now = self._clock()
        if self.threads == self._before:
            self._times.append(now - start)
            self._spent += now - start
        self._before = self.threads
        if len(self._numbers) > 1:
            self._choose(now)
        return result

    def _choose(self, now: float) -> None:
        seconds, steps = (TRIAL_S, TRIAL_STEPS) if self._untried else (WINDOW_S, WINDOW_STEPS)
        slow = False
        if self._spent >= seconds and len(self._times) >= steps:
            taken = statistics.median(self._times)
            self._times, self._spent = [], 0.0
            if self._untried:
                self._end_of_trial(taken, now)
                return
            slow = self._usual is not None and taken > SLOWER * self._usual
        unsure = self.threads < self._numbers[0] or self._usual is None
        if slow or (not self._untried and unsure and now - self._chosen_at > RETRY_S):
            self._untried, self._tried = list(self._numbers), {}
            self.threads = self._untried[0]
            self._times, self._spent = [], 0.0

    def _end_of_trial(self, seconds: float, now: float) -> None:
        """Go on to the next number; or, after the last one or where fewer threads only get slower, choose."""
        self._tried[self._untried.pop(0)] = seconds
        best = self._numbers[0]
        for number, taken in self._tried.items():
            if taken <= BETTER * self._tried[best]:
                best = number
        if self._untried and seconds * BETTER <= self._tried[best]:
            self.threads = self._untried[0]
            return
        self._untried = []
        self.threads, self._usual, self._chosen_at = best, self._tried[best], now
