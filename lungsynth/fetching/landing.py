"""The folder of one series: hidden until it is whole, and locked against other runs while it is being fetched."""

import json
import os
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from threading import Event

from lungsynth.fetching.delivery import FetchFailed, FetchReason, Stopped
from lungsynth.files import whole_file
from lungsynth.locks import held, let_go

POLL_S = 0.1


@dataclass(frozen=True)
class Landing:
    """The place of the series `name` under `root`.

    `root/name` appears by one rename, after the sizes of its files were written to the hidden folder `root/.fetch`. So
    a process that is killed at any point leaves no folder that looks whole.
    """

    root: Path
    name: str
    instances: int

    @property
    def folder(self) -> Path:
        """The series' folder, which holds its instances and nothing else."""
        return self.root / self.name

    @property
    def part(self) -> Path:
        """The hidden folder of files that have arrived so far."""
        return self.root / ".fetch" / f"{self.name}.part"

    @property
    def _sizes(self) -> Path:
        return self.root / ".fetch" / f"{self.name}.json"

    @property
    def _lock(self) -> Path:
        return self.root / ".fetch" / f"{self.name}.lock"

    def is_whole(self) -> bool:
        """Whether the folder has the files that landed, by names and sizes, and as many as the cohort says."""
        try:
            noted = json.loads(self._sizes.read_text())
            return len(noted) == self.instances and noted == sizes(self.folder)
        except (FileNotFoundError, NotADirectoryError, json.JSONDecodeError):
            return False

    @contextmanager
    def claim(self, patience_s: float, stopped: Event) -> Iterator[int]:
        """Lock the series; yields the lock's descriptor. The lock lasts until the last process that has it ends.

        Raises:
            FetchFailed: another run has held the series for `patience_s`.
        """
        deadline, descriptors = time.monotonic() + patience_s, list[int]()
        while (lock := held(self._lock, descriptors.append)) is None:
            if time.monotonic() > deadline:
                raise FetchFailed(FetchReason.IN_USE, "another run fetches this series")
            if stopped.wait(POLL_S):
                raise Stopped
        try:
            yield descriptors[-1]
        finally:
            let_go(lock)

    def open(self) -> None:
        """Make the hidden folder; it starts with the files of an earlier run, or of a folder that is damaged."""
        if self.folder.exists() and not self.part.exists():
            self.folder.rename(self.part)
        elif self.folder.exists():
            shutil.rmtree(self.folder)
        self.part.mkdir(exist_ok=True)

    def land(self) -> None:
        """Rename the hidden folder to the series' name."""
        with whole_file(self._sizes) as part:
            part.write_text(json.dumps(sizes(self.part)))
        self.part.rename(self.folder)

    def on_disk(self) -> bool:
        """Whether any of its files are on disk, whole or incomplete."""
        return self.folder.exists() or self.part.exists()

    def discard(self) -> None:
        """Remove the hidden folder."""
        shutil.rmtree(self.part, ignore_errors=True)

    def remove(self) -> None:
        """Remove the series, unless a run is fetching it; it is hidden first, so that nobody sees a part of it."""
        try:
            with self.claim(0, Event()):
                if self.folder.exists():
                    self.discard()
                    self.folder.rename(self.part)
                self.discard()
                self._sizes.unlink(missing_ok=True)
        except FetchFailed:
            return


def sizes(folder: Path) -> dict[str, int]:
    """Bytes by file name."""
    return {entry.name: entry.stat().st_size for entry in os.scandir(folder)}
