"""Progress in a file: lines, and few of them. On a terminal: a bar."""

import io
import re
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import pytest

from lungsynth.progress import Progress, hub_progress, on_terminal


class Terminal(io.StringIO):
    """A stream that can be drawn over."""

    def isatty(self):
        return True


@pytest.fixture
def clock(monkeypatch):
    """tqdm's clock, which stands still unless it is set."""
    now = [1000.0]
    monkeypatch.setattr("tqdm.std.time", lambda: now[0])
    monkeypatch.setenv("TERM", "xterm")
    return now


def test_without_a_terminal_there_is_a_line_every_30_s_and_one_at_the_end(clock):
    stream = io.StringIO()
    with Progress(total=1000, desc="training", unit="img", file=stream) as bar:
        for _ in range(100):
            clock[0] += 1
            bar.update(10)
            bar.set_postfix({"loss": "0.5"})  # asks for a drawing of its own
    assert re.sub(r"<0[01]:\d\d", "<left", stream.getvalue()).splitlines() == [
        "training:  30% 300/1000 [00:30<left, 10.00img/s, loss=0.5]",
        "training:  60% 600/1000 [01:00<left, 10.00img/s, loss=0.5]",
        "training:  90% 900/1000 [01:30<left, 10.00img/s, loss=0.5]",
        "training: 100% 1000/1000 [01:40<left, 10.00img/s, loss=0.5]",
    ]
    assert "\r" not in stream.getvalue()


def test_a_run_that_goes_on_counts_from_where_it_was(clock):
    stream = io.StringIO()
    with Progress(total=1000, initial=400, desc="training", unit="img", file=stream) as bar:
        clock[0] += 40
        bar.update(400)
    assert stream.getvalue().splitlines()[-1].startswith("training:  80% 800/1000 [00:40<00:")


@pytest.mark.parametrize("leave", [True, False])
def test_what_is_short_says_nothing_without_a_terminal(clock, leave):
    stream = io.StringIO()
    for _ in Progress(range(29), "hashing", file=stream, leave=leave):
        clock[0] += 1
    assert stream.getvalue() == ""


def test_what_fails_says_how_far_it_came(clock):
    stream = io.StringIO()
    with suppress(OSError), Progress(total=10, desc="slices", file=stream) as bar:
        bar.update(3)
        clock[0] += 45
        raise OSError
    assert stream.getvalue().startswith("slices:  30% 3/10 [00:45<")


def test_a_disabled_one_says_nothing(clock):
    stream = io.StringIO()
    with Progress(total=10, file=stream, disable=True) as bar:
        clock[0] += 45
        bar.update(10)
    assert stream.getvalue() == ""


def test_on_a_terminal_there_is_a_bar(clock):
    stream = Terminal()
    with Progress(total=10, desc="slices", file=stream) as bar:
        clock[0] += 1
        bar.update(5)
    assert "\rslices:  50%|" in stream.getvalue()


def test_a_dumb_terminal_is_none(clock, monkeypatch):
    assert on_terminal(Terminal())
    monkeypatch.setenv("TERM", "dumb")
    assert not on_terminal(Terminal())
    assert not on_terminal(io.StringIO())
    assert not on_terminal(object())


def test_downloads_by_torch_hub_are_told_alike():
    import torch.hub

    before = torch.hub.tqdm
    with hub_progress():
        assert torch.hub.tqdm is Progress
    assert torch.hub.tqdm is before


def test_the_log_of_a_program_holds_no_carriage_return():
    code = "from lungsynth.progress import Progress\nfor _ in Progress(range(10**5), 'features'): pass"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True)
    assert done.stderr == b""


def test_no_other_bar_is_drawn():
    library = Path(__file__).parents[1] / "lungsynth"
    importing = [path.name for path in library.rglob("*.py") if "import tqdm" in path.read_text()]
    assert importing == ["progress.py"]
