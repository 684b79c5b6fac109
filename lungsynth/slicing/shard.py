"""One shard of the slice dataset: the series of a few patients, fetched, read, cut and written."""

import logging
from collections import defaultdict
from collections.abc import Hashable, Iterable, Iterator, Set
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from traceback import extract_tb
from typing import Any

import cv2
import numpy as np
import pandas as pd

from lungsynth.cohort.cohort import ROLES, Cohort
from lungsynth.cohort.phantom import PhantomCohortConfig
from lungsynth.dataset.rejection import Reason, SeriesRejected
from lungsynth.dataset.store import COLUMNS, SERIES_COLUMNS, Shard, write_shard
from lungsynth.dataset.undelivered import Undelivered, utc_now
from lungsynth.errors import LungsynthError, reason
from lungsynth.fetching.delivery import Delivery
from lungsynth.fetching.fetch import FetchConfig, deliver, free
from lungsynth.hashing import combine, file_sha256
from lungsynth.locks import alone
from lungsynth.remote import on_disk
from lungsynth.slicing.contact import figures_of, previews_a_series
from lungsynth.slicing.earlier import fates_of
from lungsynth.slicing.exchange import give_shard, take_slices
from lungsynth.slicing.progress import report_series
from lungsynth.slicing.radiographs import slices_of_image
from lungsynth.slicing.series import SeriesJob, SeriesSlices, SliceConfig
from lungsynth.slicing.slices import slices_of_series, within_patient_cap
from lungsynth.text import printable

log = logging.getLogger(__name__)

CUT_VERSION = "1"
"""Version of all code between a file and its slices. Raise it when a pixel, a mask, a label or a row can change.

A test compares slices with golden hashes and says so. Rewording or moving code keeps it, so that no series is fetched
again for that. The simulator has a version of its own, which is part of a phantom's URL and so of the cohort.
"""
DECODERS = ("imagecodecs", "numpy", "opencv-python-headless", "pillow", "pydicom", "tifffile")
"""Packages whose version may change a pixel."""
PLACE_ONLY = {"root", "workers", "patients_per_shard"}
"""Fields of `SliceConfig` that say where and how, and change no slice."""


@dataclass(frozen=True)
class BuiltShard:
    """A shard, its counts of series, and the `bytes` fetched or simulated for it in this run: 0 if it was `reused`."""

    shard: Shard
    series: int
    rejected: int
    bytes: int
    reused: bool

    def lacks(self, arrived: Set[str]) -> bool:
        """Whether it lacks a series of which the UID is in `arrived`."""
        return any(one.series_uid in arrived for one in self.shard.undelivered)


def build_shard(
    part: Cohort,
    fetch: FetchConfig,
    config: SliceConfig,
    *,
    phantoms: PhantomCohortConfig | None = None,
    journal: Path | None = None,
    arrived: Set[str] = frozenset(),
) -> BuiltShard:
    """One shard: the slices of `part`, a few patients with all of their series; progress goes to the file `journal`.

    The shard's folder is named by the hash of its inputs, so that the first process builds it and others reuse it. If
    series that it lacks have `arrived` (UIDs), a new shard with these replaces it, in another folder: another run may
    be reading the old one.

    Raises:
        LungsynthError: the object store cannot be reached, the disk is full, or a weight file is wrong.
    """
    base = shard_folder(part, config)
    with writing(on_disk(config.root)):  # before the work, not after it
        base.parent.mkdir(parents=True, exist_ok=True)
    with alone(base.with_name(f".{base.name}.lock"), base, "set slices.root to another folder"):
        there = find_shard(part, config)
        if there and not there.lacks(arrived):
            return there
        before = there.shard if there else None
        built = _build(part, fetch, config, phantoms=phantoms, journal=journal, before=before)
        give_shard(built.shard, config)
        return built


def _build(
    part: Cohort,
    fetch: FetchConfig,
    config: SliceConfig,
    *,
    phantoms: PhantomCohortConfig | None,
    journal: Path | None,
    before: Shard | None,
) -> BuiltShard:
    """Build the shard of `part`, or the one that replaces `before`."""
    cv2.setNumThreads(1)  # the pool's processes fill the cores already
    work = _Work(part, config)
    if before:
        take_slices(before, config)
    series = work.left_of(before)
    for group, delivered in _groups(series, deliver(series, fetch, phantoms)):
        work.add(group, delivered)
        if journal is not None:
            size = sum(one.bytes for one in delivered.values())
            report_series(journal, size, rejected=group.image["series_uid"] in work.rejected)
        if fetch.disk_budget_gb is not None:
            free(group.rows, fetch)
    with writing(on_disk(config.root)):
        shard = work.write(before)
    return _built(shard, downloaded=work.bytes, reused=False)


