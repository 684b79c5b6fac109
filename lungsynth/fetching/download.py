"""One series from the object stores, with verification and retries."""

import hashlib
import random
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from threading import Event

from lungsynth.fetching.delivery import Delivery, FetchFailed, FetchReason, Stopped
from lungsynth.fetching.landing import Landing
from lungsynth.fetching.object_store import MISSING, ObjectStore, Patience, RemoteObject

HEADER_BYTES = 1024
"""Bytes by which a mirror's file may differ in size from IDC's index: mirrors rewrite headers."""
MOST_BACKOFF_S = 60.0


@dataclass(frozen=True)
class RemoteSeries:
    """A series as the cohort describes it; `bytes` is None where its source does not publish them."""

    uid: str
    url: str
    bytes: int | None
    landing: Landing


@dataclass(frozen=True)
class RetryPolicy:
    """All stores are tried `retries` + 1 times; the wait before retry n is uniform in 0 to `backoff_s`·2ⁿ⁻¹, ≤60 s.

    Full jitter: M. Brooker, Exponential Backoff And Jitter, AWS Architecture Blog, 2015.
    """

    retries: int
    backoff_s: float
    stall_s: float
    timeout_s: float  # for one series with all its retries
    seed: int

    def waits(self, uid: str) -> list[float]:
        """Seconds before each try of a series."""
        rng = random.Random(f"{self.seed} {uid}")
        return [0.0] + [rng.uniform(0, min(MOST_BACKOFF_S, self.backoff_s * 2**n)) for n in range(self.retries)]


@dataclass
class Downloader:
    """Downloads series, several at once in threads, from stores that stand in for each other.

    A store that fails is asked last from then on, for all series.
    """

    stores: list[ObjectStore]
    policy: RetryPolicy
    stopped: Event

    def fetch(self, series: RemoteSeries) -> Delivery:
        """Fetch the series into its folder, or say why not. Whole files of an incomplete series stay for later runs.

        Raises:
            OSError: the disk is full or cannot be written.
            Stopped: `stopped` was set.
        """
        landing, arrival = series.landing, _Arrival(series.landing.part)
        try:
            with landing.claim(self.policy.timeout_s, self.stopped) as lock:
                if landing.is_whole():
                    return Delivery(series.uid, landing.folder, source="disk")  # another run was quicker
                landing.open()
                try:
                    store, detail = self._until_whole(series, arrival, lock)
                except FetchFailed as failed:
                    if not failed.reason.passing:
                        landing.discard()
                    raise
                landing.land()
        except FetchFailed as failed:
            return Delivery(
                series.uid, None, failed.reason, failed.detail, bytes=arrival.bytes, attempts=arrival.attempts
            )
        return Delivery(
            series.uid,
            landing.folder,
            detail=detail,
            bytes=arrival.bytes,
            source=store.endpoint,
            attempts=arrival.attempts,
        )

    def _until_whole(self, series: RemoteSeries, arrival: "_Arrival", lock: int) -> tuple[ObjectStore, str]:
        deadline = time.monotonic() + self.policy.timeout_s
        patience = Patience(deadline, self.policy.stall_s, self.stopped)
        failures: dict[ObjectStore, FetchFailed] = {}
        for wait_s in self.policy.waits(series.uid):
            if self.stopped.wait(max(0.0, min(wait_s, deadline - time.monotonic()))):
                raise Stopped
            for store in self.stores:
                if store in failures and not failures[store].reason.passing:
                    continue
                if failures and time.monotonic() > deadline:
                    raise FetchFailed(FetchReason.TOO_SLOW, self._late(failures))
                try:
                    return store, self._attempt(series, store, arrival, patience=patience, lock=lock)
                except FetchFailed as failed:
                    failures[store] = failed
                    if failed.reason in (FetchReason.UNREACHABLE, FetchReason.STALLED):
                        self.stores = [other for other in self.stores if other != store] + [store]
            if not any(failed.reason.passing for failed in failures.values()):
                break
        raise _verdict(failures)

    def _late(self, failures: dict[ObjectStore, FetchFailed]) -> str:
        return f"not whole after {self.policy.timeout_s:g} s: {_verdict(failures).detail}"

    def _attempt(
        self, series: RemoteSeries, store: ObjectStore, arrival: "_Arrival", *, patience: Patience, lock: int
    ) -> str:
        """Copy the missing files; returns a note about files that were checked by size alone."""
        arrival.attempts += 1
        objects = store.objects(series.url, patience)
        require_as_described(objects, series)
        missing = arrival.keep_whole(objects)
        if missing:
            try:
                error = store.copy(series.url, arrival.folder, patience, lock=lock)
            finally:
                arrival.count(missing)
                missing = arrival.keep_whole(objects)
        if missing and error:
            reason = FetchReason.INCOMPLETE if MISSING.search(error) else FetchReason.UNREACHABLE
            raise FetchFailed(reason, f"{len(missing)} of {len(objects)} instances are missing: {error}")
        if missing:
            differ = f"{len(missing)} of {len(objects)} instances differ from the store's sizes or MD5 sums"
            raise FetchFailed(FetchReason.DAMAGED, differ)
        unsummed = sum(one.md5 is None for one in objects)
        return f"{unsummed} of {len(objects)} instances checked by size alone: no MD5 in the listing" * (unsummed > 0)


