"""From a cohort to the slice dataset, shard by shard: fetch, read, cut, write, and free the disk again."""

import logging
import math
import warnings
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import pandas as pd
from joblib import Parallel, delayed
from joblib.externals.loky.process_executor import TerminatedWorkerError

from lungsynth.cohort.cohort import Cohort
from lungsynth.cohort.phantom import PhantomCohortConfig
from lungsynth.dataset.store import Shard, SliceDataset, SliceMeta, assemble
from lungsynth.dataset.undelivered import utc_now, write_notes
from lungsynth.dataset.vocabulary import SPLITS
from lungsynth.errors import LungsynthError
from lungsynth.fetching.asking import ask
from lungsynth.fetching.fetch import FetchConfig, require_space
from lungsynth.hashing import combine
from lungsynth.locks import alone
from lungsynth.remote import on_disk
from lungsynth.slicing.contact import merged_figures
from lungsynth.slicing.exchange import give_notes, take_shards
from lungsynth.slicing.progress import series_bar
from lungsynth.slicing.series import SliceConfig
from lungsynth.slicing.shard import BuiltShard, build_shard, find_shard, shard_folder, writing

log = logging.getLogger(__name__)


def shard_count(cohort: Cohort, config: SliceConfig) -> int:
    """How many shards a cohort makes: a power of two, so that a cohort that grows seldom changes it."""
    patients = cohort.images["patient_key"].nunique()
    return 1 << max(0, math.ceil(math.log2(max(1, patients) / config.patients_per_shard)))


def build_slices(
    cohort: Cohort, fetch: FetchConfig, config: SliceConfig, *, phantoms: PhantomCohortConfig | None = None
) -> SliceDataset:
    """The slices of the whole cohort, as a dataset under `config.root`; shards that lie there already are used.

    The result does not depend on the number of workers. After a crash, finished shards are reused.

    Raises:
        LungsynthError: nothing can be fetched, no series gave slices, or a class has no slice in some split.
    """
    count = shard_count(cohort, config)
    parts = [part for part in cohort.shards(count) if len(part.images)]
    fetch = _per_process(fetch, config.workers)
    meta = SliceMeta(config.size, _window(cohort, config), cohort.sha256, config.view, cohort.classes)
    take_shards((shard_folder(part, config).name for part in parts), config)
    shards, arrived = _asked_again(parts, fetch, config)
    there = [one for one in shards.values() if not one.lacks(arrived)]
    if len(there) < len(parts) or not _dataset_folder(there, meta, config).exists():
        root = on_disk(config.root)
        with writing(root):
            (root / "shards").mkdir(parents=True, exist_ok=True)
        with alone(root / f".{_key(parts, meta)}.lock", root, "set slices.root to another folder"):
            there = list(_build_all(parts, fetch, config, phantoms=phantoms, arrived=arrived))
            _log(there, cohort)
            _assemble(there, meta, config, cohort=cohort)
    else:
        _log(there, cohort)
    folder = _dataset_folder(there, meta, config)
    with suppress(OSError):  # another user's cache, read-only
        write_notes(folder, [note for one in _sorted(there) for note in one.shard.undelivered])
    return SliceDataset(folder)


def _key(parts: list[Cohort], meta: SliceMeta) -> str:
    """Names the lock of a build: a second run of the same build waits, then reuses what the first one built."""
    return combine([repr(meta), *(part.sha256 for part in parts)])[:16]


def _sorted(built: list[BuiltShard]) -> list[BuiltShard]:
    return sorted(built, key=lambda one: one.shard.sha256)


def _dataset_folder(built: list[BuiltShard], meta: SliceMeta, config: SliceConfig) -> Path:
    shards = (f"{one.shard.folder.name} {one.shard.sha256}" for one in _sorted(built))
    return on_disk(config.root) / "datasets" / combine([repr(meta), *shards])[:16]


