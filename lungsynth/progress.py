"""Progress on a terminal, and in a file, a pod's log or CI, where a bar would be thousands of lines."""

import io
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from tqdm import tqdm

EVERY_S = 30.0
"""Seconds between two lines where there is no terminal."""
LINE = "{desc}: {percentage:3.0f}% {n_fmt}/{total_fmt} [{elapsed}<{remaining}, {rate_fmt}{postfix}]"


class Progress(tqdm):
    """tqdm's bar; without a terminal, a line with its figures every `EVERY_S`, and a last one of what took longer."""

    _written_s = 0.0

    def display(self, msg: str | None = None, pos: int | None = None) -> None:
        """Draw, as tqdm asks for it ten times a second."""
        if on_terminal(self.fp):
            super().display(msg, pos)
        elif self.format_dict["elapsed"] - self._written_s >= EVERY_S:
            self._write_line()

    def close(self) -> None:
        """Draw for the last time."""
        if not self.disable and not on_terminal(self.fp):
            if self.format_dict["elapsed"] >= EVERY_S:
                self._write_line()
            self.fp = io.StringIO()  # for tqdm's own end of line
        super().close()

    def _write_line(self) -> None:
        figures = self.format_dict
        self._written_s = figures["elapsed"]
        self.fp.write(self.format_meter(**{**figures, "ncols": None, "bar_format": LINE}) + "\n")
        self.fp.flush()


def on_terminal(stream: Any = None) -> bool:
    """Whether lines can be drawn over on `stream`, by default on standard error."""
    stream = stream or sys.stderr
    return os.environ.get("TERM") != "dumb" and bool(getattr(stream, "isatty", bool)())


@contextmanager
def hub_progress() -> Iterator[None]:
    """Downloads by torch hub in here, which ask torch for a bar, get this one."""
    import torch.hub  # two seconds, which only downloads of weights are worth

    before = torch.hub.tqdm
    torch.hub.tqdm = Progress  # type: ignore[misc]
    try:
        yield
    finally:
        torch.hub.tqdm = before  # type: ignore[misc]
