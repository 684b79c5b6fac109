"""One shard of the slice dataset: a few patients, fetched, read, cut and written in one go."""

import logging
import shutil
from collections import defaultdict
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from traceback import extract_tb

import cv2
import numpy as np
import pandas as pd

from lungsynth.cohort.cohort import ROLES, SPLITS, Cohort
from lungsynth.cohort.delivery import Delivery, FetchReason
from lungsynth.cohort.fetch import FetchConfig, deliver, free
from lungsynth.cohort.phantom import PhantomCohortConfig
from lungsynth.errors import LungsynthError, reason
from lungsynth.hashing import combine, file_sha256, sources_sha256
from lungsynth.imaging.pictures import slices_of_image
from lungsynth.imaging.progress import report_series
from lungsynth.imaging.rejection import Reason, SeriesRejected
from lungsynth.imaging.slices import PREVIEW, SeriesJob, SeriesSlices, SliceConfig, slices_of_series, within_patient_cap
from lungsynth.imaging.store import COLUMNS, HU_BINS, SERIES_COLUMNS, Shard, write_shard

log = logging.getLogger(__name__)

DECODERS = ("imagecodecs", "numpy", "opencv-python-headless", "pillow", "pydicom")
"""Packages whose version may change a pixel."""
PLACE_ONLY = {"root", "workers", "patients_per_shard"}
"""Fields of `SliceConfig` that say where and how, and change no slice."""
PICTURES_A_SHARD = 6


@dataclass(frozen=True)
class BuiltShard:
    """A shard, and what it took: `bytes` were fetched or simulated for it now; none where it was there already."""

    shard: Shard
    series: int
    rejected: int
    bytes: int
    reused: bool


def build_shard(
    part: Cohort,
    fetch: FetchConfig,
    config: SliceConfig,
    phantoms: PhantomCohortConfig | None = None,
    journal: Path | None = None,
) -> BuiltShard:
    """One shard: the slices of `part`, a few patients with all that belongs to them; `journal` takes the progress.

    The shard's folder is named by what it is made from, so that it is built once, by whichever process comes first.

    Raises:
        LungsynthError: the object store cannot be reached, the disk is full, or a weight file is wrong.
    """
    if there := find_shard(part, config):
        return there
    cv2.setNumThreads(1)  # the pool's processes share the cores already
    work, folder = _Work(part, config), _folder(part, config)
    with _writing(config.root):  # before the work, not after it
        folder.parent.mkdir(parents=True, exist_ok=True)
    deliveries = deliver(part.series, fetch, phantoms)
    for group, delivered in _groups(part.series, deliveries):
        work.add(group, delivered)
        if journal is not None:
            size = sum(one.bytes for one in delivered.values())
            report_series(journal, size, rejected=group.image["series_uid"] in work.rejected)
        if fetch.disk_budget_gb is not None:
            free(group.rows, fetch)
    with _writing(config.root):
        shard = work.write(folder)
    return _built(shard, downloaded=work.bytes, reused=False)


