"""Asks stores again for series that no earlier run could fetch: one listing for all, without fetching anything."""

import threading
import time
from dataclasses import dataclass
from pathlib import Path
from urllib.request import url2pathname

import pandas as pd

from lungsynth.fetching.delivery import FetchFailed, FetchReason
from lungsynth.fetching.download import RemoteSeries, require_as_described
from lungsynth.fetching.fetch import FetchConfig, describe
from lungsynth.fetching.object_store import ObjectStore, Patience

MOST_S = 120.0
"""Seconds for all listings of one store; a store lists hundreds of series a second."""


@dataclass(frozen=True)
class Answers:
    """The stores' answers: UIDs that are `there`; `refused` ones with reasons; why stores are `silent` on others."""

    there: frozenset[str]
    refused: dict[str, str]
    silent: str


def ask(series: pd.DataFrame, config: FetchConfig) -> Answers:
    """Ask which of these rows of `Cohort.series` could be fetched now. Without a network all stores are silent.

    A series is there if one store lists it as the cohort describes it, or if it is on the disk already.
    """
    there, refused, silent = set[str](), dict[str, str](), ""
    remote: list[RemoteSeries] = []
    for row in series.to_dict("records"):
        if row["url"].startswith("s3://") and not (one := describe(row, config)).landing.is_whole():
            remote.append(one)
        elif row["url"].startswith("file://") and not Path(url2pathname(row["url"].removeprefix("file://"))).is_file():
            refused[row["series_uid"]] = f"{FetchReason.NOT_FOUND}: there is no such file"
        else:
            there.add(row["series_uid"])
    for endpoint in config.endpoints:
        store = ObjectStore(endpoint, config.connections)
        if left := [one for one in remote if one.uid not in there]:
            silent = _ask(store, left, there, refused=refused) or silent
    return Answers(frozenset(there), {uid: why for uid, why in refused.items() if uid not in there}, silent)


def _ask(store: ObjectStore, series: list[RemoteSeries], there: set[str], *, refused: dict[str, str]) -> str:
    """Add one store's answers to `there` and `refused`; returns why the store does not answer, or an empty text."""
    if problem := store.probe(series[0].url):
        return f"{store.url} gives nothing: {problem}"
    try:
        patience = Patience(time.monotonic() + MOST_S, MOST_S, threading.Event())
        listings = store.objects_of_all([one.url for one in series], patience)
    except FetchFailed as failed:
        return f"{store.url}: {failed.detail}"
    silent = ""
    for one in series:
        listing = listings[one.url]
        try:
            if isinstance(listing, FetchFailed):
                raise listing
            require_as_described(listing, one)
            there.add(one.uid)
        except FetchFailed as failed:
            if failed.reason is FetchReason.UNREACHABLE:
                silent = f"{store.url}: {failed.detail}"
            else:
                refused.setdefault(one.uid, f"{failed.reason}: {failed.detail}")
    return silent
