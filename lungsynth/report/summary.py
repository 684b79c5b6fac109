"""The end of a run in the terminal."""

from pathlib import Path

from rich.table import Table
from rich.text import Text

from lungsynth.dataset.store import SliceDataset
from lungsynth.dataset.vocabulary import SPLITS
from lungsynth.evaluation.quantities import COMPARED, DUPLICATES, KID, LUNG, NEAR
from lungsynth.evaluation.scorecard import Measurand, Scorecard
from lungsynth.generators.package import GeneratorPackage
from lungsynth.registry.mlflow_registry import Registration
from lungsynth.report.ending import ended_too_early
from lungsynth.report.tables import MetricRow, metric_rows
from lungsynth.verdict.record import Verdict

COLOURS = {"promote": "green", "reject": "red", "underpowered": "yellow", "blocked": "red"}
SHOWN = {
    measurand.name
    for measurand in (
        Measurand(quantity=KID, extractor=LUNG),
        Measurand(quantity=NEAR),
        Measurand(quantity=DUPLICATES),
    )
}
"""What the table shows of the scorecard beside the arms' AUROC or Dice."""


def summary_table(
    dataset: SliceDataset,
    package: GeneratorPackage,
    scorecard: Scorecard,
    *,
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
    compared = COMPARED[verdict.measure]
    own = [metric for metric in scorecard.metrics if metric.base_name in SHOWN or metric.quantity == compared]
    for row in metric_rows([*own, *verdict.main_numbers]):
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
