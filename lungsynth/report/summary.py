"""The end of a run in the terminal."""

from pathlib import Path

from rich.table import Table
from rich.text import Text

from lungsynth.dataset.store import SliceDataset
from lungsynth.dataset.vocabulary import SPLITS
from lungsynth.evaluation.scorecard import Scorecard
from lungsynth.generators.package import GeneratorPackage
from lungsynth.registry.mlflow_registry import Registration
from lungsynth.report.ending import ended_too_early
from lungsynth.report.tables import ELSEWHERE, MetricRow, metric_rows
from lungsynth.verdict.gate import Verdict

COLOURS = {"promote": "green", "reject": "red", "underpowered": "yellow", "blocked": "red"}
SHOWN = ("kid_lung", "privacy/near", "privacy/duplicates")
"""What of the scorecard is shown beside the arms' AUROC or Dice and the gate's numbers."""


def summary_table(
    dataset: SliceDataset,
    package: GeneratorPackage,
    scorecard: Scorecard,
    verdict: Verdict,
    registration: Registration,
    report: Path,
) -> Table:
    """What was made, every number of the gate, the verdict, and where the report lies."""
    table = Table.grid(padding=(0, 2))
    table.add_column(no_wrap=True, style="bold")
    table.add_column(overflow="fold")
    table.add_row("slices", Text(_slices(dataset)))
    table.add_row("generator", Text(_generator(package)))
    for row in metric_rows(scorecard.metrics):
        if row.name in SHOWN or row.name.startswith(f"{scorecard.measure.lower()}/"):
            table.add_row(row.name, Text(_numbers(row)))
    for row in metric_rows(verdict.numbers):
        if not row.name.startswith(ELSEWHERE):
            table.add_row(row.name, Text(_numbers(row)))
    table.add_row(
        "verdict", Text.assemble((verdict.outcome, f"bold {COLOURS[verdict.outcome]}"), f". {verdict.reason}")
    )
    if undertrained := ended_too_early(package, scorecard):
        table.add_row("training", Text(undertrained))
    table.add_row("registry", Text(registration.message))
    table.add_row("report", Text(str(report)))
    return table


def _slices(dataset: SliceDataset) -> str:
    counts = ", ".join(f"{len(dataset.rows(split))} {split}" for split in SPLITS)
    patients, size = dataset.table["patient"].nunique(), dataset.meta.size
    return f"{len(dataset.table)} of {patients} patients, {size} px ({counts}); {len(dataset.rejected)} series rejected"


def _generator(package: GeneratorPackage) -> str:
    card = package.card
    length = "" if card.kimg is None else f", {card.kimg:g} kimg"
    return f"{card.generator.family}, {card.generator.size} px{length}, SHA-256 {package.sha256[:12]}"


def _numbers(row: MetricRow) -> str:
    interval = f" (95 %: {row.interval})" if row.interval else ""
    floor = f", real slices {row.floor}" if row.floor else ""
    return f"{row.value}{interval}{floor}"
