"""Locks on folders that several runs share: checkpoints, shards, datasets, downloads.

They are kernel locks (flock): a lock ends when its process ends, however that happens, and when the last child that
inherited the descriptor ends. They work between machines on file systems that pass them on: NFS from version 4, CephFS,
Lustre with `-o flock`. On others, such as a bucket mounted by FUSE, give runs on different machines different folders.
"""

import errno
import json
import logging
import math
import os
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path

from filelock import BaseFileLock, FileLock, Timeout

from lungsynth.errors import LungsynthError, reason

log = logging.getLogger(__name__)
POLL_S, MARK_S = 0.2, 1.0
NO_LOCKS = (errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOTSUP, errno.ENOLCK)
"""What file systems answer that have no locks."""


@contextmanager
def alone(file: Path, place: Path, instead: str, *, patience_s: float = math.inf) -> Iterator[None]:
    """Hold the lock on `place` while the context lasts.

    A run that has to wait logs once who holds the lock. The lock of a killed run is free at once.

    Args:
        file: the lock file, in `place` or beside it; it names the holder, and is removed with the lock.
        place: the shared folder or file, for messages.
        instead: what the user can do rather than wait, for messages.
        patience_s: seconds to wait before an error.

    Raises:
        LungsynthError: the lock cannot be written, or its holder is still there after `patience_s`.
    """
    try:
        lock = _waited_for(file, place, instead, patience_s=patience_s)
    except OSError as error:
        if error.errno not in NO_LOCKS:
            raise LungsynthError(
                f"{place}: cannot be kept from other runs ({reason(error)}: {file}); make it writable, or {instead}"
            ) from error
        log.warning("%s: its file system has no locks; see to it that no other run works there", place)
        yield
        return
    try:
        with suppress(OSError):  # on a full disk the lock holds, but does not name its holder
            file.write_text(json.dumps({"pid": os.getpid(), "host": socket.gethostname(), "since": _now()}))
        yield
    finally:
        with suppress(OSError):
            _mark(file).unlink(missing_ok=True)
        let_go(lock)


def wanted(file: Path) -> bool:
    """Whether another run waits for the lock `file`; only its holder may ask."""
    try:
        _mark(file).unlink()
    except OSError:
        return False
    time.sleep(MARK_S)  # a run that still waits marks the file again; a killed one does not
    return _mark(file).exists()


def held(file: Path, lend: Callable[[int], None] | None = None) -> BaseFileLock | None:
    """Take the lock `file` without waiting; None if another process holds it. `lend` is called with its descriptor."""
    lock = FileLock(file, on_acquired=lend) if lend else FileLock(file)
    try:
        lock.acquire(blocking=False)
    except Timeout:
        return None
    return lock


def let_go(lock: BaseFileLock) -> None:
    """Release the lock and remove its file. A process that had opened the file notices, and opens a new one."""
    with suppress(OSError):
        Path(lock.lock_file).unlink()
    lock.release()


def _waited_for(file: Path, place: Path, instead: str, *, patience_s: float) -> BaseFileLock:
    deadline, said, looks = time.monotonic() + patience_s, "", 0
    while True:
        try:
            if lock := held(file):
                if said:
                    log.warning("%s is free: this run goes on", place)
                return lock
        except FileNotFoundError:  # the folder was removed between two looks, by a training that ended
            file.parent.mkdir(parents=True, exist_ok=True)
            continue
        looks += 1
        if looks == 2:  # not at the first: a new holder may not have written its name yet
            said = f"another run{_holder(file)} is at work in {place}"
            log.warning("%s; waiting until it ends. Ctrl-C ends this one and loses nothing; or %s", said, instead)
        if said and time.monotonic() > deadline:
            raise LungsynthError(f"{said}, and has not ended in {patience_s:g} s: wait for it, end it, or {instead}")
        with suppress(OSError):
            _mark(file).touch()
        time.sleep(POLL_S)


def _mark(file: Path) -> Path:
    return file.with_name(f"{file.name}.wanted")


def _holder(file: Path) -> str:
    """Who holds the lock and since when, if the file says so; else an empty text."""
    try:
        found = json.loads(file.read_text())
        return f" (pid {found['pid']} on {found['host']}, since {found['since']})"
    except (OSError, ValueError, TypeError, KeyError):
        return ""


def _now() -> str:
    return f"{datetime.now(UTC):%Y-%m-%d %H:%M:%S} UTC"
