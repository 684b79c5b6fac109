"""Chooses the number of CPU threads for training steps by measuring: the best depends on how busy the machine is.

torch's threads wait for each other hundreds of times a step. Where another process uses one of their cores, all wait
for the thread on that core, and two threads are slower than one (benchmarks/bench_busy.py).
"""

import statistics
import time
from collections.abc import Callable
from typing import TypeVar

import torch

from lungsynth.cpus import usable_cpus

Result = TypeVar("Result")

TRIAL_S, TRIAL_STEPS = 0.4, 2
"""Least seconds, and least steps, for which a number of threads is tried."""
WINDOW_S, WINDOW_STEPS = 1.5, 4
"""Least seconds, and least steps, whose median is the current time of a step."""
SLOWER = 1.3
"""Ratio of a step's current time to that of the last trial, above which a new trial starts."""
BETTER = 0.9
"""Greatest ratio of a step's time with fewer threads to that with more, at which fewer are chosen, despite noise."""
RETRY_S = 20.0
"""Seconds until more threads are tried again, since the other process may have ended."""


class Pace:
    """Runs steps with the number of threads that is currently fastest.

    The number affects the last bits of a step's results. So it is part of a run's state and log, and a resumed run
    starts with the number that it had.
    """

    def __init__(self, threads: int = 0, recorded: int = 0, clock: Callable[[], float] = time.monotonic) -> None:
        """`threads`: a fixed number; 0: measure. `recorded`: the number of the run that is resumed; 0 if it is new."""
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
        """The result of `step`, run with `self.threads`; a step that takes too long starts a new trial."""
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
        """Try the next number; after the last one, or once fewer threads are slower, choose the best."""
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
