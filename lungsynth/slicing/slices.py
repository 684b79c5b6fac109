"""From one CT series on disk to its slices: read, label, find the lungs, crop, resample, window."""

from collections.abc import Sequence
from hashlib import sha256

import numpy as np
import pandas as pd

from lungsynth.dataset.rejection import Reason, SeriesRejected, preview_of
from lungsynth.dataset.store import COLUMNS, HU_BINS
from lungsynth.dicom.read import Volume, read_series
from lungsynth.lungs.find import find_lungs
from lungsynth.lungs.mask import LungMask
from lungsynth.slicing.crop import Crop, lesion_patch, lung_box, lung_patch, whole_slice
from lungsynth.slicing.render import outline, render, render_mask, resample
from lungsynth.slicing.series import PREVIEW, Preview, SeriesJob, SeriesSlices, SliceConfig
from lungsynth.slicing.slice_labels import SliceLabels, label_slices


def slices_of_series(job: SeriesJob, config: SliceConfig, classes: tuple[str, ...]) -> SeriesSlices:
    """The slices of one CT series; random choices depend on its UID alone.

    Args:
        job: the series.
        config: view, size, window, choice.
        classes: the labels; the last is the positive one.

    Raises:
        SeriesRejected: the series gives no slice; with a preview, uint8 P×P (`PREVIEW`), where it could be read.
    """
    volume = None
    try:
        volume = read_series(job.folder)
        return _slices(volume, job, config, classes)
    except SeriesRejected as rejected:
        preview = rejected.preview if volume is None else preview_of(volume.hu[len(volume.hu) // 2])
        squared = None if preview is None else _squared(preview)
        raise SeriesRejected(rejected.reason, rejected.detail, squared) from rejected


def _squared(preview: np.ndarray) -> np.ndarray:
    """A preview (uint8 Y×X), padded with black to a square and resampled: uint8 P×P."""
    rows, columns = preview.shape
    side = max(rows, columns)
    square = Crop((rows - side) // 2, (columns - side) // 2, side, side)
    return resample(preview.astype(np.int16), square, PREVIEW, outside=0).clip(0, 255).astype(np.uint8)


def _slices(volume: Volume, job: SeriesJob, config: SliceConfig, classes: tuple[str, ...]) -> SeriesSlices:
    if volume.series_uid != job.series_uid:
        raise SeriesRejected(Reason.MIXED_SERIES, f"the files belong to series {volume.series_uid}")
    labelled = label_slices(
        volume,
        job,
        classes,
        other_slices_of_cancer=config.other_slices_of_cancer,
        lesion_margin_mm=config.lesion_margin_mm,
    )
    lungs = find_lungs(volume, job.lung_folders, config.lungs)
    crops = _crops(volume, lungs, labelled, positive=classes[-1], config=config)
    fractions = _lung_fractions(crops, lungs)
    chosen = _choose(volume, labelled.labels, fractions, config=config, classes=classes)
    views = [(index, crop) for index in chosen if (crop := crops[index])]
    shape = (len(views), config.size, config.size)
    images, masks = np.empty(shape, np.uint8), np.empty(shape, np.uint8) if config.masks else None
    for number, (index, crop) in enumerate(views):
        images[number] = render(volume.hu[index], crop, config.size, window_hu=config.window_hu)
        if masks is not None:
            masks[number] = render_mask(lungs.plane(index, volume.hu.shape[1:]), crop, config.size)
    return SeriesSlices(
        images=images,
        masks=masks,
        table=_table(volume, job, config, labelled=labelled, views=views, fractions=fractions),
        notes=(*volume.notes, *labelled.notes, *lungs.notes),
        hu_histogram=_hu_histogram(volume.hu[chosen, ::16, ::16]),
        previews=_previews(volume, job, config, labels=labelled.labels, lungs=lungs, views=views),
        lesion_mm=labelled.lesion_mm,
    )


def _crops(
    volume: Volume, lungs: LungMask, labelled: SliceLabels, *, positive: str, config: SliceConfig
) -> Sequence[Crop | None]:
    """The part of each slice to show; none where a slice has no label, or no place for the view."""
    if config.view == "whole":
        return [whole_slice(volume)] * len(volume.hu)
    if config.view == "lungs":
        return [lung_box(volume, lungs, config.margin_mm)] * len(volume.hu)
    return [
        _patch(volume, lungs, labelled, index=index, positive=positive, config=config)
        for index in range(len(volume.hu))
    ]


def _patch(
    volume: Volume, lungs: LungMask, labelled: SliceLabels, *, index: int, positive: str, config: SliceConfig
) -> Crop | None:
    label = labelled.labels[index]
    if label == positive:
        here = [lesion for lesion in labelled.lesions if lesion.index == index]
        return lesion_patch(here, config.patch_mm, volume.spacing_mm) if here else None
    placed = {lesion.index for lesion in labelled.lesions}
    # Evidence that only names a slice does not tell where in the slice the lesion lies.
    somewhere = [z for z, name in enumerate(labelled.labels) if name == positive and z not in placed]
    distances = np.abs(volume.positions_mm[somewhere] - volume.positions_mm[index])
    if label is None or (distances < config.lesion_margin_mm).any():
        return None
    return lung_patch(
        volume,
        lungs,
        index,
        lesions=labelled.lesions,
        patch_mm=config.patch_mm,
        margin_mm=config.lesion_margin_mm,
        min_lung_fraction=config.min_lung_fraction,
        rng=_random(volume.series_uid, index),
    )


def _random(series_uid: str, index: int) -> np.random.Generator:
    return np.random.default_rng([int(sha256(series_uid.encode()).hexdigest()[:16], 16), index])


def _lung_fractions(crops: Sequence[Crop | None], lungs: LungMask) -> np.ndarray:
    """Fraction of each slice's crop that is lung, float64 Z; NaN where there is no crop."""
    first = crops[0]
    if first is not None and all(crop is first for crop in crops):
        return first.lung_fractions(lungs.cells, lungs.cell_px)
    fractions = np.full(len(crops), np.nan)
    for index, crop in enumerate(crops):
        if crop:
            fractions[index] = crop.lung_fractions(lungs.cells[index : index + 1], lungs.cell_px)[0]
    return fractions


def _choose(
    volume: Volume, labels: list[str | None], fractions: np.ndarray, *, config: SliceConfig, classes: tuple[str, ...]
) -> np.ndarray:
    """Indices of the slices to take, ascending: labelled, with enough lung, spaced and capped as configured."""
    enough = fractions >= config.min_lung_fraction
    chosen = []
    for name in classes:
        indices_of_class = np.flatnonzero(enough & [label == name for label in labels])
        if config.stride_mm:
            indices_of_class = _thin(
                indices_of_class, volume.positions_mm, config.stride_mm - volume.slice_spacing_mm / 2
            )
        chosen.append(_evenly(indices_of_class, config.max_slices_per_series))
    indices = np.sort(np.concatenate(chosen))
    if not len(indices):
        labelled, placed = sum(label is not None for label in labels), int(np.isfinite(fractions).sum())
        detail = (
            f"{labelled} of {len(labels)} slices have a label, {placed} a place for the view {config.view}, none of "
        )
        raise SeriesRejected(Reason.NO_SLICES, detail + f"which is {config.min_lung_fraction:.0%} lung")
    return indices


def _thin(indices: np.ndarray, positions_mm: np.ndarray, least_mm: float) -> np.ndarray:
    """The first slice, then each next one that is `least_mm` or more above the last one kept."""
    kept: list[int] = []
    for index in indices:
        if not kept or positions_mm[index] - positions_mm[kept[-1]] >= least_mm:
            kept.append(index)
    return np.array(kept, dtype=np.intp)


def _evenly(indices: np.ndarray, most: int | None) -> np.ndarray:
    if most is None or len(indices) <= most:
        return indices
    return indices[(2 * np.arange(most) + 1) * len(indices) // (2 * most)]


def within_patient_cap(table: pd.DataFrame, most: int | None) -> np.ndarray:
    """The rows of a slice table to keep, ascending, so that no patient has more than `most` slices of a class.

    All series of the patients have to be in the table.
    """
    groups = table.groupby(["patient", "label"], sort=False).indices.values()
    kept = [_evenly(np.asarray(rows), most) for rows in groups]
    return np.sort(np.concatenate([np.arange(0), *kept]))


def _table(
    volume: Volume,
    job: SeriesJob,
    config: SliceConfig,
    *,
    labelled: SliceLabels,
    views: Sequence[tuple[int, Crop]],
    fractions: np.ndarray,
) -> pd.DataFrame:
    indices = [index for index, _ in views]
    columns = {
        "patient": job.patient_key,
        "series_uid": job.series_uid,
        "sop_uid": [volume.sop_uids[index] for index in indices],
        "position_mm": volume.positions_mm[indices],
        "label": [labelled.labels[index] for index in indices],
        "evidence": [labelled.evidence[index] for index in indices],
        "split": job.split,
        "spacing_mm": [crop.pixel_mm(volume.spacing_mm, config.size) for _, crop in views],
        "pixel_mm": float(np.sqrt(volume.spacing_mm[0] * volume.spacing_mm[1])),
        "slice_spacing_mm": volume.slice_spacing_mm,
        "thickness_mm": volume.thickness_mm,
        "lung_fraction": fractions[indices],
        "manufacturer": volume.manufacturer,
    }
    return pd.DataFrame(columns)[list(COLUMNS)].astype(COLUMNS)


def _hu_histogram(hu: np.ndarray) -> np.ndarray:
    bins = ((hu >> 5) - (int(HU_BINS[0]) >> 5)).clip(0, len(HU_BINS) - 2)
    return np.bincount(bins.ravel(), minlength=len(HU_BINS) - 1)


def _previews(
    volume: Volume,
    job: SeriesJob,
    config: SliceConfig,
    *,
    labels: list[str | None],
    lungs: LungMask,
    views: Sequence[tuple[int, Crop]],
) -> list[Preview]:
    """Some of the slices, equally many of each class so that rare ones are shown too, from all parts of the scan."""
    rng = _random(volume.series_uid, len(volume.hu))
    names = rng.permutation(sorted({str(labels[index]) for index, _ in views})).tolist()
    previews = []
    for place, name in enumerate(names):
        members = [view for view in views if labels[view[0]] == name]
        count = min(len(members), len(range(place, job.previews, len(names))))
        for part in np.array_split(np.arange(len(members)), count) if count else ():
            index, crop = members[rng.choice(part)]
            mask = render_mask(lungs.plane(index, volume.hu.shape[1:]), crop, PREVIEW)
            extent = PREVIEW * crop.pixel_mm(volume.spacing_mm, PREVIEW)
            caption = f"{name}, {job.split}\n{extent:.0f} mm wide, {volume.thickness_mm:.3g} mm thick"
            image = render(volume.hu[index], crop, PREVIEW, window_hu=config.window_hu)
            previews.append(Preview(image, outline(mask), caption, name))
    return previews
