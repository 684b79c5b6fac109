"""Series that a shard or a dataset lacks, because no object store gave them."""

import json
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path

from lungsynth.files import whole_file

NOTE = "undelivered.json"


@dataclass(frozen=True)
class Undelivered:
    """A series that could not be had, for the image series `image_uid` (itself, where it is one).

    `answer` is what the store answered when it was last asked, at the time `asked`. No hash of slices contains these.
    """

    series_uid: str
    image_uid: str
    answer: str
    asked: str


def utc_now() -> str:
    """The time now, as notes have it."""
    return f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC"


def read_notes(folder: Path) -> tuple[Undelivered, ...]:
    """What `write_notes` left in `folder`."""
    with suppress(FileNotFoundError):
        return tuple(Undelivered(**fields) for fields in json.loads((folder / NOTE).read_text()))
    return ()


def write_notes(folder: Path, notes: Iterable[Undelivered]) -> None:
    """Write the notes into `folder`, if they are new; readers of the file see the old one or the new one, whole."""
    if (given := tuple(notes)) == read_notes(folder):
        return
    with whole_file(folder / NOTE, beside=folder) as part:
        part.write_text(json.dumps([asdict(one) for one in given], indent=1))
