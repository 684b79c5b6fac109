"""From the cohort's URLs to series on disk, each whole and checked, or rejected with a reason."""

import logging
import os
import re
import secrets
import shutil
import time
from collections import defaultdict
from collections.abc import Callable
from concurrent.futures import Executor, ProcessPoolExecutor, ThreadPoolExecutor, as_completed
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from multiprocessing import get_context
from pathlib import Path

import pandas as pd
from pydantic import Field
from tqdm import tqdm

from lungsynth.cohort.cohort import Cohort
from lungsynth.cohort.idc import IdcCohortConfig
from lungsynth.cohort.object_store import ObjectStore, is_missing
from lungsynth.cohort.phantom import PhantomCohortConfig, patient_of
from lungsynth.cohort.series_store import COLUMNS, SeriesStore
from lungsynth.config import Config
from lungsynth.errors import LungsynthError
from lungsynth.imaging.phantom import PhantomPatient, ct_series_uid, write_ct, write_seg

log = logging.getLogger(__name__)

UUID = r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}"
DICOM_UID = r"[0-9]+(?:\.[0-9]+)+"
SERIES_URL = re.compile(rf"(?:s3|phantom)://[\w.-]+/({UUID}|{DICOM_UID})/")
PATIENTS_PER_PROCESS = 8
"""Fewer phantoms do not pay for another process: it takes seconds to start, and a patient about one to simulate."""


class FetchConfig(Config):
    """Where series are kept, and how they get there."""

    root: Path = Field(Path("data/series"), description="folder that holds one folder a series")
    endpoint: str = Field(
        "aws", pattern=r"^(aws|gcs|https?://[^\s/@]+/?)$", description="aws, gcs, or the URL of an S3 server"
    )
    workers: int = Field(4, ge=1, le=64, description="series downloaded, or patients simulated, at once")
    connections: int = Field(32, ge=1, le=256, description="objects of one series that are fetched at once")
    retries: int = Field(5, ge=0, le=20, description="times that a failed request is repeated")
    size_tolerance: float = Field(
        1e-4, ge=0, lt=1, description="share of a series' bytes; a mirror may have rewritten the files' headers"
    )
    timeout_s: float = Field(900, gt=0, description="seconds for one series; NLST's median is 66 MB")


@dataclass(frozen=True)
class Problem:
    """Why a series is rejected: one of `series_store.REASONS`, and what was expected and found."""

    reason: str
    detail: str


@dataclass(frozen=True)
class Series:
    """A series as the cohort describes it; `bytes` is None where its source does not publish them."""

    uid: str
    url: str
    folder: Path
    instances: int
    bytes: int | None
    tolerance: float  # share of the bytes

    def check(self, folder: Path) -> Problem | None:
        """What is wrong with the files in `folder`, by their number and total size; they are not opened."""
        sizes = [file.stat().st_size for file in os.scandir(folder) if file.is_file()] if folder.is_dir() else []
        if len(sizes) < self.instances:
            return Problem("incomplete", f"{len(sizes)} of {self.instances} instances")
        if len(sizes) > self.instances:
            return Problem("size_differs", f"{len(sizes)} instances where {self.instances} are expected")
        if self.bytes is not None and abs(sum(sizes) - self.bytes) > self.tolerance * self.bytes:
            return Problem("size_differs", f"{sum(sizes)} bytes where {self.bytes} are expected")
        return None


Fill = Callable[[Path], str | None]
"""Writes a series into a folder; the text of an error where that failed."""
Job = list[tuple[Series, Fill]]
"""What one worker does in one go: a download, or all series of a simulated patient."""


def fetch_series(
    cohort: Cohort, cohort_config: IdcCohortConfig | PhantomCohortConfig, config: FetchConfig
) -> SeriesStore:
    """Bring every series of the cohort to `config.root`, but for those that lie there whole already.

    Series of IDC are downloaded, phantoms are simulated. What cannot be had whole is rejected with a reason.

    Raises:
        LungsynthError: the object store cannot be reached, the disk is too small, or a URL is none of a series.
    """
    _prepare_root(config)
    series = [_describe(row, config) for row in cohort.series.to_dict("records")]
    wanted = [one for one in series if one.check(one.folder)]
    _require_space(wanted, config.root)
    problems: dict[str, Problem] = {}
    if wanted and isinstance(cohort_config, PhantomCohortConfig):
        jobs = _simulations(wanted, cohort_config)
        problems = _run(_simulators(config.workers, len(jobs)), jobs)
    elif wanted:
        problems = _run(ThreadPoolExecutor(config.workers), _downloads(wanted, config))
    fetched = [one for one in wanted if one.uid not in problems]
    size = f" ({sum(one.bytes or 0 for one in fetched) / 1e6:.0f} MB)" if any(one.bytes for one in fetched) else ""
    there = len(series) - len(wanted)
    log.info("fetched %d series%s, %d already there, %d rejected", len(fetched), size, there, len(problems))
    return SeriesStore(config.root, _table(series, problems))


