"""The end of a run in the terminal."""

from pathlib import Path

from rich.table import Table
from rich.text import Text

from lungsynth.registry.gate import Verdict
from lungsynth.registry.mlflow_registry import Registration
from lungsynth.report.tables import metric_rows

COLOURS = {"promote": "green", "reject": "red", "underpowered": "yellow", "blocked": "red"}


def summary_table(verdict: Verdict, registration: Registration, report: Path) -> Table:
    """What was made, every number of the gate, the verdict, and where the report lies."""
    table = Table(
        title=Text.assemble((verdict.outcome, f"bold {COLOURS[verdict.outcome]}"), f": {registration.message}"),
        caption=Text(f"{verdict.reason}\nReport: {report}"),
        title_justify="left",
        caption_justify="left",
    )
    table.add_column("gate", overflow="fold")
    table.add_column("value", justify="right")
    table.add_column("95 % interval", justify="right")
    table.add_column("computed with", overflow="fold", style="dim")
    for row in metric_rows(verdict.numbers):
        table.add_row(row.name, row.value, row.interval, row.computed_with)
    return table
