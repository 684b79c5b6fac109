"""`lungsynth …`: what a run does before it trains, one piece at a time, and what runs came to; without ZenML.

Each command imports its own part of the library, so that `--help` comes at once.
"""

import json
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from lungsynth import __version__
from lungsynth.errors import LungsynthError


class OneLine(click.Group):
    """Prints a `LungsynthError`, or which packages are missing, as one line and exits with 1."""

    def invoke(self, context: click.Context) -> Any:
        """Run the command."""
        try:
            return super().invoke(context)
        except LungsynthError as error:
            raise click.ClickException(str(error)) from None
        except ModuleNotFoundError as error:
            if (error.name or "lungsynth").startswith("lungsynth"):
                raise
            raise click.ClickException(
                f"{error.name} is not installed: this command needs `pip install 'lungsynth[pipeline]'`"
            ) from None


def run_file(command: Callable[..., None]) -> Callable[..., None]:
    """The option that every command has."""
    return click.option(
        "-c", "--config", type=click.Path(path_type=Path), default=Path("configs/demo.yaml"), help="run file"
    )(command)


@click.group(cls=OneLine)
@click.version_option(__version__, package_name="lungsynth")
def main() -> None:
    """Synthetic lung CT: cohorts, slices and lung masks, one piece at a time; and the verdicts so far."""
    logging.basicConfig(level=logging.INFO, format="%(message)s")


@main.command(short_help="Preview a cohort; fetch nothing.")
@run_file
@click.option("--save", type=click.Path(path_type=Path), help="folder for the cohort's tables")
def cohort(config: Path, save: Path | None) -> None:
    """Show who would take part: the funnel, classes and scanners per split, GB to fetch, licences. Fetches nothing."""
    from rich.console import Console

    from lungsynth.cohort.preview import preview

    _, selected = _settings_and_cohort(config, None)
    Console().print(preview(selected))
    if save:
        selected.save(save)


@main.command(short_help="Build one worker's share of the shards.")
@run_file
@click.option("--index", type=click.IntRange(min=0), envvar="JOB_COMPLETION_INDEX", required=True, show_envvar=True)
@click.option("--count", type=click.IntRange(min=1), help="workers in all  [default: one a shard]")
@click.option("--cohort", "saved", type=click.Path(path_type=Path), help="folder that `cohort --save` wrote")
def build_shard(config: Path, index: int, count: int | None, saved: Path | None) -> None:
    """Fetch and cut every shard that falls to worker INDEX of COUNT, as an Indexed Kubernetes Job does.

    The run that follows finds the shards in slices.root and goes on from there.
    """
    from lungsynth.slicing.shards import build_some

    settings, part = _settings_and_cohort(config, saved)
    build_some(part, settings.fetch, settings.slices, phantoms=settings.phantoms, index=index, count=count)


@main.command(short_help="Fetch and cut a whole cohort.")
@run_file
@click.option("--cohort", "saved", type=click.Path(path_type=Path), help="folder that `cohort --save` wrote")
def slices(config: Path, saved: Path | None) -> None:
    """Fetch and cut the whole cohort, and draw contact sheets and histograms."""
    from lungsynth.report.build import draw_build
    from lungsynth.slicing.shards import build_slices

    settings, selected = _settings_and_cohort(config, saved)
    dataset = build_slices(selected, settings.fetch, settings.slices, phantoms=settings.phantoms)
    draw_build(dataset)
    click.echo(dataset.folder)


@main.command("train-lungs", short_help="Train the lung U-Net on slices with masks.")
@click.argument("dataset", type=click.Path(path_type=Path))
@click.argument("folder", type=click.Path(path_type=Path))
@click.option("--steps", type=click.IntRange(min=1), default=400, show_default=True, help="optimiser steps")
@click.option("--seed", type=click.IntRange(0, 2**32 - 1), default=0, show_default=True)
def train_lungs_on(dataset: Path, folder: Path, steps: int, seed: int) -> None:
    """Train the lung U-Net on DATASET, slices that were cut with `slices.masks`, and write it to FOLDER.

    A run takes it by `slices: {lungs: {backend: unet, weights: FOLDER}}`.
    """
    from lungsynth.dataset.store import SliceDataset
    from lungsynth.lungs.unet_training import LungTrainingConfig, train_lungs

    card = train_lungs(SliceDataset(dataset), LungTrainingConfig(steps=steps, seed=seed), folder)
    click.echo(f"{folder}: Dice {card.dice:.3f} on the slices of val")


@main.command("history", short_help="List every verdict so far.")
@run_file
@click.option("--last", type=click.IntRange(1, 50_000), default=50, show_default=True, help="verdicts to list at most")
@click.option("--json", "as_json", is_flag=True, help="print all that is known of them as JSON")
def list_history(config: Path, last: int, as_json: bool) -> None:
    """List the verdicts of the gate, newest first, also those that refused a generator. Reads MLflow alone.

    Below, from five generators on, whether distances by several extractors rank these alike, and as their gain does.
    """
    from rich.console import Console

    from lungsynth.registry.connection import shown
    from lungsynth.registry.history import history, rank_correlations
    from lungsynth.report.history import correlation_table, history_table
    from lungsynth.run_config import run_config
    from lungsynth.run_file import load

    registry = run_config(config, load(config)).registry
    entries = history(registry, last)
    if as_json:
        click.echo(json.dumps([entry.model_dump(mode="json") for entry in entries], indent=2))
    elif entries:
        Console().print(history_table(entries, registry.alias))
        if correlations := rank_correlations(entries):
            Console().print(correlation_table(correlations))
    else:
        click.echo(f"no verdict yet in experiment {registry.experiment} at {shown(registry.tracking_uri)}")


@main.command("relocate", short_help="After a project was moved or copied: find its generators again.")
@run_file
def relocate_registry(config: Path) -> None:
    """Make MLflow's database look for its artifacts beside itself, after the project's folder was moved or copied."""
    from lungsynth.registry.relocate import relocate
    from lungsynth.run_config import run_config
    from lungsynth.run_file import load

    click.echo(relocate(run_config(config, load(config)).registry))


def _settings_and_cohort(config: Path, saved: Path | None) -> tuple[Any, Any]:
    from lungsynth.cohort.cohort import Cohort
    from lungsynth.cohort.select import select_cohort
    from lungsynth.run_config import run_config
    from lungsynth.run_file import load

    settings = run_config(config, load(config))
    return settings, Cohort.load(saved) if saved else select_cohort(settings.cohort, settings.splits)
