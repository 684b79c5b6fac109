"""The outcome of fetching a series: delivered, or not for a reason from a closed list."""

from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from lungsynth.text import printable


class FetchReason(StrEnum):
    """Why a series could not be fetched."""

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
        """Whether another attempt may succeed soon. Later runs ask again whatever the reason, see `asking`."""
        return self not in (FetchReason.NOT_FOUND, FetchReason.INCOMPLETE, FetchReason.UNEXPECTED)


class FetchFailed(Exception):  # noqa: N818 - an outcome of one attempt, which is repeated or recorded
    """An attempt that did not fetch the whole series; `detail` is one line."""

    def __init__(self, reason: FetchReason, detail: str) -> None:
        super().__init__(reason, detail)
        self.reason = reason
        self.detail = printable(detail)


class Stopped(Exception):  # noqa: N818 - no error: the caller stopped it
    """Fetching was stopped, since the caller no longer waits."""


@dataclass(frozen=True)
class Delivery:
    """One series: it lies in `folder` (of a picture: the file), or `reason` says why it was not fetched."""

    series_uid: str
    folder: Path | None
    reason: str = ""  # a `FetchReason` where `folder` is None
    detail: str = (
        ""  # one line: what differs from the cohort; of a whole series, how many files were checked by size alone
    )
    bytes: int = 0  # that were downloaded or simulated for it in this run
    source: str = ""  # the endpoint that it came from; disk, phantom or file; empty where there is none
    attempts: int = 0  # at the object stores, in this run