@dataclass
class _Arrival:
    """The files of a series that have arrived in its hidden folder, with bytes and attempts so far."""

    folder: Path
    bytes: int = 0
    attempts: int = 0
    _md5: dict[str, str] = field(default_factory=dict)  # of files that are whole

    def count(self, objects: Sequence[RemoteObject]) -> None:
        """Count the bytes of these objects, whole or not."""
        files = [self.folder / one.name for one in objects]
        self.bytes += sum(file.stat().st_size for file in files if file.exists())

    def keep_whole(self, objects: Sequence[RemoteObject]) -> list[RemoteObject]:
        """Delete all files that differ from `objects` in name, size or MD5; returns the missing objects."""
        expected = {one.name: one for one in objects}
        for file in list(self.folder.iterdir()):
            one = expected.get(file.name)
            if one and file.stat().st_size == one.bytes and (one.md5 is None or self._md5_of(file) == one.md5):
                del expected[file.name]
            else:
                self._md5.pop(file.name, None)
                file.unlink()
        return list(expected.values())

    def _md5_of(self, file: Path) -> str:
        if file.name not in self._md5:
            with file.open("rb") as content:
                self._md5[file.name] = hashlib.file_digest(
                    content, lambda: hashlib.md5(usedforsecurity=False)
                ).hexdigest()
        return self._md5[file.name]


def require_as_described(objects: Sequence[RemoteObject], series: RemoteSeries) -> None:
    """Raise `FetchFailed` if a store's listing differs from the cohort's description of the series."""
    instances = series.landing.instances
    if len(objects) < instances:
        raise FetchFailed(FetchReason.INCOMPLETE, f"{len(objects)} of {instances} instances")
    if len(objects) > instances:
        raise FetchFailed(FetchReason.UNEXPECTED, f"{len(objects)} instances where {instances} are expected")
    size = sum(one.bytes for one in objects)
    if series.bytes is not None and abs(size - series.bytes) > HEADER_BYTES * instances:
        raise FetchFailed(FetchReason.UNEXPECTED, f"{size} bytes where {series.bytes} are expected")


def _verdict(failures: dict[ObjectStore, FetchFailed]) -> FetchFailed:
    """One failure for those of all stores. A passing reason takes precedence, since then a retry may succeed."""
    decisive = next((one for one in failures.values() if one.reason.passing), next(iter(failures.values())))
    if len(failures) == 1:
        return decisive
    return FetchFailed(decisive.reason, "; ".join(f"{store.endpoint}: {one.detail}" for store, one in failures.items()))