def _table(series: list[Series], problems: dict[str, Problem]) -> pd.DataFrame:
    rows = [
        (one.uid, one.folder.name, "rejected", problems[one.uid].reason, problems[one.uid].detail)
        if one.uid in problems
        else (one.uid, one.folder.name, "present", "", "")
        for one in series
    ]
    return pd.DataFrame(rows, columns=list(COLUMNS)).astype(COLUMNS)


def _prepare_root(config: FetchConfig) -> None:
    try:
        config.root.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise LungsynthError(f"cannot make the folder of series {config.root}: {error.strerror}") from None
    if not os.access(config.root, os.W_OK):
        raise LungsynthError(f"cannot write into the folder of series {config.root}: set fetch.root to another")
    # No series takes longer than its time limit, so what has not changed for so long was left by a run that died.
    for leftover in config.root.glob(".*.part"):
        with suppress(FileNotFoundError):  # another run may remove it at the same time
            if time.time() - leftover.stat().st_mtime > config.timeout_s:
                shutil.rmtree(leftover)


def _describe(row: dict, config: FetchConfig) -> Series:
    match = SERIES_URL.fullmatch(row["url"])
    if match is None:
        raise LungsynthError(f"series {row['series_uid']} has the URL {row['url']}: expected s3://bucket/UUID/")
    size = None if pd.isna(row["bytes"]) else int(row["bytes"])
    return Series(
        row["series_uid"], row["url"], config.root / match[1], int(row["instances"]), size, config.size_tolerance
    )


def _require_space(wanted: list[Series], root: Path) -> None:
    needed, free = sum(one.bytes or 0 for one in wanted), shutil.disk_usage(root).free
    if needed > free:
        raise LungsynthError(
            f"{len(wanted)} series need {needed / 1e9:.1f} GB and the disk of {root} has {free / 1e9:.1f} GB free: "
            "free some space, set fetch.root to another disk, or select fewer series"
        )


def _downloads(wanted: list[Series], config: FetchConfig) -> list[Job]:
    store = ObjectStore(config.endpoint, config.connections, config.retries)
    store.probe(wanted[0].url)
    return [[(one, partial(store.download, one.url, config.timeout_s))] for one in wanted]


def _simulations(wanted: list[Series], config: PhantomCohortConfig) -> list[Job]:
    jobs: dict[PhantomPatient, Job] = defaultdict(list)
    for one in wanted:
        patient = patient_of(config, one.uid)
        jobs[patient].append((one, partial(write_ct if one.uid == ct_series_uid(patient) else write_seg, patient)))
    return list(jobs.values())


def _simulators(workers: int, patients: int) -> Executor:
    processes = min(workers, os.cpu_count() or 1, patients // PATIENTS_PER_PROCESS)
    if processes < 2:
        return ThreadPoolExecutor(1)
    return ProcessPoolExecutor(processes, mp_context=get_context("forkserver"))


def _run(pool: Executor, jobs: list[Job]) -> dict[str, Problem]:
    """The problems by series UID. The first exception ends the run without starting what still waits."""
    problems: dict[str, Problem] = {}
    size = sum(one.bytes or 0 for job in jobs for one, _ in job)
    unit = "B" if size else "patient"
    with pool, tqdm(total=size or len(jobs), unit=unit, unit_scale=bool(size), desc="series") as bar:
        futures = {pool.submit(_deliver, job): job for job in jobs}
        try:
            for done, future in enumerate(as_completed(futures), 1):
                problems |= future.result()
                bar.set_postfix_str(f"{done}/{len(jobs)} done, {len(problems)} rejected", refresh=False)
                bar.update(sum(one.bytes or 0 for one, _ in futures[future]) if size else 1)
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise
    return problems


def _deliver(job: Job) -> dict[str, Problem]:
    problems = {one.uid: _deliver_one(one, fill) for one, fill in job}
    return {uid: problem for uid, problem in problems.items() if problem}


def _deliver_one(series: Series, fill: Fill) -> Problem | None:
    """Let `fill` write into a hidden folder and give that the series' name once it is whole: all of it, or nothing."""
    part = series.folder.with_name(f".{series.folder.name}.{secrets.token_hex(4)}.part")
    try:
        part.mkdir()
        error = fill(part) or ""
        problem = series.check(part)
        if problem is None:
            if series.check(series.folder):  # else another run was quicker
                shutil.rmtree(series.folder, ignore_errors=True)
                part.rename(series.folder)
            return None
        if error and not any(part.iterdir()):
            return Problem("not_found" if is_missing(error) else "unreachable", error)
        return Problem(problem.reason, f"{problem.detail}: {error}" if error else problem.detail)
    except OSError as error:
        raise LungsynthError(f"cannot write into {part.parent}: {error.strerror}") from None
    finally:
        shutil.rmtree(part, ignore_errors=True)