@contextmanager
def writing(root: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise LungsynthError(
            f"cannot write slices into {root}: {reason(error)}; free some space or set slices.root to another disk, "
            "and run again: finished shards are kept"
        ) from error


def find_shard(part: Cohort, config: SliceConfig) -> BuiltShard | None:
    """The newest shard of `part`, if there is one."""
    newest, folder = None, shard_folder(part, config)
    while shard := Shard.open(folder):
        newest, folder = shard, _next(folder)
    return _built(newest, downloaded=0, reused=True) if newest else None


def _next(folder: Path) -> Path:
    """The folder of the shard that replaces one: name.2 after name, then name.3 and so on."""
    name, _, number = folder.name.partition(".")
    return folder.with_name(f"{name}.{int(number or 1) + 1}")


def _built(shard: Shard, *, downloaded: int, reused: bool) -> BuiltShard:
    series = shard.series
    return BuiltShard(shard, len(series), int((series["state"] == "rejected").sum()), downloaded, reused)


@dataclass(frozen=True)
class _Group:
    """An image series (one row of the cohort) and all rows that its slices need, itself included."""

    image: dict[Hashable, Any]
    rows: pd.DataFrame


def _groups(series: pd.DataFrame, deliveries: Iterable[Delivery]) -> Iterator[tuple[_Group, dict[str, Delivery]]]:
    """Each image series with the deliveries of its group, as soon as the last of them has arrived."""
    owner = _owner(series)
    groups = dict(list(series.groupby(owner)))
    waiting = {uid: set(rows["series_uid"]) for uid, rows in groups.items()}
    owners = dict(zip(series["series_uid"], owner, strict=True))
    delivered: dict[str, dict[str, Delivery]] = defaultdict(dict)
    for delivery in deliveries:
        uid = owners[delivery.series_uid]
        delivered[uid][delivery.series_uid] = delivery
        waiting[uid].discard(delivery.series_uid)
        if not waiting[uid]:
            rows = groups[uid]
            yield _Group(rows[rows["role"] == "image"].iloc[0].to_dict(), rows), delivered.pop(uid)


def _owner(series: pd.DataFrame) -> pd.Series:
    """The image series that each row belongs to."""
    return series["source_series_uid"].where(series["role"] != "image", series["series_uid"])


@dataclass
class _Work:
    """The results for a shard so far, by series UID: series arrive in any order and are written in order of UID."""

    part: Cohort
    config: SliceConfig
    slices: dict[str, SeriesSlices] = field(default_factory=dict)
    rejected: dict[str, SeriesRejected] = field(default_factory=dict)
    undelivered: dict[str, Undelivered] = field(default_factory=dict)
    bytes: int = 0

    def left_of(self, before: Shard | None) -> pd.DataFrame:
        """The rows of the cohort that have to be delivered; results of an earlier shard are taken over."""
        series = self.part.series
        for uid, fate in fates_of(before, self.part, self.config).items() if before else ():
            if isinstance(fate, SeriesRejected):
                self.rejected[uid] = fate
            else:
                self.slices[uid] = fate
        return series[~_owner(series).isin([*self.slices, *self.rejected])]

    def add(self, group: _Group, delivered: dict[str, Delivery]) -> None:
        """Cut one series, or record why it is rejected."""
        self.bytes += sum(one.bytes for one in delivered.values())
        missing = [one for one in delivered.values() if one.folder is None]
        uid, now = group.image["series_uid"], utc_now()
        for one in missing:
            self.undelivered[one.series_uid] = Undelivered(one.series_uid, uid, f"{one.reason}: {one.detail}", now)
        try:
            self._require(group, missing)
            cut = slices_of_series if group.image["modality"] == "CT" else slices_of_image
            self.slices[uid] = cut(self._job(group, delivered), self.config, self.part.classes)
        except SeriesRejected as rejected:
            self.rejected[uid] = rejected
        except LungsynthError:
            raise
        except Exception as error:  # must not stop the other series; its message may quote a patient
            place = extract_tb(error.__traceback__)[-1]
            detail = f"{type(error).__name__} in {Path(place.filename).name}, line {place.lineno}"
            log.warning("series %s failed: %s; please report this", uid, detail)
            self.rejected[uid] = SeriesRejected(Reason.FAILED, detail)

    def _require(self, group: _Group, missing: list[Delivery]) -> None:
        """Reject a series whose images, masks or lesion segmentations are missing."""
        roles = dict(zip(group.rows["series_uid"], group.rows["role"], strict=True))
        for one in missing:
            role = roles[one.series_uid]
            if role != "lungs" or self.config.lungs.fallback == "reject":
                what = "" if role == "image" else f"{role} segmentation: "
                raise SeriesRejected(Reason.NOT_FETCHED, f"{what}{one.reason}: {one.detail}")

    def _job(self, group: _Group, delivered: dict[str, Delivery]) -> SeriesJob:
        image, labels = group.image, self.part.slice_labels
        places: dict[str, list[Path]] = {role: [] for role in ROLES}
        for role, uid in zip(group.rows["role"], group.rows["series_uid"], strict=True):
            if folder := delivered[uid].folder:
                places[role].append(folder)
        [folder] = places["image"]  # a series without images is rejected by now
        return SeriesJob(
            series_uid=image["series_uid"],
            patient_key=image["patient_key"],
            label=image["label"],
            evidence=image["evidence"],
            split=image["split"],
            manufacturer="" if pd.isna(image["manufacturer"]) else image["manufacturer"],
            folder=folder,
            lesion_folders=tuple(places["lesion"]),
            lung_folders=tuple(places["lungs"]),
            mask_file=places["mask"][0] if places["mask"] else None,
            slice_labels=labels[labels["series_uid"] == image["series_uid"]],
            previews=previews_a_series(len(self.part.images)),
        )

    def write(self, before: Shard | None) -> Shard:
        """Write the shard; if it lacks as many series as `before`, keep that one and renew its notes."""
        lacked = {one.series_uid: one for one in before.undelivered} if before else {}
        if before and not self.undelivered.keys() < lacked.keys():
            return before.noted(self.undelivered.get(uid, one) for uid, one in lacked.items())
        parts = [self.slices[uid] for uid in sorted(self.slices)]
        size = self.config.size
        images = np.concatenate([np.empty((0, size, size), np.uint8), *(part.images for part in parts)])
        kept_masks = [np.empty((0, size, size), np.uint8), *(part.masks for part in parts if part.masks is not None)]
        masks = np.concatenate(kept_masks) if self.config.masks else None
        table = pd.concat([_no_slices(), *(part.table for part in parts)], ignore_index=True)
        for name in ("sop_uid", "manufacturer"):  # copied from DICOM, where they may contain anything
            table[name] = table[name].map(printable, na_action="ignore")
        kept = within_patient_cap(table, self.config.max_slices_per_patient)
        if len(kept) < len(table):
            images, table = images[kept], table.iloc[kept].reset_index(drop=True)
            masks = None if masks is None else masks[kept]
        folder = _next(before.folder) if before else shard_folder(self.part, self.config)
        figures = figures_of(self.slices, self.rejected, self.part.images)
        return write_shard(
            folder,
            images,
            table,
            masks=masks,
            series=self._fates(table),
            figures=figures,
            undelivered=tuple(self.undelivered.values()),
        )

    def _fates(self, table: pd.DataFrame) -> pd.DataFrame:
        counts = table["series_uid"].value_counts()
        rows = []
        for image in self.part.images.to_dict("records"):
            uid = image["series_uid"]
            rejected, slices = self.rejected.get(uid), self.slices.get(uid)
            state, reason, detail = "built", "", ""
            if rejected:
                state, reason, detail = "rejected", str(rejected.reason), rejected.detail
            notes = "\n".join(map(printable, slices.notes)) if slices else ""
            who = (uid, image["patient_key"], image["split"], image["label"])
            lesion_mm = slices.lesion_mm if slices else float("nan")
            rows.append((*who, state, reason, detail, notes, int(counts.get(uid, 0)), lesion_mm))
        return pd.DataFrame(rows, columns=list(SERIES_COLUMNS)).astype(SERIES_COLUMNS)


def _no_slices() -> pd.DataFrame:
    return pd.DataFrame(columns=list(COLUMNS)).astype(COLUMNS)


def shard_folder(part: Cohort, config: SliceConfig) -> Path:
    """Folder of a shard, named by its patients, configuration, `CUT_VERSION`, and the packages that decode."""
    weights = config.lungs.weights
    key = combine(
        [
            part.sha256,
            config.model_dump_json(exclude=PLACE_ONLY),
            f"cut {CUT_VERSION}",
            *(f"{package} {version(package)}" for package in DECODERS),
            *([file_sha256(file) for file in sorted(weights.iterdir())] if weights and weights.is_dir() else []),
        ]
    )
    return on_disk(config.root) / "shards" / key[:24]
