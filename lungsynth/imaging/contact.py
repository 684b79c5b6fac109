"""What the pictures of a build show: a few slices of each shard, and of these as many of each kind as there is room."""

from collections.abc import Mapping, Sequence

import cv2
import numpy as np
import pandas as pd

from lungsynth.cohort.cohort import SPLITS
from lungsynth.imaging.rejection import SeriesRejected
from lungsynth.imaging.slices import PREVIEW, Preview, SeriesSlices
from lungsynth.imaging.store import HU_BINS, Shard

KEPT = 24
"""Previews that a shard keeps: a contact sheet even where it is the only one."""
SHOWN = 48
"""Slices on a contact sheet."""
REJECTED_A_SHARD = 6
SHARDS_WITH_PICTURES = 64
"""A contact sheet shows a few slices: it need not open every shard of thousands."""
WHO = ("splits", "labels", "patients")


def previews_a_series(series: int) -> int:
    """How many each of so many series in a shard gives: enough even where half of them are rejected."""
    return max(1, -(-2 * KEPT // series))


def spread(kinds: pd.DataFrame, most: int) -> np.ndarray:
    """At most `most` rows of a table with `WHO`: as many of each split and label, and of as many patients, as can be.

    Which, is drawn at random, always the same; they come sorted by split and label.
    """
    mixed = kinds.iloc[np.random.default_rng(0).permutation(len(kinds))].reset_index()
    mixed["again"] = mixed.groupby([*WHO], sort=False).cumcount()
    mixed = mixed.sort_values("again", kind="stable")
    mixed["turn"] = mixed.groupby([*WHO[:2]], sort=False).cumcount()
    chosen = mixed.sort_values(["turn", *WHO[:2]], kind="stable").head(most)
    places = chosen["splits"].map({name: place for place, name in enumerate(SPLITS)})
    order = chosen.assign(place=places).sort_values(["place", "labels", "patients", "index"], kind="stable")
    return order["index"].to_numpy(np.intp)


def pictures_of(
    slices: Mapping[str, SeriesSlices], rejected: Mapping[str, SeriesRejected], images: pd.DataFrame
) -> dict[str, np.ndarray]:
    """A shard's pictures: histograms of HU by split, `KEPT` previews with what they are, and some rejected cases.

    `slices` and `rejected` go by series UID; `images` are the rows of these in the cohort.
    """
    split, patient = (dict(zip(images["series_uid"], images[name], strict=True)) for name in ("split", "patient_key"))
    arrays = {f"hu_{split}": np.zeros(len(HU_BINS) - 1, np.int64) for split in SPLITS}
    shown: list[tuple[str, Preview]] = []
    for uid in sorted(slices):
        arrays[f"hu_{split[uid]}"] += slices[uid].hu_histogram
        shown += [(uid, preview) for preview in slices[uid].previews]
    who = [(split[uid], preview.label, patient[uid]) for uid, preview in shown]
    kinds = pd.DataFrame(who, columns=list(WHO))
    some = spread(kinds, KEPT)
    cases = [case for case in sorted(rejected.items()) if case[1].picture is not None][:REJECTED_A_SHARD]
    return arrays | {
        "images": np.array([shown[index][1].image for index in some], np.uint8),
        "outlines": np.array([shown[index][1].outline for index in some], bool),
        "captions": np.array([shown[index][1].caption for index in some], str),
        "shown_uids": np.array([shown[index][0] for index in some], str),
        **{name: kinds[name].to_numpy(str)[some] for name in WHO},
        "rejected": np.array([_tile(one.picture) for _, one in cases], np.uint8),
        "rejected_uids": np.array([uid for uid, _ in cases], str),
    }


def merged_pictures(shards: Sequence[Shard]) -> dict[str, np.ndarray]:
    """Histograms of all shards, and the pictures of some: of one shard at a time only those that a sheet shows."""
    sums: dict[str, np.ndarray] = {}
    for shard in shards:
        for name, array in shard.pictures("hu_").items():
            sums[name] = sums.get(name, 0) + array
    order = np.random.default_rng(0).permutation(len(shards))[:SHARDS_WITH_PICTURES]
    some = [shards[index] for index in np.sort(order)]
    kinds = pd.concat([pd.DataFrame({name: shard.pictures(name)[name] for name in WHO}) for shard in some])
    kinds["shard"] = np.repeat(np.arange(len(some)), [len(shard.pictures("captions")["captions"]) for shard in some])
    kinds = kinds.reset_index(names="row")
    chosen = kinds.iloc[spread(kinds.drop(columns=["row", "shard"]), SHOWN)].reset_index(drop=True)
    lists: dict[str, list[np.ndarray]] = {name: [] for name in ("images", "outlines", "captions")}
    for number, shard in enumerate(some):
        rows = chosen.loc[chosen["shard"] == number, "row"].to_numpy()
        for name, parts in lists.items() if len(rows) else ():
            parts.append(shard.pictures(name)[name][rows])
    if chosen.empty:
        return sums
    place = np.argsort(chosen["shard"].to_numpy().argsort(kind="stable"))
    found = {name: np.concatenate(parts)[place] for name, parts in lists.items()}
    rejected = [shard.pictures("rejected") for shard in some]
    for name in ("rejected", "rejected_uids"):
        if kept := [one[name] for one in rejected if len(one[name])]:
            found[name] = np.concatenate(kept)
    return sums | found | {name: chosen[name].to_numpy(str) for name in WHO}


def _tile(picture: np.ndarray | None) -> np.ndarray:
    """The picture of a rejected case in a square of one size, as wide as it is high."""
    assert picture is not None  # or it is none of the cases
    scale = PREVIEW / max(picture.shape)
    height, width = (max(1, round(scale * side)) for side in picture.shape)
    small = cv2.resize(picture, (width, height), interpolation=cv2.INTER_AREA)
    return cv2.copyMakeBorder(small, 0, PREVIEW - height, 0, PREVIEW - width, cv2.BORDER_CONSTANT, value=0)
