"""The label of each slice of a CT series, from the best evidence about that slice."""

from dataclasses import dataclass
from typing import Literal

import pandas as pd

from lungsynth.cohort.cohort import EVIDENCE
from lungsynth.dataset.rejection import Reason, SeriesRejected
from lungsynth.dicom.read import Volume
from lungsynth.slicing.lesions import Lesion, find_lesions
from lungsynth.slicing.series import SeriesJob


@dataclass(frozen=True)
class SliceLabels:
    """Label and evidence of each slice, none where unknown; the lesions that segmentations outline; notes.

    `lesion_mm` is the longest diameter of the outlined lesions, or else of those in the slice labels; NaN: unknown.
    """

    labels: list[str | None]
    evidence: list[str | None]
    lesions: tuple[Lesion, ...]
    lesion_mm: float
    notes: tuple[str, ...]


def label_slices(
    volume: Volume,
    job: SeriesJob,
    classes: tuple[str, ...],
    *,
    other_slices_of_cancer: Literal["drop", "non_cancer"],
    lesion_margin_mm: float,
) -> SliceLabels:
    """Label the slices of a series.

    A slice that a lesion's segmentation covers has the positive class. Any other slice has the label that the cohort's
    slice labels give it, or else its patient's label if that is not the positive one. So the other slices of a cancer
    patient have no label, unless `other_slices_of_cancer` is `non_cancer`: then those at `lesion_margin_mm` or more
    from a lesion are negative.

    Raises:
        SeriesRejected: `NO_LESION_EVIDENCE`, where a cancer patient has no usable evidence.
    """
    negative, positive = classes[0], classes[-1]
    lesions, unusable, partial = _lesions(volume, job)
    labels: list[str | None] = [None] * len(volume.sop_uids)
    evidence: list[str | None] = [None] * len(volume.sop_uids)
    if job.label != positive and job.evidence != "slice_labels":  # slice labels hold for single slices only
        labels, evidence = [job.label] * len(labels), [job.evidence] * len(labels)
    named, void = _named_slices(volume, job.slice_labels, positive)
    for index, label, source in named:
        labels[index], evidence[index] = (label, source) if label in classes else (None, None)
    if job.label == positive:
        covered = sorted({lesion.index for lesion in lesions})
        for index in covered:
            labels[index], evidence[index] = positive, "lesion_seg"
        if covered and other_slices_of_cancer == "non_cancer" and not unusable:
            for index, position in enumerate(volume.positions_mm):
                if labels[index] is None and abs(volume.positions_mm[covered] - position).min() >= lesion_margin_mm:
                    labels[index], evidence[index] = negative, "lesion_seg"
    notes = (*unusable, *partial, *void)
    if not any(labels):
        detail = "; ".join(notes) or f"{len(job.lesion_folders)} lesion segmentations mark no slice"
        raise SeriesRejected(Reason.NO_LESION_EVIDENCE, detail)
    sizes = [lesion.diameter_mm for lesion in lesions] or job.slice_labels["lesion_mm"].dropna().tolist()
    return SliceLabels(labels, evidence, lesions, max(sizes, default=float("nan")), notes)


def _lesions(volume: Volume, job: SeriesJob) -> tuple[tuple[Lesion, ...], list[str], list[str]]:
    """The lesions of all segmentations, a note for each unusable one, and notes about segments that are no lesions."""
    lesions: list[Lesion] = []
    unusable: list[str] = []
    partial: list[str] = []
    for folder in job.lesion_folders:
        for path in sorted(folder.iterdir()):
            try:
                seg = find_lesions(volume, path)
            except SeriesRejected as rejected:
                unusable.append(f"lesion segmentation {rejected.detail}")
            else:
                lesions += seg.lesions
                partial += seg.notes
    return tuple(lesions), unusable, partial


def _named_slices(
    volume: Volume, table: pd.DataFrame, positive: str
) -> tuple[list[tuple[int, str, str]], tuple[str, ...]]:
    """(index, label, evidence) of each row that names one slice, the best evidence last; a note on rows that do not."""
    by_uid, by_number = _places(volume.sop_uids), _places(volume.instance_numbers)
    named: list[tuple[int, str, str]] = []
    void: list[str] = []
    for sop_uid, number, label, source in zip(
        *(table[name] for name in ("sop_uid", "instance_number", "label", "evidence")), strict=True
    ):
        by_name = pd.notna(sop_uid)
        places = by_uid.get(sop_uid, []) if by_name else by_number.get(number, [])
        if len(places) == 1:
            named.append((places[0], label, source))
        else:
            void.append(f"SOP instance {sop_uid}" if by_name else f"instance number {number}")
    named.sort(key=lambda one: (-EVIDENCE.index(one[2]), one[1] == positive))
    return named, (f"{len(void)} slice labels are void: no single slice has {void[0]}",) if void else ()


def _places(names: tuple[object, ...]) -> dict[object, list[int]]:
    places: dict[object, list[int]] = {}
    for index, name in enumerate(names):
        places.setdefault(name, []).append(index)
    return places
