"""From the cohort's URLs to whole, verified series on disk, or the reasons why not."""

import errno
import os
import re
import shutil
from collections import deque
from collections.abc import Hashable, Iterator, Mapping
from pathlib import Path
from queue import SimpleQueue
from threading import Event, Thread
from typing import Annotated, Any
from urllib.parse import unquote_to_bytes

import pandas as pd
from pydantic import Field

from lungsynth.cohort.phantom import PhantomCohortConfig, patient_of
from lungsynth.config import Config
from lungsynth.errors import LungsynthError, reason
from lungsynth.fetching.delivery import Delivery, FetchFailed, FetchReason, Stopped
from lungsynth.fetching.download import Downloader, RemoteSeries, RetryPolicy
from lungsynth.fetching.landing import Landing, sizes
from lungsynth.fetching.object_store import ObjectStore, first_reachable
from lungsynth.phantom import ct_series_uid, write_ct, write_seg

UUID = r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}"
DICOM_UID = r"[0-9]+(?:\.[0-9]+)+"
SERIES_URL = re.compile(rf"(?:s3|phantom)://[\w.-]+/({UUID}|{DICOM_UID})/")
OUTAGE_SERIES = 8
"""Failed series in a row from which on the store counts as out of service."""
Endpoint = Annotated[str, Field(pattern=r"^(aws|gcs|https?://[^\s/@]+/?)$")]


class FetchConfig(Config):
    """Where series are kept, and how they get there."""

    root: Path = Field(Path("data/series"), description="folder that holds one folder a series")
    endpoints: tuple[Endpoint, ...] = Field(
        ("aws", "gcs"), min_length=1, description="aws, gcs or URLs of S3 servers, which stand in for each other"
    )
    workers: int = Field(
        4,
        ge=1,
        le=64,
        description="series that one process downloads at once [chosen here: one can begin while others end]",
    )
    connections: int = Field(
        32,
        ge=1,
        le=256,
        description="objects that one process downloads at once, of all series [chosen here: a series is some hundred "
        "small ones, and each waits for an answer]",
    )
    retries: int = Field(
        5,
        ge=0,
        le=20,
        description="times that all endpoints are tried again for a series [chosen here: with backoff_s of 1, waits "
        "of up to 31 s]",
    )
    backoff_s: float = Field(
        1.0,
        ge=0,
        le=60,
        description="s; the wait before retry n is uniform in 0 to backoff_s·2ⁿ⁻¹, at most 60 s [form: AWS's full "
        "jitter; 1 s is chosen here: servers recover in seconds]",
    )
    seed: int = Field(0, ge=0, description="seed of those waits, which differ between series")
    stall_s: float = Field(
        60,
        gt=0,
        description="s without a new byte after which a transfer is broken off [chosen here: slow lines are not that "
        "slow]",
    )
    timeout_s: float = Field(
        900,
        gt=0,
        description="s for one series with all its retries [chosen here: NLST's median, 66 MB, then needs 0.07 MB/s]",
    )
    disk_budget_gb: float | None = Field(
        None, gt=0, description="GB (decimal) of series that one process holds on disk at once; none: keeps all"
    )


def deliver(series: pd.DataFrame, config: FetchConfig, phantoms: PhantomCohortConfig | None) -> Iterator[Delivery]:
    """Bring every row of `Cohort.series` to disk; yields each series once, as soon as it is whole or has failed.

    Series that are on disk already come first. Downloads (s3://) run in threads while the caller works; phantoms
    (phantom://) are simulated in this process, one after the other; pictures (file://) stay where they are. Closing
    the iterator stops the downloads; their files are kept in hidden folders for the next run. With a disk budget, a
    download starts only when the caller has freed enough of the earlier series.

    Raises:
        LungsynthError: no object store can be reached, the disk or the budget is too small, or a URL names no series.
    """
    wanted: list[RemoteSeries] = []
    there: list[RemoteSeries] = []
    for row in series.drop_duplicates("series_uid").to_dict("records"):
        if row["url"].startswith("file://"):
            yield _picture(row)
            continue
        one = describe(row, config)
        (there if one.landing.is_whole() else wanted).append(one)
    for one in there:
        yield Delivery(one.uid, one.landing.folder, source="disk")
    if wanted:
        _prepare(config.root)
    for one in wanted:
        if one.url.startswith("phantom://"):
            yield _simulate(one, phantoms, config)
    remote = [one for one in wanted if one.url.startswith("s3://")]
    if remote:
        yield from _download(remote, there, config)


