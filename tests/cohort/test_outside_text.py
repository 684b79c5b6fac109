"""Text from outside, on its way to a terminal, a log, a table or a server."""

import io
import logging
import os
import sys
from pathlib import Path

import pytest
from picture_sets import SPLITS, lay, select

from lungsynth.cohort.cohort import Cohort
from lungsynth.cohort.csv_file import read_csv
from lungsynth.cohort.pictures import PictureCohortConfig, select_pictures
from lungsynth.dataset.rejection import Reason, SeriesRejected
from lungsynth.errors import LungsynthError
from lungsynth.fetching.delivery import FetchFailed, FetchReason
from lungsynth.fetching.fetch import FetchConfig, deliver
from lungsynth.text import printable, readable


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain text, «Müller» 患者", "plain text, «Müller» 患者"),
        ("two\nlines\r\n and\ttabs", "two lines and tabs"),
        ("\x1b[31mred\x07", r"\x1b[31mred\x07"),
        ("M\udcfcller", "Müller"),
        ("\u202eevil\u200b", r"\u202eevil\u200b"),
        ("\ud800", "\ufffd"),
        ("\x9b2J\x00", r"\x9b2J\x00"),
        ("", ""),
    ],
)
def test_what_would_break_a_line_or_a_terminal_is_escaped(text, shown):
    assert printable(text) == shown
    assert printable(printable(text)) == shown
    printable(text).encode()


def test_long_texts_lose_their_middle():
    assert printable("a" * 300) == "a" * 300
    shortened = printable("a" * 200 + "b" * 200, longest=100)
    assert len(shortened) <= 100
    assert shortened.startswith("a" * 40)
    assert shortened.endswith("b" * 40)


def test_readable_keeps_what_is_valid_and_escapes_nothing():
    assert readable("Müller\n\x1b") == "Müller\n\x1b"
    assert readable(os.fsdecode(b"gr\xfcn")) == "grün"


@pytest.mark.parametrize(
    "error",
    [
        LungsynthError("a\nb \x1b[2J \udcfc"),
        LungsynthError(f"{Path(os.fsdecode(b'/r' + bytes([0xF6])))}: a\nb \x1b[2J ü"),
    ],
)
def test_every_error_is_one_line_that_any_stream_takes(error):
    assert "\n" not in str(error)
    assert "\x1b" not in str(error)
    str(error).encode()


def test_details_of_rejections_and_downloads_are_one_line():
    assert SeriesRejected(Reason.NOT_CT, "modality 'C\x1b[31mT\n'").detail == r"modality 'C\x1b[31mT '"
    assert FetchFailed(FetchReason.UNREACHABLE, "503\r\n\x07busy").detail == r"503 \x07busy"


@pytest.fixture
def odd(tmp_path: Path) -> Path:
    """Pictures and masks under names of Latin-1, of Shift-JIS, with escapes and line breaks, in such a folder."""
    names = [b"M\xfcller", b"\x83e\x83X\x83g", b"\x1b[31mred", b"two\nlines", b"caf\xe9", "漢字".encode(), b"a\xff\xfe"]
    root = Path(os.fsdecode(os.fsencode(tmp_path) + b"/r\xf6ntgen"))
    for number, name in enumerate(names):
        label = os.fsdecode((b"B\xf6se", b"gut")[number % 2])
        lay(root, f"{label}/{os.fsdecode(name)}_{number}.png", f"masks/{label}/{os.fsdecode(name)}_{number}.png")
    return lay(
        root, os.fsdecode(b"masks/stray\xfc.png"), os.fsdecode(b"gut/\x1b[31m\xe4.bmp"), os.fsdecode(b"l\xfc/x.txt")
    )


@pytest.mark.parametrize("fields", [{}, {"patient_pattern": r"(?s)(.+)_\d"}])
def test_names_that_are_no_utf_8_run_through(odd, fields, tmp_path, monkeypatch):
    stream = io.TextIOWrapper(io.BytesIO(), encoding="utf-8", errors="strict")  # as standard output is
    handler = logging.StreamHandler(stream)
    monkeypatch.setattr(handler, "handleError", lambda record: pytest.fail(f"{sys.exc_info()[1]!r}"))
    logging.getLogger().addHandler(handler)
    try:
        cohort = select(odd, **fields)
    finally:
        logging.getLogger().removeHandler(handler)
    handler.flush()
    printed = stream.buffer.getvalue().decode()
    assert "\x1b" not in printed
    assert "röntgen" in printed
    assert cohort.classes == ("Böse", "gut")
    assert len(cohort.images) == (cohort.series["role"] == "mask").sum() == 7
    if fields:
        assert {"Müller", "café", "漢字", "two lines"} <= set(cohort.series["patient"])
    cohort.save(tmp_path / "saved")
    assert Cohort.load(tmp_path / "saved").sha256 == cohort.sha256
    delivered = list(deliver(cohort.series, FetchConfig(root=tmp_path / "fetched"), None))
    assert all(one.folder is not None and one.folder.is_file() for one in delivered)


def test_a_file_that_went_away_is_not_named(odd, tmp_path):
    series = select(odd).series
    for path in sorted(odd.rglob("*.png")):
        path.unlink()
    details = {one.detail for one in deliver(series, FetchConfig(root=tmp_path / "fetched"), None)}
    assert details == {"the file is no longer where the cohort found it"}


@pytest.mark.parametrize("name", [b"caf\xe9.png", "café.png".encode()])
def test_a_table_in_latin_1_finds_its_files_whichever_way_they_are_spelt(tmp_path, name):
    lay(tmp_path, os.fsdecode(name), "1.png", "2.png")
    (tmp_path / "rows.csv").write_bytes(b"path,label,patient\ncaf\xe9.png,a,1\n1.png,b,2\n2.png,b,3\n")
    assert len(select_pictures(PictureCohortConfig(table=tmp_path / "rows.csv"), SPLITS).series) == 3


def test_a_missing_table_of_an_odd_name_is_one_line(tmp_path):
    with pytest.raises(LungsynthError, match=r"röws\.csv: not a readable CSV") as caught:
        read_csv(Path(os.fsdecode(os.fsencode(tmp_path) + b"/r\xf6ws.csv")))
    str(caught.value).encode()
