"""Progress across processes: workers append a line to a file for each series, and the parent's bar reads the file."""

import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from lungsynth.progress import Progress

POLL_S = 0.2


def report_series(journal: Path, downloaded: int, *, rejected: bool) -> None:
    """Record that a series is done, and how many bytes were fetched for it."""
    with journal.open("a") as file:  # short lines that are appended do not mix
        file.write(f"{downloaded} {int(rejected)}\n")


@contextmanager
def series_bar(total: int) -> Iterator[Path]:
    """A bar with series and MB per second, time left and rejected series; yields the journal that it reads."""
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