def _assemble(built: list[BuiltShard], meta: SliceMeta, config: SliceConfig, *, cohort: Cohort) -> None:
    """Make a dataset of the shards, unless it exists."""
    folder, shards = _dataset_folder(built, meta, config), [one.shard for one in _sorted(built)]
    if not folder.exists():
        _check_classes(shards, cohort)
        with writing(on_disk(config.root)):
            root = config.root if isinstance(config.root, str) else None
            assemble(folder, shards, meta, masks=config.masks, figures=merged_figures(shards), root=root)


def build_some(
    cohort: Cohort,
    fetch: FetchConfig,
    config: SliceConfig,
    *,
    phantoms: PhantomCohortConfig | None = None,
    index: int,
    count: int | None = None,
) -> None:
    """Build every `count`-th of the cohort's shards from number `index` on; without `count`, this one alone.

    Once workers have run every index below `count`, `build_slices` only has to open the shards.

    Raises:
        LungsynthError: there is no such index; or as `build_shard`.
    """
    shards = shard_count(cohort, config)
    if index >= (count or shards):
        raise LungsynthError(f"there is no shard {index} of {count or shards}: count them from 0")
    numbers = range(index, shards, count or shards)
    for number, part in zip(numbers, cohort.shards(shards, numbers), strict=True):
        if len(part.images):
            take_shards([shard_folder(part, config).name], config)
            _, arrived = _asked_again([part], fetch, config)
            built = build_shard(part, fetch, config, phantoms=phantoms, arrived=arrived)
            there = ", was there already" if built.reused else ""
            counts = (built.shard.rows, built.series, built.rejected, there)
            log.info("shard %d of %d: %d slices of %d series, %d rejected%s", number, shards, *counts)


def _window(cohort: Cohort, config: SliceConfig) -> tuple[float, float] | None:
    return config.window_hu if (cohort.images["modality"] == "CT").any() else None


def _build_all(
    parts: list[Cohort],
    fetch: FetchConfig,
    config: SliceConfig,
    *,
    phantoms: PhantomCohortConfig | None,
    arrived: frozenset[str],
) -> Iterator[BuiltShard]:
    """Every shard, in the order in which they are finished."""
    shards = [(part, find_shard(part, config)) for part in parts]  # now: another run may have built some meanwhile
    yield from (one for _, one in shards if one and not one.lacks(arrived))
    left = [(part, one) for part, one in shards if not one or one.lacks(arrived)]
    if left:
        wanted = pd.concat([_to_fetch(part, one) for part, one in left])
        require_space(wanted, fetch)
        images = int((wanted["role"] == "image").sum())
        yield from _build_missing(
            [part for part, _ in left], images, fetch, config=config, phantoms=phantoms, arrived=arrived
        )


def _build_missing(
    parts: list[Cohort],
    series: int,
    fetch: FetchConfig,
    *,
    config: SliceConfig,
    phantoms: PhantomCohortConfig | None,
    arrived: frozenset[str],
) -> Iterator[BuiltShard]:
    # loky's workers do not import the main module again: under ZenML that alone takes them ten seconds.
    pool = Parallel(n_jobs=config.workers, return_as="generator_unordered", pre_dispatch="n_jobs")
    with warnings.catch_warnings(), series_bar(series) as journal:
        # loky replaces workers whose memory has grown; theirs does, by the buffer that is kept for the next scan.
        warnings.filterwarnings("ignore", "A worker stopped while some jobs were given", UserWarning)
        try:
            yield from pool(
                delayed(build_shard)(part, fetch, config, phantoms=phantoms, journal=journal, arrived=arrived)
                for part in parts
            )
        except TerminatedWorkerError as error:
            raise LungsynthError(
                "a process that prepared slices was killed, most likely for memory: set slices.workers lower and run "
                "again; finished shards are kept"
            ) from error


def _to_fetch(part: Cohort, built: BuiltShard | None) -> pd.DataFrame:
    """Rows of a part that are not in its shard, about: the disk needs room for these."""
    lacked = {one.series_uid for one in built.shard.undelivered} if built else set(part.series["series_uid"])
    return part.series[part.series["series_uid"].isin(lacked)]


