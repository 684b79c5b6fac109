"""From verified series to the slice dataset: read, find the lungs, crop to them, window, resize, label."""

from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Self

import numpy as np
import pandas as pd
from PIL import Image
from pydantic import Field, model_validator
from tqdm import tqdm

from lungsynth import CLASSES
from lungsynth.cohort.cohort import SPLITS, Cohort
from lungsynth.cohort.series_store import SeriesStore
from lungsynth.config import Config
from lungsynth.errors import LungsynthError
from lungsynth.imaging.lesions import slice_labels
from lungsynth.imaging.lungs import LungConfig, lung_mask
from lungsynth.imaging.read import AIR_HU, Reason, SeriesRejected, Volume, read_series
from lungsynth.imaging.store import COLUMNS, REJECTED_COLUMNS, SliceDataset, SliceMeta, claim


class SliceConfig(Config):
    """What a slice of the dataset looks like, and which slices are taken."""

    size: int = Field(128, ge=16, le=1024, description="pixels; height and width of a slice")
    window_hu: tuple[float, float] = Field((-1350.0, 150.0), description="HU that become 0 and 255; the lung window")
    margin_mm: float = Field(5.0, ge=0, le=100, description="mm around the lungs' bounding box; shows the chest wall")
    min_lung_fraction: float = Field(0.05, ge=0, lt=1, description="least share of a crop that is lung")
    stride_mm: float = Field(0, ge=0, description="mm between the slices taken of a series; 0 takes every slice")
    max_slices_per_series: int | None = Field(None, ge=1, description="slices of each class, evenly spaced; none: all")
    workers: int = Field(2, ge=1, description="processes that each prepare one series at a time, in about 0.5 GB")
    lungs: LungConfig = LungConfig()

    @model_validator(mode="after")
    def _window_opens(self) -> Self:
        if self.window_hu[0] >= self.window_hu[1]:
            raise ValueError("window_hu must be (low, high)")
        return self


@dataclass(frozen=True)
class SeriesJob:
    """One CT series with all that it takes to turn it into slices; each lesion folder holds one segmentation of it."""

    series_uid: str
    patient_key: str
    label: str
    split: str
    folder: Path
    lesion_folders: tuple[Path, ...]
    labels_by_sop_uid: dict[str, str]


def build_slices(cohort: Cohort, store: SeriesStore, config: SliceConfig, folder: Path) -> SliceDataset:
    """Turn every CT series of the cohort into slices, and write them to `folder`, which must be new or empty.

    The result does not depend on the number of workers.

    Raises:
        LungsynthError: no series gave slices, or a class has no slice in some split.
    """
    claim(folder)  # before the work, not after it
    jobs, rejected = _jobs(cohort, store)
    images, tables = [np.empty((0, config.size, config.size), np.uint8)], [_table([])]
    with tqdm(total=len(jobs), desc="slices", unit="series") as bar:
        for job, outcome in zip(jobs, _outcomes(jobs, config), strict=True):
            if isinstance(outcome, SeriesRejected):
                rejected.append((job.series_uid, str(outcome.reason), outcome.detail))
            else:
                images.append(outcome[0])
                tables.append(outcome[1])
            bar.update()
            bar.set_postfix(slices=sum(map(len, images)), rejected=len(rejected), refresh=False)
    table = pd.concat(tables, ignore_index=True)
    _check_classes(table, Counter(reason for _, reason, _ in rejected), len(cohort.ct))
    meta = SliceMeta(config.size, config.window_hu, cohort.sha256)
    return SliceDataset.write(
        folder, np.concatenate(images), table, pd.DataFrame(sorted(rejected), columns=list(REJECTED_COLUMNS)), meta
    )