@contextmanager
def _writing(root: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise LungsynthError(
            f"cannot write slices into {root}: {reason(error)}; free some space or set slices.root to another disk, "
            "and run again: finished shards are kept"
        ) from error


def find_shard(part: Cohort, config: SliceConfig) -> BuiltShard | None:
    """The shard of `part`, if it is there and complete."""
    shard = Shard.open(_folder(part, config))
    return _built(shard, downloaded=0, reused=True) if shard and shard.complete else None


def _built(shard: Shard, *, downloaded: int, reused: bool) -> BuiltShard:
    series = shard.series
    return BuiltShard(shard, len(series), int((series["state"] == "rejected").sum()), downloaded, reused)


@dataclass(frozen=True)
class _Group:
    """An image series (one row of the cohort) and all rows that its slices need, itself included."""

    image: dict
    rows: pd.DataFrame


def _groups(series: pd.DataFrame, deliveries: Iterable[Delivery]) -> Iterator[tuple[_Group, dict[str, Delivery]]]:
    """Each image series with the deliveries of its group, as soon as the last of them is there."""
    owner = series["source_series_uid"].where(series["role"] != "image", series["series_uid"])
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


@dataclass
class _Work:
    """What a shard holds so far, by series UID: series arrive in any order, and are written in one."""

    part: Cohort
    config: SliceConfig
    slices: dict[str, SeriesSlices] = field(default_factory=dict)
    rejected: dict[str, SeriesRejected] = field(default_factory=dict)
    complete: bool = True
    bytes: int = 0

    def add(self, group: _Group, delivered: dict[str, Delivery]) -> None:
        """Cut one series, or note why it gives nothing."""
        self.bytes += sum(one.bytes for one in delivered.values())
        missing = [one for one in delivered.values() if one.folder is None]
        self.complete &= not any(FetchReason(one.reason).passing for one in missing)
        uid = group.image["series_uid"]
        try:
            self._require(group, missing)
            cut = slices_of_series if group.image["modality"] == "CT" else slices_of_image
            self.slices[uid] = cut(self._job(group, delivered), self.config, self.part.classes)
        except SeriesRejected as rejected:
            self.rejected[uid] = rejected
        except LungsynthError:
            raise
        except Exception as error:  # one series must not cost the others; its texts may be a patient's, so no message
            place = extract_tb(error.__traceback__)[-1]
            detail = f"{type(error).__name__} in {Path(place.filename).name}, line {place.lineno}"
            log.warning("series %s failed: %s; please report this", uid, detail)
            self.rejected[uid] = SeriesRejected(Reason.FAILED, detail)

    def _require(self, group: _Group, missing: list[Delivery]) -> None:
        """Without its images, its masks or the outlines of its lesions a series is of no use."""
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
        [folder] = places["image"]  # without it the series was rejected before
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
        )

    def write(self, folder: Path) -> Shard:
        """The shard on disk; one that was incomplete gives way."""
        parts = [self.slices[uid] for uid in sorted(self.slices)]
        size = self.config.size
        images = np.concatenate([np.empty((0, size, size), np.uint8), *(part.images for part in parts)])
        kept_masks = [np.empty((0, size, size), np.uint8), *(part.masks for part in parts if part.masks is not None)]
        masks = np.concatenate(kept_masks) if self.config.masks else None
        table = pd.concat([_no_slices(), *(part.table for part in parts)], ignore_index=True)
        kept = within_patient_cap(table, self.config.max_slices_per_patient)
        if len(kept) < len(table):
            images, table = images[kept], table.iloc[kept].reset_index(drop=True)
            masks = None if masks is None else masks[kept]
        if (there := Shard.open(folder)) and not there.complete:
            shutil.rmtree(folder)
        return write_shard(folder, images, masks, table, self._fates(table), self._pictures(), self.complete)

    def _fates(self, table: pd.DataFrame) -> pd.DataFrame:
        counts = table["series_uid"].value_counts()
        rows = []
        for image in self.part.images.to_dict("records"):
            uid = image["series_uid"]
            rejected, slices = self.rejected.get(uid), self.slices.get(uid)
            state, reason, detail = "built", "", ""
            if rejected:
                state, reason, detail = "rejected", str(rejected.reason), rejected.detail
            notes = "\n".join(slices.notes) if slices else ""
            who = (uid, image["patient_key"], image["split"], image["label"])
            lesion_mm = slices.lesion_mm if slices else float("nan")
            rows.append((*who, state, reason, detail, notes, int(counts.get(uid, 0)), lesion_mm))
        return pd.DataFrame(rows, columns=list(SERIES_COLUMNS)).astype(SERIES_COLUMNS)

    def _pictures(self) -> dict[str, np.ndarray]:
        """Histograms of HU by split, and some pictures for the contact sheets."""
        splits = dict(zip(self.part.images["series_uid"], self.part.images["split"], strict=True))
        arrays = {f"hu_{split}": np.zeros(len(HU_BINS) - 1, np.int64) for split in SPLITS}
        for uid, slices in self.slices.items():
            arrays[f"hu_{splits[uid]}"] += slices.hu_histogram
        previews = [preview for uid in sorted(self.slices) for preview in self.slices[uid].previews]
        some = np.random.default_rng(0).permutation(len(previews))[:PICTURES_A_SHARD]
        cases = [case for case in sorted(self.rejected.items()) if case[1].picture is not None][:PICTURES_A_SHARD]
        return arrays | {
            "images": np.array([previews[index].image for index in some], np.uint8),
            "outlines": np.array([previews[index].outline for index in some], bool),
            "captions": np.array([previews[index].caption for index in some], str),
            "rejected": np.array([_tile(one.picture) for _, one in cases], np.uint8),
            "rejected_uids": np.array([uid for uid, _ in cases], str),
        }


def _tile(picture: np.ndarray | None) -> np.ndarray:
    """The picture of a rejected case in a square of one size, as wide as it is high."""
    assert picture is not None  # or it is none of the cases
    scale = PREVIEW / max(picture.shape)
    height, width = (max(1, round(scale * side)) for side in picture.shape)
    small = cv2.resize(picture, (width, height), interpolation=cv2.INTER_AREA)
    return cv2.copyMakeBorder(small, 0, PREVIEW - height, 0, PREVIEW - width, cv2.BORDER_CONSTANT, value=0)


def _no_slices() -> pd.DataFrame:
    return pd.DataFrame(columns=list(COLUMNS)).astype(COLUMNS)


def _folder(part: Cohort, config: SliceConfig) -> Path:
    """Where a shard lies: named by patients, configuration, code, and the packages that decode."""
    weights = config.lungs.weights
    key = combine(
        [
            part.sha256,
            config.model_dump_json(exclude=PLACE_ONLY),
            sources_sha256("imaging"),
            *(f"{package} {version(package)}" for package in DECODERS),
            *([file_sha256(file) for file in sorted(weights.iterdir())] if weights and weights.is_dir() else []),
        ]
    )
    return config.root / "shards" / key[:24]
