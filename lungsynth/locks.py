"""One run at a time where several share a folder: checkpoints, shards, datasets, what is on its way from a store.

The locks are the kernel's (flock), so that they end with the process that holds them, however it ends, and with the
last child that was lent the descriptor. They hold between machines where the file system passes them on: NFS from
version 4, CephFS, Lustre with `-o flock`. Where it does not, as FUSE over a bucket, keep runs on different machines in
folders of their own.
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
def alone(file: Path, place: Path, instead: str, patience_s: float = math.inf) -> Iterator[None]:
    """Be the only run in `place` as long as the context lasts; `file`, in it or beside it, carries the lock.

    Whoever has to wait says so, once, and who is there; the lock of a run that was killed is free at once.

    Args:
        file: is there while a run is at work, and says who; it goes with the lock.
        place: the folder or file that is shared, for the message.
        instead: what the reader can do rather than wait.
        patience_s: s; longer is an error.

    Raises:
        LungsynthError: the lock cannot be written, or its holder is still there after `patience_s`.
    """
    try:
        lock = _waited_for(file, place, instead, patience_s)
    except OSError as error:
        if error.errno not in NO_LOCKS:
            raise LungsynthError(
                f"{place}: cannot be kept from other runs ({reason(error)}: {file}); make it writable, or {instead}"
            ) from error
        log.warning("%s: its file system has no locks; see to it that no other run works there", place)
        yield
        return
    try:
        with suppress(OSError):  # a full disk: then nobody is told who is here
            file.write_text(json.dumps({"pid": os.getpid(), "host": socket.gethostname(), "since": _now()}))
        yield
    finally:
        with suppress(OSError):
            _mark(file).unlink(missing_ok=True)
        let_go(lock)


def wanted(file: Path) -> bool:
    """Whether another run waits for the lock that `file` carries, to its holder."""
    try:
        _mark(file).unlink()
    except OSError:
        return False
    time.sleep(MARK_S)  # who still waits marks it again; who was killed does not
    return _mark(file).exists()


def held(file: Path, lend: Callable[[int], None] | None = None) -> BaseFileLock | None:
    """The lock that `file` carries; none where somebody else has it. `lend` is called with its descriptor."""
    lock = FileLock(file, on_acquired=lend) if lend else FileLock(file)
    try:
        lock.acquire(blocking=False)
    except Timeout:
        return None
    return lock


def let_go(lock: BaseFileLock) -> None:
    """Free the lock, and remove its file: who had opened it before finds it gone, and opens the next one."""
    with suppress(OSError):
        Path(lock.lock_file).unlink()
    lock.release()


def _waited_for(file: Path, place: Path, instead: str, patience_s: float) -> BaseFileLock:
    deadline, said, looks = time.monotonic() + patience_s, "", 0
    while True:
        try:
            if lock := held(file):
                if said:
                    log.warning("%s is free: this run goes on", place)
                return lock
        except FileNotFoundError:  # its folder went between two looks, as that of a training that has ended
            file.parent.mkdir(parents=True, exist_ok=True)
            continue
        looks += 1
        if looks == 2:  # not at the first one: a run that has just come may not have written yet who it is
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
    """Who has the lock, and since when, as far as it is known."""
    try:
        found = json.loads(file.read_text())
        return f" (pid {found['pid']} on {found['host']}, since {found['since']})"
    except (OSError, ValueError, TypeError, KeyError):
        return ""


def _now() -> str:
    return f"{datetime.now(UTC):%Y-%m-%d %H:%M:%S} UTC"
