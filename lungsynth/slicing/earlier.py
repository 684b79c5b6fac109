"""Results of an earlier shard, reused by the one that replaces it after a missing series has arrived."""

import numpy as np
import pandas as pd
from safetensors.numpy import load_file

from lungsynth.cohort.cohort import Cohort
from lungsynth.dataset.rejection import Reason, SeriesRejected
from lungsynth.dataset.store import HU_BINS, Shard
from lungsynth.slicing.series import Preview, SeriesSlices, SliceConfig

Fate = SeriesSlices | SeriesRejected


def fates_of(shard: Shard, part: Cohort, config: SliceConfig) -> dict[str, Fate]:
    """By UID, the series of the shard that need not be fetched and cut again: those of which nothing was missing.

    Empty where the number of slices of a patient is limited: one more series changes which slices are chosen.
    """
    wanting = {one.image_uid for one in shard.undelivered}
    if config.max_slices_per_patient is not None:
        return {}
    fates = shard.series[~shard.series["series_uid"].isin(wanting)].fillna({"reason": "", "detail": "", "notes": ""})
    table = pd.read_parquet(shard.folder / "slices.parquet")
    arrays = {path.stem: load_file(path)["slices"] for path in shard.folder.glob("*.safetensors")}
    figures = shard.figures()
    cases = dict(zip(figures["rejected_uids"], figures["rejected"], strict=True))
    splits = dict(zip(part.images["series_uid"], part.images["split"], strict=True))
    kept: dict[str, Fate] = {}
    for fate in fates.to_dict("records"):
        uid = fate["series_uid"]
        if fate["state"] == "rejected":
            kept[uid] = SeriesRejected(Reason(fate["reason"]), fate["detail"], cases.get(uid))
            continue
        rows = np.flatnonzero(table["series_uid"] == uid)
        kept[uid] = SeriesSlices(
            images=arrays["images"][rows],
            masks=arrays["masks"][rows] if "masks" in arrays else None,
            table=table.iloc[rows],
            notes=tuple(fate["notes"].split("\n")) if fate["notes"] else (),
            hu_histogram=figures[f"hu_{splits[uid]}"] if _first_of_split(uid, fates, splits) else _NONE,
            previews=_previews(figures, uid),
            lesion_mm=fate["lesion_mm"],
        )
    return kept


_NONE = np.zeros(len(HU_BINS) - 1, np.int64)


def _first_of_split(uid: str, fates: pd.DataFrame, splits: dict[str, str]) -> bool:
    """Whether it is its split's first built series: that one gets the split's histogram, as shards keep sums only."""
    built = fates.loc[fates["state"] == "built", "series_uid"]
    result: bool = uid == next(one for one in built if splits[one] == splits[uid])
    return result


def _previews(figures: dict[str, np.ndarray], uid: str) -> list[Preview]:
    names = ("images", "outlines", "captions", "label")
    rows = np.flatnonzero(figures["shown_uids"] == uid)
    return [Preview(*(figures[name][row] for name in names)) for row in rows]