def slices_of_series(job: SeriesJob, config: SliceConfig) -> tuple[np.ndarray, pd.DataFrame]:
    """The slices of one series, from feet to head.

    Returns:
        uint8 N×size×size with N ≥ 1, and the table with `imaging.store.COLUMNS`.

    Raises:
        SeriesRejected: the series gives no slice.
    """
    volume = read_series(job.folder)
    if volume.series_uid != job.series_uid:
        raise SeriesRejected(Reason.MIXED_SERIES, f"the files belong to series {volume.series_uid}")
    labels = slice_labels(volume, job.label, job.labels_by_sop_uid, job.lesion_folders)
    lungs = lung_mask(volume.hu, volume.spacing_mm, volume.slice_spacing_mm, config.lungs)
    crop = Crop.around(lungs, volume.spacing_mm, config.margin_mm)
    fractions = crop.fraction(lungs, volume.spacing_mm)
    chosen = _choose(volume, labels, fractions, config)
    images = np.stack([render(volume.hu[index], volume.spacing_mm, crop, config) for index in chosen])
    rows = [
        (
            job.patient_key,
            job.series_uid,
            volume.sop_uids[index],
            volume.positions_mm[index],
            labels[index],
            job.split,
            crop.side_mm / config.size,
            volume.thickness_mm,
            fractions[index],
            volume.manufacturer,
        )
        for index in chosen
    ]
    return images, _table(rows)


@dataclass(frozen=True)
class Crop:
    """A square of a slice, the same for all slices of a series; it may reach beyond the image."""

    top_mm: float
    left_mm: float
    side_mm: float

    @classmethod
    def around(cls, lungs: np.ndarray, spacing_mm: tuple[float, float], margin_mm: float) -> Self:
        """The smallest square that holds the lungs (bool, Z×Y×X, some of it true) of all slices and a margin."""
        rows, columns = (np.flatnonzero(lungs.any(axis=axes)) for axes in ((0, 2), (0, 1)))
        top, bottom = rows[0] * spacing_mm[0], (rows[-1] + 1) * spacing_mm[0]
        left, right = columns[0] * spacing_mm[1], (columns[-1] + 1) * spacing_mm[1]
        side = max(bottom - top, right - left) + 2 * margin_mm
        return cls(float(top + bottom - side) / 2, float(left + right - side) / 2, float(side))

    def fraction(self, lungs: np.ndarray, spacing_mm: tuple[float, float]) -> np.ndarray:
        """Share of the crop that is lung, for each slice: float64, Z."""
        areas = np.count_nonzero(lungs.reshape(len(lungs), -1), axis=1) * spacing_mm[0] * spacing_mm[1]
        return areas / self.side_mm**2


def render(hu: np.ndarray, spacing_mm: tuple[float, float], crop: Crop, config: SliceConfig) -> np.ndarray:
    """Window a slice (int16, Y×X), then resample the crop, antialiased and without overshoot: uint8, size×size."""
    top, left = crop.top_mm / spacing_mm[0], crop.left_mm / spacing_mm[1]
    bottom, right = top + crop.side_mm / spacing_mm[0], left + crop.side_mm / spacing_mm[1]
    # Two pixels more on each side than the crop: what the filter sees there is tissue, and beyond the image air.
    y0, x0 = int(np.floor(top)) - 2, int(np.floor(left)) - 2
    y1, x1 = int(np.ceil(bottom)) + 2, int(np.ceil(right)) + 2
    region = np.full((y1 - y0, x1 - x0), AIR_HU, dtype=np.float32)
    inside = hu[max(y0, 0) : y1, max(x0, 0) : x1]
    region[max(-y0, 0) :, max(-x0, 0) :][: inside.shape[0], : inside.shape[1]] = inside
    low, high = config.window_hu
    region -= low
    region *= 255 / (high - low)
    np.clip(region, 0, 255, out=region)
    box = (left - x0, top - y0, right - x0, bottom - y0)
    resized = Image.fromarray(region).resize((config.size, config.size), Image.Resampling.HAMMING, box)
    return np.rint(np.asarray(resized)).astype(np.uint8)