def _asked_again(
    parts: Sequence[Cohort], fetch: FetchConfig, config: SliceConfig
) -> tuple[dict[int, BuiltShard], frozenset[str]]:
    """The existing shards, by the number of their part, and the UIDs of lacking series that can be fetched now.

    The stores are asked again for all series that no earlier run could fetch; their answers are written to the notes.
    """
    shards = {index: shard for index, part in enumerate(parts) if (shard := find_shard(part, config))}
    lacking = {index: {one.series_uid for one in built.shard.undelivered} for index, built in shards.items()}
    if not any(lacking.values()):
        return shards, frozenset()
    rows = [parts[index].series for index, uids in lacking.items() if uids]
    series = pd.concat(rows).drop_duplicates("series_uid")
    series = series[series["series_uid"].isin(set().union(*lacking.values()))]
    answers, now = ask(series, fetch), utc_now()
    for index, built in shards.items():
        notes = [
            replace(one, answer=answers.refused[one.series_uid], asked=now)
            if one.series_uid in answers.refused
            else one
            for one in built.shard.undelivered
        ]
        shards[index] = replace(built, shard=built.shard.noted(notes))
    give_notes((shards[index].shard for index, uids in lacking.items() if uids), config)
    known = answers.there | answers.refused.keys()
    silent = [one for built in shards.values() for one in built.shard.undelivered if one.series_uid not in known]
    if known:
        log.info(
            "%d series that no store gave before were asked for again: %d can be had now",
            len(known),
            len(answers.there),
        )
    if silent:
        log.warning(
            "%d series could not be asked for (%s): they stay left out, as when last asked for on %s",
            len(silent),
            answers.silent,
            min(one.asked for one in silent),
        )
    return shards, answers.there


def _per_process(fetch: FetchConfig, processes: int) -> FetchConfig:
    """The limits of each of several processes: they divide connections and disk budget among them."""
    budget = fetch.disk_budget_gb and fetch.disk_budget_gb / processes
    connections = max(1, fetch.connections // processes)
    return fetch.model_copy(update={"disk_budget_gb": budget, "connections": connections})


def _log(built: list[BuiltShard], cohort: Cohort) -> None:
    fetched = sum(one.bytes for one in built)
    log.info(
        "%d slices of %d series in %d shards (%d of them were there), %d series rejected, %.0f MB fetched",
        sum(one.shard.rows for one in built),
        len(cohort.images),
        len(built),
        sum(one.reused for one in built),
        sum(one.rejected for one in built),
        fetched / 1e6,
    )


def _check_classes(shards: list[Shard], cohort: Cohort) -> None:
    fates = pd.concat([shard.series for shard in shards])
    reasons = Counter(fates.loc[fates["state"] == "rejected", "reason"])
    rejections = ", ".join(f"{reason} {count}" for reason, count in reasons.most_common()) or "none"
    if not sum(shard.rows for shard in shards):
        raise LungsynthError(
            f"no slices: all {len(fates)} series were rejected ({rejections}); check the cohort and the fetched files"
        )
    counts: Counter[tuple[str, str]] = Counter()
    for shard in shards:
        table = pd.read_parquet(shard.folder / "slices.parquet", columns=["split", "label"])
        counts.update(zip(table["split"], table["label"], strict=True))
    lacking = [f"no {name} slice in {split}" for split in SPLITS for name in cohort.classes if not counts[split, name]]
    if lacking:
        story = ", ".join(
            f"{split} {'/'.join(str(counts[split, name]) for name in cohort.classes)}" for split in SPLITS
        )
        raise LungsynthError(
            f"{', '.join(lacking)} ({'/'.join(cohort.classes)} slices: {story}; rejected series: {rejections}): take "
            "more patients into the cohort, change the splits' salt or shares, or lower slices.min_lung_fraction"
        )
