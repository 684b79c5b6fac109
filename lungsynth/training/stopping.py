"""Lets SIGTERM (of a cluster) and Ctrl-C end a run after its current step, with a checkpoint."""

import signal
import threading
from collections.abc import Callable
from types import FrameType, TracebackType
from typing import Any, Self, TypeVar

from lungsynth.errors import LungsynthError

SIGNALS = (signal.SIGTERM, signal.SIGINT)

T = TypeVar("T")


class StoppedError(LungsynthError):
    """A signal stopped a run; its checkpoint is written."""

    def __init__(self, number: int, kimg: float) -> None:
        super().__init__(
            f"stopped by {signal.Signals(number).name} at {kimg:.2f} kimg; the same command goes on from there"
        )
        self.exit_code = 128 + number
        """The exit code that a shell reports for a process ended by this signal."""


class Stop:
    """A context that records the first signal; a second one has its usual effect.

    Python handles signals in the main thread only. In any other thread this does nothing.
    """

    number: int | None = None
    """Of the signal that came."""

    def __init__(self) -> None:
        self._before: dict[int, Any] = {}
        self._breaks_off = False

    def __enter__(self) -> Self:
        if threading.current_thread() is threading.main_thread():
            self._before = {number: signal.signal(number, self._note) for number in SIGNALS}
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        self._before = {}

    def unless_stopped(self, work: Callable[[], T]) -> T | None:
        """The result of `work`; None if a signal came before, or interrupts it. `work` must have no side effects."""
        self._breaks_off = True
        try:
            return None if self.number else work()
        except _BrokenOff:
            return None
        finally:
            self._breaks_off = False

    def _note(self, number: int, frame: FrameType | None) -> None:
        self.number = number
        self.__exit__(None, None, None)
        if self._breaks_off:
            raise _BrokenOff


class _BrokenOff(BaseException):
    """Not an `Exception`, which `work` may catch."""
