"""Progress bars on a terminal; a line every half minute in log files, pods and CI, where a bar would fill pages."""

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


class Progress(tqdm):  # type: ignore[type-arg]  # generic in its stubs alone
    """tqdm's bar. Without a terminal: a line every `EVERY_S`, and a last line if the work took longer than that."""

    _written_s = 0.0

    def display(self, msg: str | None = None, pos: int | None = None) -> None:
        """Draw the bar, or a line if one is due; tqdm calls this ten times a second."""
        if on_terminal(self.fp):
            super().display(msg, pos)
        elif self.format_dict["elapsed"] - self._written_s >= EVERY_S:
            self._write_line()

    def close(self) -> None:
        """Draw the last state."""
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
    """Whether `stream`, by default standard error, is a terminal on which a line can be overwritten."""
    stream = stream or sys.stderr
    return os.environ.get("TERM") != "dumb" and bool(getattr(stream, "isatty", bool)())


@contextmanager
def hub_progress() -> Iterator[None]:
    """Let torch hub's downloads inside this context show `Progress` instead of their own bar."""
    import torch.hub  # takes two seconds, and only downloads of weights need it

    before = vars(torch.hub)["tqdm"]
    vars(torch.hub)["tqdm"] = Progress
    try:
        yield
    finally:
        vars(torch.hub)["tqdm"] = before
