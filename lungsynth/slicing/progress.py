"""The progress of series across processes: workers add a line to a file, and the parent's bar follows it."""

import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from lungsynth.progress import Progress

POLL_S = 0.2


def report_series(journal: Path, downloaded: int, *, rejected: bool) -> None:
    """Say that a series is done, for which so many bytes were fetched."""
    with journal.open("a") as file:  # short lines that are appended do not mix
        file.write(f"{downloaded} {int(rejected)}\n")


@contextmanager
def series_bar(total: int) -> Iterator[Path]:
    """A bar with series and MB a second, time left, and what was rejected; gives the journal that it follows."""
    stop = threading.Event()
    with tempfile.TemporaryDirectory() as folder, Progress(total=total, unit="series", desc="slices") as bar:
        journal = Path(folder) / "series"
        journal.touch()
        follower = threading.Thread(target=_follow, args=(journal, bar, stop), daemon=True)
        follower.start()
        try:
            yield journal
        finally:
            stop.set()
            follower.join()


def _follow(journal: Path, bar: Progress, stop: threading.Event) -> None:
    start, downloaded, rejected = time.monotonic(), 0, 0
    with journal.open() as file:
        stopping = False
        while not stopping:
            stopping = stop.wait(POLL_S)
            lines = [line.split() for line in file.readlines()]
            if lines:
                downloaded += sum(int(size) for size, _ in lines)
                rejected += sum(int(flag) for _, flag in lines)
                rate = downloaded / 1e6 / (time.monotonic() - start)
                bar.set_postfix_str(f"{rate:.0f} MB/s, {rejected} rejected", refresh=False)
                bar.update(len(lines))
