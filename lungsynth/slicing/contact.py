"""Arrays for the figures of a build's report: histograms of HU, a few slices of each shard, some rejected cases."""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd

from lungsynth.dataset.rejection import SeriesRejected
from lungsynth.dataset.store import HU_BINS, Shard
from lungsynth.dataset.vocabulary import SPLITS
from lungsynth.slicing.series import Preview, SeriesSlices

KEPT = 24
"""Previews that a shard keeps: a contact sheet even where it is the only one."""
SHOWN = 48
"""Slices on a contact sheet."""
REJECTED_A_SHARD = 6
SHARDS_SHOWN = 64
"""Shards that are opened for a contact sheet: it shows a few slices, and there may be thousands of shards."""


class Kind(NamedTuple):
    """Split, class and patient of a preview; a shard keeps them as three arrays of these names."""

    split: str
    label: str
    patient: str


def previews_a_series(series: int) -> int:
    """Previews that each of a shard's series gives: enough for `KEPT` even if a third of the series is rejected."""
    return max(1, -(-3 * KEPT // (2 * series)))


def spread(kinds: Sequence[Kind], most: int) -> list[int]:
    """Indices of at most `most` of `kinds`, balanced over splits and classes, and spread over patients.

    The choice is random with a fixed seed. The places are sorted by split and class.
    """
    again, turn = Counter[Kind](), Counter[tuple[str, str]]()
    ranked = []
    for place in np.random.default_rng(0).permutation(len(kinds)).tolist():
        ranked.append((again[kinds[place]], place))
        again[kinds[place]] += 1
    turns = []
    for _, place in sorted(ranked, key=lambda one: one[0]):
        kind = kinds[place].split, kinds[place].label
        turns.append((turn[kind], kind, place))
        turn[kind] += 1
    chosen = [place for *_, place in sorted(turns, key=lambda one: one[:2])[:most]]
    return sorted(chosen, key=lambda place: (SPLITS.index(kinds[place].split), *kinds[place][1:], place))


def figures_of(
    slices: Mapping[str, SeriesSlices], rejected: Mapping[str, SeriesRejected], images: pd.DataFrame
) -> dict[str, np.ndarray]:
    """A shard's figures: histograms of HU by split, `KEPT` previews with what they are, and some rejected cases.

    `slices` and `rejected` go by series UID; previews of the latter are P×P. `images` are their rows in the cohort.
    """
    split, patient = (dict(zip(images["series_uid"], images[name], strict=True)) for name in ("split", "patient_key"))
    arrays = {f"hu_{split}": np.zeros(len(HU_BINS) - 1, np.int64) for split in SPLITS}
    shown: list[tuple[str, Preview]] = []
    for uid in sorted(slices):
        arrays[f"hu_{split[uid]}"] += slices[uid].hu_histogram
        shown += [(uid, preview) for preview in slices[uid].previews]
    kinds = [Kind(split[uid], preview.label, patient[uid]) for uid, preview in shown]
    some = spread(kinds, KEPT)
    cases = [case for case in sorted(rejected.items()) if case[1].preview is not None][:REJECTED_A_SHARD]
    return arrays | {
        "images": np.array([shown[index][1].image for index in some], np.uint8),
        "outlines": np.array([shown[index][1].outline for index in some], bool),
        "captions": np.array([shown[index][1].caption for index in some], str),
        "shown_uids": np.array([shown[index][0] for index in some], str),
        **_arrays([kinds[index] for index in some]),
        "rejected": np.array([one.preview for _, one in cases], np.uint8),
        "rejected_uids": np.array([uid for uid, _ in cases], str),
    }


def merged_figures(shards: Sequence[Shard]) -> dict[str, np.ndarray]:
    """Histograms of all shards, and previews from some: of one shard at a time only those that a sheet shows."""
    sums: dict[str, np.ndarray] = {}
    for shard in shards:
        for name, array in shard.figures("hu_").items():
            sums[name] = sums.get(name, 0) + array
    order = np.random.default_rng(0).permutation(len(shards))[:SHARDS_SHOWN]
    some = [shards[index] for index in np.sort(order)]
    kinds, places = list[Kind](), list[tuple[int, int]]()
    for number, shard in enumerate(some):
        of_shard = [
            Kind(*one) for one in zip(*(shard.figures(name)[name].tolist() for name in Kind._fields), strict=True)
        ]
        kinds += of_shard
        places += [(number, row) for row in range(len(of_shard))]
    chosen = spread(kinds, SHOWN)
    if not chosen:
        return sums
    merged = _arrays([kinds[index] for index in chosen])
    for name in ("images", "outlines", "captions"):
        rows: dict[int, np.ndarray] = {}
        for number in {places[index][0] for index in chosen}:
            array = some[number].figures(name)[name]
            rows |= {index: array[places[index][1]].copy() for index in chosen if places[index][0] == number}
        merged[name] = np.stack([rows[index] for index in chosen])
    rejected = [shard.figures("rejected") for shard in some]
    for name in ("rejected", "rejected_uids"):
        if kept := [one[name] for one in rejected if len(one[name])]:
            merged[name] = np.concatenate(kept)
    return sums | merged


def _arrays(kinds: Sequence[Kind]) -> dict[str, np.ndarray]:
    return {name: np.array([getattr(one, name) for one in kinds], str) for name in Kind._fields}
