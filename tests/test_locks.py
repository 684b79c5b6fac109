"""Locks: two processes at once, one that is killed, and folders that cannot be locked."""

import errno
import logging
import os
import re
import signal
import subprocess
import sys
import threading
import time

import filelock
import pytest

from lungsynth import locks
from lungsynth.errors import LungsynthError
from lungsynth.locks import alone, wanted

HOLDER = """
import signal, sys, time
from pathlib import Path
from lungsynth.locks import alone
signal.signal(signal.SIGINT, signal.default_int_handler)  # a job in the background is born with Ctrl-C ignored
with alone(Path(sys.argv[1]) / "lock", Path(sys.argv[1]), "do something else"):
    print("here", flush=True)
    sys.stdin.read()
"""
COUNTER = """
import logging, sys, time
from pathlib import Path
from lungsynth.locks import alone
count = Path(sys.argv[1]) / "count"
for _ in range(20):
    with alone(count.with_name("lock"), count, ""):
        number = int(count.read_text())
        time.sleep(0.001)
        count.write_text(str(number + 1))
"""


@pytest.fixture(autouse=True)
def _quick(monkeypatch):
    monkeypatch.setattr(locks, "POLL_S", 0.02)
    monkeypatch.setattr(locks, "MARK_S", 0.1)


@pytest.fixture
def holder(tmp_path):
    """Another process that has the lock of `tmp_path` until its standard input ends."""
    command = [sys.executable, "-c", HOLDER, str(tmp_path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline() == "here\n"
        yield process
        process.kill()


def lock_of(folder, patience_s=30.0):
    return alone(folder / "lock", folder, "name another folder", patience_s=patience_s)


def test_who_has_to_wait_says_once_for_whom_and_goes_on_when_it_is_free(tmp_path, holder, caplog):
    threading.Timer(0.3, holder.stdin.close).start()
    with lock_of(tmp_path):
        assert holder.wait(10) == 0
    waiting, free = caplog.messages
    assert re.fullmatch(
        rf"another run \(pid {holder.pid} on \S+, since \d{{4}}-\d\d-\d\d [\d:]{{8}} UTC\) is at work in {tmp_path}; "
        r"waiting until it ends\. Ctrl-C ends this one and loses nothing; or name another folder",
        waiting,
    )
    assert free == f"{tmp_path} is free: this run goes on"
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_a_holder_that_is_killed_blocks_nobody(tmp_path, holder, number):
    os.kill(holder.pid, number)
    holder.wait()
    start = time.monotonic()
    with lock_of(tmp_path, patience_s=0):
        assert time.monotonic() - start < 1


def test_a_holder_that_stays_is_an_error_after_a_while(tmp_path, holder):
    with pytest.raises(LungsynthError, match=rf"another run \(pid {holder.pid} on .*wait for it, end it, or name") as e:
        lock_of(tmp_path, patience_s=0.1).__enter__()
    assert "\n" not in str(e.value)


def test_who_waits_is_known_to_the_holder_unless_he_has_gone(tmp_path):
    file = tmp_path / "lock"
    with lock_of(tmp_path):
        assert not wanted(file)
        waiter = threading.Thread(target=lambda: lock_of(tmp_path, 20).__enter__(), daemon=True)
        waiter.start()
        deadline = time.monotonic() + 10
        while not (found := wanted(file)) and time.monotonic() < deadline:
            time.sleep(0.01)
        assert found
    waiter.join(10)
    (tmp_path / "lock.wanted").touch()
    assert not wanted(file)


def test_many_processes_take_turns(tmp_path):
    (tmp_path / "count").write_text("0")
    processes = [subprocess.Popen([sys.executable, "-c", COUNTER, str(tmp_path)]) for _ in range(3)]
    assert [process.wait(60) for process in processes] == [0, 0, 0]
    assert (tmp_path / "count").read_text() == "60"
    assert [path.name for path in tmp_path.iterdir()] == ["count"]


def test_a_folder_that_goes_while_one_waits_is_made_again(tmp_path, monkeypatch):
    folder = tmp_path / "run"
    attempts = []

    def vanishing(file, lend=None):
        attempts.append(file)
        if len(attempts) == 1:
            raise FileNotFoundError
        return filelock.FileLock(file).acquire(blocking=False).lock

    monkeypatch.setattr(locks, "held", vanishing)
    with lock_of(folder):
        assert folder.is_dir()
    assert len(attempts) == 2


def test_where_nothing_can_be_written_is_one_line(tmp_path):
    (tmp_path / "taken").write_text("a file where the folder should be")
    with pytest.raises(LungsynthError, match=r"taken: cannot be kept from other runs \(.*\); make it writable"):
        lock_of(tmp_path / "taken").__enter__()
    for problem in (errno.EROFS, errno.EACCES):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(locks, "held", _refusing(problem))
            with pytest.raises(LungsynthError, match=os.strerror(problem)) as error:
                lock_of(tmp_path).__enter__()
            assert "\n" not in str(error.value)


@pytest.mark.parametrize("problem", locks.NO_LOCKS)
def test_a_file_system_without_locks_is_said_and_stops_nobody(tmp_path, monkeypatch, caplog, problem):
    monkeypatch.setattr(locks, "held", _refusing(problem))
    with caplog.at_level(logging.WARNING), lock_of(tmp_path):
        assert caplog.messages == [f"{tmp_path}: its file system has no locks; see to it that no other run works there"]


def _refusing(problem):
    def held(file, lend=None):
        raise OSError(problem, os.strerror(problem), str(file))

    return held
