"""Where one series lies on disk: on its way in a hidden folder, visible only when whole, one run at a time."""

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

    `root/name` appears by one rename, after the sizes of its files were noted in the hidden folder `root/.fetch`; so
    a process that is killed at any point leaves nothing there that passes for whole.
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
        """What is on its way."""
        return self.root / ".fetch" / f"{self.name}.part"

    @property
    def _sizes(self) -> Path:
        return self.root / ".fetch" / f"{self.name}.json"

    @property
    def _lock(self) -> Path:
        return self.root / ".fetch" / f"{self.name}.lock"

    def is_whole(self) -> bool:
        """Whether the folder holds what landed there, by names and sizes, and as many files as the cohort says."""
        try:
            noted = json.loads(self._sizes.read_text())
            return len(noted) == self.instances and noted == sizes(self.folder)
        except (FileNotFoundError, NotADirectoryError, json.JSONDecodeError):
            return False

    @contextmanager
    def claim(self, patience_s: float, stopped: Event) -> Iterator[int]:
        """Keep other runs away; gives the descriptor of the lock, which ends with the last process that holds it.

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
        """Make the hidden folder ready: it goes on from what an earlier run left, or from a folder that is damaged."""
        if self.folder.exists() and not self.part.exists():
            self.folder.rename(self.part)
        elif self.folder.exists():
            shutil.rmtree(self.folder)
        self.part.mkdir(exist_ok=True)

    def land(self) -> None:
        """Give the hidden folder the series' name."""
        with whole_file(self._sizes) as part:
            part.write_text(json.dumps(sizes(self.part)))
        self.part.rename(self.folder)

    def on_disk(self) -> bool:
        """Whether any of it takes room: whole, or on its way."""
        return self.folder.exists() or self.part.exists()

    def discard(self) -> None:
        """Remove what is on its way."""
        shutil.rmtree(self.part, ignore_errors=True)

    def remove(self) -> None:
        """Remove the series, and what is on its way; it is never seen in pieces. Left alone while a run fetches it."""
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
