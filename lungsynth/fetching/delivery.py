"""What became of a series: delivered, or given up for a reason from a closed list."""

from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from lungsynth.text import printable


class FetchReason(StrEnum):
    """Why a series could not be had."""

    NOT_FOUND = "not_found"  # the store has no such prefix, or the disk no such file
    INCOMPLETE = "incomplete"  # the store lists or gives fewer objects than the cohort says
    UNEXPECTED = "unexpected"  # more objects, another size, or names that are no file names
    DAMAGED = "damaged"  # what arrived never agreed with the store's sizes and MD5 sums
    UNREACHABLE = "unreachable"  # the store refused, broke off or answered with errors
    STALLED = "stalled"  # nothing arrived for too long
    TOO_SLOW = "too_slow"  # not whole when its time was up
    IN_USE = "in_use"  # another run held it all the time

    @property
    def passing(self) -> bool:
        """Whether the next attempt may well have the series. Later runs ask for all, see `asking`."""
        return self not in (FetchReason.NOT_FOUND, FetchReason.INCOMPLETE, FetchReason.UNEXPECTED)


class FetchFailed(Exception):  # noqa: N818 - an outcome of one attempt, which is repeated or recorded
    """An attempt did not bring the whole series; `detail` is one line."""

    def __init__(self, reason: FetchReason, detail: str) -> None:
        super().__init__(reason, detail)
        self.reason = reason
        self.detail = printable(detail)


class Stopped(Exception):  # noqa: N818 - no error: the caller has gone
    """Nobody waits for the series any more."""


@dataclass(frozen=True)
class Delivery:
    """The fate of one series: it lies in `folder` (a picture: the file), or `reason` says why there is none."""

    series_uid: str
    folder: Path | None
    reason: str = ""  # a `FetchReason` where `folder` is None
    detail: str = ""  # one line: what was expected and found; of a whole series, how much was checked by size alone
    bytes: int = 0  # that were downloaded or simulated for it in this run
    source: str = ""  # the endpoint that it came from; disk, phantom or file; empty where there is none
    attempts: int = 0  # at the object stores, in this run
