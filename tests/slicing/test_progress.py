"""The bar that follows what other processes have done."""

from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context

from lungsynth.slicing.progress import report_series, series_bar


def test_series_of_several_processes_are_counted(capsys, monkeypatch):
    monkeypatch.setattr("lungsynth.progress.EVERY_S", 0)
    with series_bar(40) as journal, ProcessPoolExecutor(2, mp_context=get_context("spawn")) as pool:
        list(pool.map(_report, [journal] * 40, range(40)))
    shown = capsys.readouterr().err
    assert "40/40" in shown
    assert "MB/s, 4 rejected" in shown
    assert "series/s" in shown
    assert not journal.exists()


def _report(journal, number):
    report_series(journal, 10**6, rejected=number % 10 == 0)