def _jobs(cohort: Cohort, store: SeriesStore) -> tuple[list[SeriesJob], list[tuple[str, str, str]]]:
    """A job for each CT series that lies in the store, and a rejection for each that does not."""
    present = store.table[store.table["state"] == "present"].set_index("series_uid")["folder"]
    faults = store.table[store.table["state"] != "present"].set_index("series_uid")["reason"]
    lesions = cohort.seg[cohort.seg["series_uid"].isin(present.index)].groupby("source_series_uid")["series_uid"]
    lesion_folders = {source: tuple(store.root / present[uid] for uid in uids) for source, uids in lesions}
    named = cohort.slice_labels.groupby("series_uid")
    jobs, rejected = [], []
    for row in cohort.ct.to_dict("records"):
        uid = row["series_uid"]
        if uid not in present.index:
            rejected.append((uid, str(Reason.NOT_FETCHED), str(faults.get(uid, "not in the store"))))
            continue
        labels = named.get_group(uid) if uid in named.groups else cohort.slice_labels[:0]
        jobs.append(
            SeriesJob(
                series_uid=uid,
                patient_key=row["patient_key"],
                label=row["label"],
                split=row["split"],
                folder=store.root / present[uid],
                lesion_folders=lesion_folders.get(uid, ()),
                labels_by_sop_uid=dict(zip(labels["sop_uid"], labels["label"], strict=True)),
            )
        )
    return jobs, rejected


def _outcomes(
    jobs: Sequence[SeriesJob], config: SliceConfig
) -> Iterator[tuple[np.ndarray, pd.DataFrame] | SeriesRejected]:
    """What becomes of each job, in order. New processes, not forks: the caller may hold threads and locks."""
    configs = [config] * len(jobs)
    if config.workers == 1:
        yield from map(_outcome, jobs, configs)
        return
    with ProcessPoolExecutor(config.workers, mp_context=get_context("spawn")) as pool:
        try:
            yield from pool.map(_outcome, jobs, configs)
        except BrokenProcessPool as error:
            raise LungsynthError(
                "a process that prepared slices was killed, most likely for memory: set slices.workers lower"
            ) from error


def _outcome(job: SeriesJob, config: SliceConfig) -> tuple[np.ndarray, pd.DataFrame] | SeriesRejected:
    try:
        return slices_of_series(job, config)
    except SeriesRejected as rejected:
        return rejected


def _choose(volume: Volume, labels: list[str | None], fractions: np.ndarray, config: SliceConfig) -> np.ndarray:
    """Indices of the slices to take, ascending: labelled, with enough lung, spaced and capped as configured."""
    step = max(1, round(config.stride_mm / volume.slice_spacing_mm))
    strided = np.arange(len(labels)) % step == 0
    most, chosen = config.max_slices_per_series, []
    for name in CLASSES:
        found = np.flatnonzero(strided & (fractions >= config.min_lung_fraction) & [label == name for label in labels])
        if most is not None and len(found) > most:
            found = found[(2 * np.arange(most) + 1) * len(found) // (2 * most)]
        chosen.append(found)
    indices = np.sort(np.concatenate(chosen))
    if not len(indices):
        labelled = sum(label is not None for label in labels)
        detail = f"{labelled} of {len(labels)} slices have a label, none of them {config.min_lung_fraction:.0%} lung"
        raise SeriesRejected(Reason.NO_SLICES, detail)
    return indices


def _table(rows: list[tuple]) -> pd.DataFrame:
    return pd.DataFrame(rows, columns=list(COLUMNS)).astype(COLUMNS)


def _check_classes(table: pd.DataFrame, reasons: Counter[str], series: int) -> None:
    rejections = ", ".join(f"{reason} {count}" for reason, count in reasons.most_common()) or "none"
    if table.empty:
        raise LungsynthError(
            f"no slices: all {series} CT series were rejected ({rejections}); check the cohort and the fetched files"
        )
    counts = Counter(zip(table["split"], table["label"], strict=True))
    lacking = [f"no {name} slice in {split}" for split in SPLITS for name in CLASSES if not counts[split, name]]
    if lacking:
        found = ", ".join(f"{split} {'/'.join(str(counts[split, name]) for name in CLASSES)}" for split in SPLITS)
        raise LungsynthError(
            f"{', '.join(lacking)} ({'/'.join(CLASSES)} slices: {found}; rejected series: {rejections}): take more "
            "patients into the cohort, change the splits' salt or shares, or lower slices.min_lung_fraction"
        )