def free(series: pd.DataFrame, config: FetchConfig) -> None:
    """Remove these series from disk, whole or incomplete, unless another run is fetching them; pictures stay."""
    if (config.root / ".fetch").is_dir():
        for row in series.to_dict("records"):
            if not row["url"].startswith("file://"):
                describe(row, config).landing.remove()


def require_space(series: pd.DataFrame, config: FetchConfig) -> None:
    """Check before hours of downloads that the disk has room for the missing series.

    Raises:
        LungsynthError: it has not.
    """
    _prepare(config.root)
    rows = series[series["url"].str.startswith("s3://")].drop_duplicates("series_uid").to_dict("records")
    missing = [one for one in (describe(row, config) for row in rows) if not one.landing.is_whole()]
    _require_space(missing, config)


def describe(row: Mapping[Hashable, Any], config: FetchConfig) -> RemoteSeries:
    """A row of `Cohort.series` as a series to fetch.

    Raises:
        LungsynthError: its URL names no series.
    """
    match = SERIES_URL.fullmatch(row["url"])
    if match is None:
        raise LungsynthError(f"series {row['series_uid']} has the URL {row['url']}: expected s3://bucket/UUID/")
    size = None if pd.isna(row["bytes"]) else int(row["bytes"])
    return RemoteSeries(row["series_uid"], row["url"], size, Landing(config.root, match[1], int(row["instances"])))


def _picture(row: Mapping[Hashable, Any]) -> Delivery:
    path = Path(os.fsdecode(unquote_to_bytes(row["url"].removeprefix("file://"))))  # the name may be no UTF-8
    if path.is_file():
        return Delivery(row["series_uid"], path, source="file")
    return Delivery(row["series_uid"], None, FetchReason.NOT_FOUND, "the file is no longer where the cohort found it")


def _prepare(root: Path) -> None:
    try:
        (root / ".fetch").mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise LungsynthError(f"cannot make the folder of series {root}: {reason(error)}; set fetch.root") from None
    if not os.access(root / ".fetch", os.W_OK):
        raise LungsynthError(f"cannot write into the folder of series {root}: set fetch.root to another")


def _simulate(one: RemoteSeries, phantoms: PhantomCohortConfig | None, config: FetchConfig) -> Delivery:
    if phantoms is None:
        raise LungsynthError(f"series {one.uid} is a phantom's: only a cohort of phantoms says how to simulate it")
    patient = patient_of(phantoms, one.uid)
    write = write_ct if one.uid == ct_series_uid(patient) else write_seg
    try:
        with one.landing.claim(config.timeout_s, Event()):
            if not one.landing.is_whole():
                one.landing.discard()
                one.landing.open()
                write(patient, one.landing.part)
                one.landing.land()
    except FetchFailed as failed:
        return Delivery(one.uid, None, failed.reason, failed.detail)
    except OSError as error:
        one.landing.discard()
        raise _disk_error(error, one, config.root) from None
    size = sum(sizes(one.landing.folder).values())
    return Delivery(one.uid, one.landing.folder, bytes=size, source="phantom")


