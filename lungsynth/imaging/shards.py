"""From a cohort to the slice dataset, shard by shard: fetch, read, cut, write, and free the disk again."""

import logging
import math
import warnings
from collections import Counter, defaultdict
from collections.abc import Iterator

import numpy as np
import pandas as pd
from joblib import Parallel, delayed
from joblib.externals.loky.process_executor import TerminatedWorkerError

from lungsynth.cohort.cohort import SPLITS, Cohort
from lungsynth.cohort.fetch import FetchConfig, require_space
from lungsynth.cohort.phantom import PhantomCohortConfig
from lungsynth.errors import LungsynthError
from lungsynth.hashing import combine
from lungsynth.imaging.progress import series_bar
from lungsynth.imaging.shard import BuiltShard, build_shard, find_shard
from lungsynth.imaging.slices import SliceConfig
from lungsynth.imaging.store import (
    Shard,
    SliceDataset,
    SliceMeta,
    assemble,
)

log = logging.getLogger(__name__)

SHARDS_WITH_PICTURES = 64
"""Contact sheets show a few slices: they need not open every shard of thousands."""


def shard_count(cohort: Cohort, config: SliceConfig) -> int:
    """How many shards a cohort makes: a power of two, so that a cohort that grows seldom changes it."""
    patients = cohort.images["patient_key"].nunique()
    return 1 << max(0, math.ceil(math.log2(max(1, patients) / config.patients_per_shard)))


def build_slices(
    cohort: Cohort, fetch: FetchConfig, config: SliceConfig, phantoms: PhantomCohortConfig | None = None
) -> SliceDataset:
    """The slices of the whole cohort, as a dataset under `config.root`; shards that lie there already are used.

    The result does not depend on the number of workers. A crash costs no more than the shards at work.

    Raises:
        LungsynthError: nothing can be fetched, no series gave slices, or a class has no slice in some split.
    """
    count = shard_count(cohort, config)
    parts = [part for part in cohort.shards(count) if len(part.images)]
    fetch = _share(fetch, config.workers)
    built = sorted(_build_all(parts, fetch, config, phantoms), key=lambda one: one.shard.sha256)
    _log(built, cohort)
    meta = SliceMeta(config.size, _window(cohort, config), cohort.sha256, config.view, cohort.classes)
    shards = [one.shard for one in built]
    key = combine([repr(meta), *(f"{shard.folder.name} {shard.sha256}" for shard in shards)])
    folder = config.root / "datasets" / key[:16]
    if not folder.exists():
        _check_classes(shards, cohort)
        assemble(folder, shards, meta, _merged_pictures(shards))
    return SliceDataset(folder)


def build_some(
    cohort: Cohort,
    fetch: FetchConfig,
    config: SliceConfig,
    phantoms: PhantomCohortConfig | None = None,
    *,
    index: int,
    count: int | None = None,
) -> None:
    """Build every `count`-th of the cohort's shards from number `index` on; without `count`, this one alone.

    Workers that together have every index below `count` leave `build_slices` nothing to do but to open the shards.

    Raises:
        LungsynthError: there is no such index; or as `build_shard`.
    """
    shards = shard_count(cohort, config)
    if index >= (count or shards):
        raise LungsynthError(f"there is no shard {index} of {count or shards}: count them from 0")
    numbers = range(index, shards, count or shards)
    for number, part in zip(numbers, cohort.shards(shards, numbers), strict=True):
        if len(part.images):
            built = build_shard(part, fetch, config, phantoms)
            there = ", was there already" if built.reused else ""
            found = (built.shard.rows, built.series, built.rejected, there)
            log.info("shard %d of %d: %d slices of %d series, %d rejected%s", number, shards, *found)


def _merged_pictures(shards: list[Shard]) -> dict[str, np.ndarray]:
    """Histograms of all shards, and the pictures of some of them."""
    some = {int(index) for index in np.random.default_rng(0).permutation(len(shards))[:SHARDS_WITH_PICTURES]}
    sums: dict[str, np.ndarray] = {}
    lists: dict[str, list[np.ndarray]] = defaultdict(list)
    for index, shard in enumerate(shards):
        for name, array in shard.pictures(None if index in some else "hu_").items():
            if name.startswith("hu_"):
                sums[name] = sums.get(name, 0) + array
            elif len(array):
                lists[name].append(array)
    return sums | {name: np.concatenate(arrays) for name, arrays in lists.items()}


def _window(cohort: Cohort, config: SliceConfig) -> tuple[float, float] | None:
    return config.window_hu if (cohort.images["modality"] == "CT").any() else None


def _build_all(
    parts: list[Cohort], fetch: FetchConfig, config: SliceConfig, phantoms: PhantomCohortConfig | None
) -> Iterator[BuiltShard]:
    """Every shard, in the order in which they get ready."""
    # loky's workers do not import the main module again: under ZenML that alone takes them ten seconds.
    pool = Parallel(n_jobs=config.workers, return_as="generator_unordered", pre_dispatch="n_jobs")
    there = {index: shard for index, part in enumerate(parts) if (shard := find_shard(part, config))}
    missing = [part for index, part in enumerate(parts) if index not in there]
    yield from there.values()
    if not missing:
        return
    require_space(pd.concat([part.series for part in missing]), fetch)
    with warnings.catch_warnings(), series_bar(sum(len(part.images) for part in missing)) as journal:
        # loky replaces a worker whose memory has grown, as it does by the scan that it keeps room for.
        warnings.filterwarnings("ignore", "A worker stopped while some jobs were given", UserWarning)
        try:
            yield from pool(delayed(build_shard)(part, fetch, config, phantoms, journal) for part in missing)
        except TerminatedWorkerError as error:
            raise LungsynthError(
                "a process that prepared slices was killed, most likely for memory: set slices.workers lower and run "
                "again; finished shards are kept"
            ) from error


def _share(fetch: FetchConfig, processes: int) -> FetchConfig:
    """What each of several processes may take of the network and the disk."""
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
        found = ", ".join(
            f"{split} {'/'.join(str(counts[split, name]) for name in cohort.classes)}" for split in SPLITS
        )
        raise LungsynthError(
            f"{', '.join(lacking)} ({'/'.join(cohort.classes)} slices: {found}; rejected series: {rejections}): take "
            "more patients into the cohort, change the splits' salt or shares, or lower slices.min_lung_fraction"
        )
