"""The verdicts so far, in the terminal."""

from collections.abc import Iterable

from rich import box
from rich.table import Table
from rich.text import Text

from lungsynth.evaluation.quantities import FID, KID, LUNG
from lungsynth.evaluation.scorecard import Measurand
from lungsynth.registry.history import Correlation, Entry
from lungsynth.report.summary import COLOURS
from lungsynth.report.tables import number

SHOWN = tuple(Measurand(quantity=quantity, extractor=LUNG).name for quantity in (FID, KID))
ALIAS = {"holds": "{alias}", "held": "was {alias}", "never": "never {alias}"}


def history_table(entries: Iterable[Entry], alias: str) -> Table:
    """One row a verdict, in the order given, for 80 columns; times are local, and unknown values stay empty."""
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), show_lines=True)
    table.add_column("when\nrun", width=16)
    table.add_column("verdict\nrule", min_width=12)
    table.add_column("gain (95 % interval)\narm", no_wrap=True, overflow="fold")
    table.add_column("FID\nKID", justify="right", no_wrap=True)
    table.add_column("version\nalias")
    for entry in entries:
        outcome = entry.outcome, f"bold {COLOURS[entry.outcome]}"
        table.add_row(
            Text(f"{entry.when.astimezone():%Y-%m-%d %H:%M}\n{entry.run_name}"),
            Text.assemble(outcome, "" if entry.complete else ", unfinished", f"\n{entry.rule}"),
            Text(f"{_gain(entry)}\n{entry.candidate_arm or ''}"),
            "\n".join(number(entry.distances[name]) if name in entry.distances else "" for name in SHOWN),
            Text(f"{entry.version}\n{ALIAS[entry.alias].format(alias=alias)}" if entry.alias else ""),
        )
    return table


def correlation_table(found: Iterable[Correlation]) -> Table:
    """One row for each two numbers whose ranks were compared."""
    table = Table("Spearman's rank correlation of", "and", "rho", "95 % interval", "generators", box=box.SIMPLE_HEAD)
    for one in found:
        bounds = f"{one.low:+.2f} to {one.high:+.2f}"
        table.add_row(one.first, one.second, f"{one.rho:+.2f}", bounds, str(one.generators))
    return table


def _gain(entry: Entry) -> str:
    if entry.gain is None:
        return "not compared"
    bounds = "" if entry.gain_low is None else f" ({entry.gain_low:+.3f} to {entry.gain_high:+.3f})"
    return f"{entry.gain:+.3f}{bounds}"