def _download(wanted: list[RemoteSeries], there: list[RemoteSeries], config: FetchConfig) -> Iterator[Delivery]:
    _require_space(wanted, config)
    connections = max(1, config.connections // config.workers)
    stores = first_reachable([ObjectStore(name, connections) for name in config.endpoints], wanted[0].url)
    policy = RetryPolicy(config.retries, config.backoff_s, config.stall_s, config.timeout_s, config.seed)
    downloader = Downloader(stores, policy, Event())
    jobs: SimpleQueue[RemoteSeries | None] = SimpleQueue()
    results: SimpleQueue[Delivery | Exception] = SimpleQueue()
    # Daemons: else a caller that fails without closing this iterator could not exit before all downloads end.
    threads = [Thread(target=_work, args=(downloader, jobs, results), daemon=True) for _ in range(config.workers)]
    for thread in threads:
        thread.start()
    try:
        yield from _results(wanted, there, jobs, results=results, config=config)
    finally:
        downloader.stopped.set()
        for _ in threads:
            jobs.put(None)
        for thread in threads:
            thread.join()


def _work(
    downloader: Downloader, jobs: SimpleQueue[RemoteSeries | None], results: SimpleQueue[Delivery | Exception]
) -> None:
    while (one := jobs.get()) is not None and not downloader.stopped.is_set():
        try:
            results.put(downloader.fetch(one))
        except Stopped:
            return
        except OSError as error:
            results.put(_disk_error(error, one, one.landing.root))
        except Exception as error:
            results.put(error)


def _results(
    wanted: list[RemoteSeries],
    there: list[RemoteSeries],
    jobs: SimpleQueue[RemoteSeries | None],
    *,
    results: SimpleQueue[Delivery | Exception],
    config: FetchConfig,
) -> Iterator[Delivery]:
    """Queue as many jobs as the disk budget allows; the first exception ends all."""
    waiting, underway, held, failures = deque(wanted), set[str](), list(there), 0
    while waiting or underway:
        held = [one for one in held if one.uid in underway or one.landing.on_disk()] if config.disk_budget_gb else []
        while waiting and _fits(waiting[0], held, config):
            held.append(waiting[0])
            underway.add(waiting[0].uid)
            jobs.put(waiting.popleft())
        if not underway:
            raise LungsynthError(
                f"a process may keep {config.disk_budget_gb:g} GB in {config.root}, its share of fetch.disk_budget_gb, "
                f"and {len(held) + 1} series that have to lie there at once take "
                f"{_bytes([*held, waiting[0]]) / 1e9:.3g} GB: raise the budget, or lower slices.workers"
            )
        result = results.get()
        if isinstance(result, Exception):
            raise result
        underway.remove(result.series_uid)
        lost = result.reason in (FetchReason.UNREACHABLE, FetchReason.STALLED, FetchReason.TOO_SLOW)
        failures = failures + 1 if lost else 0
        yield result
        if failures == OUTAGE_SERIES:
            raise LungsynthError(
                f"the object store gave none of the last {failures} series ({result.detail}): "
                "what is whole stays; run again when the network is back"
            )


def _bytes(series: list[RemoteSeries]) -> int:
    return sum(one.bytes or 0 for one in series)


def _fits(one: RemoteSeries, held: list[RemoteSeries], config: FetchConfig) -> bool:
    return config.disk_budget_gb is None or _bytes([*held, one]) <= config.disk_budget_gb * 1e9


def _require_space(wanted: list[RemoteSeries], config: FetchConfig) -> None:
    arrived = sum(sum(sizes(one.landing.part).values()) for one in wanted if one.landing.part.is_dir())
    needed, free_bytes = max(0, _bytes(wanted) - arrived), shutil.disk_usage(config.root).free
    if config.disk_budget_gb is not None:
        needed = min(needed, int(config.disk_budget_gb * 1e9))
    if needed > free_bytes:
        raise LungsynthError(
            f"{len(wanted)} series need {needed / 1e9:.3g} GB and the disk of {config.root} has {free_bytes / 1e9:.3g} "
            "GB free: free some space, set fetch.root to another disk, fetch.disk_budget_gb, or select fewer series"
        )


def _disk_error(error: OSError, one: RemoteSeries, root: Path) -> LungsynthError:
    if error.errno not in (errno.ENOSPC, errno.EDQUOT):
        return LungsynthError(f"cannot write series {one.uid} into {root}: {reason(error)}")
    need = "" if one.bytes is None else f", which takes {one.bytes / 1e6:.3g} MB"
    return LungsynthError(
        f"the disk of {root} became full at series {one.uid}{need}: free some space, set fetch.root to another disk "
        "or fetch.disk_budget_gb to less, and run again: what is whole stays"
    )
