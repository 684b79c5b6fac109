"""`lungsynth …`: what a run does before it trains, one piece at a time, and what runs came to; without ZenML.

Each command imports its own part of the library, so that `--help` comes at once.
"""

import json
import logging
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from lungsynth import __version__
from lungsynth.errors import LungsynthError
from lungsynth.remote import Place, names, on_disk, place, pull, push


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
@click.option("--save", type=place, help="folder or URL for the cohort's tables")
def cohort(config: Path, save: Place | None) -> None:
    """Show who would take part: the funnel, classes and scanners per split, GB to fetch, licences. Fetches nothing."""
    from rich.console import Console

    from lungsynth.cohort.preview import preview

    _, selected = _settings_and_cohort(config, None)
    Console().print(preview(selected))
    if save:
        selected.save(on_disk(save))
    if isinstance(save, str):
        push(on_disk(save), save, [path.name for path in on_disk(save).iterdir()])


@main.command(short_help="Build one worker's share of the shards.")
@run_file
@click.option("--index", type=click.IntRange(min=0), envvar="JOB_COMPLETION_INDEX", required=True, show_envvar=True)
@click.option("--count", type=click.IntRange(min=1), help="workers in all  [default: one a shard]")
@click.option("--cohort", "saved", type=place, help="folder or URL that `cohort --save` wrote")
def build_shard(config: Path, index: int, count: int | None, saved: Place | None) -> None:
    """Fetch and cut every shard that falls to worker INDEX of COUNT, as an Indexed Kubernetes Job does.

    The run that follows finds the shards in slices.root and goes on from there.
    """
    from lungsynth.slicing.shards import build_some

    settings, part = _settings_and_cohort(config, saved)
    build_some(part, settings.fetch, settings.slices, phantoms=settings.phantoms, index=index, count=count)


@main.command(short_help="Fetch and cut a whole cohort.")
@run_file
@click.option("--cohort", "saved", type=place, help="folder or URL that `cohort --save` wrote")
@click.option("--engine", type=click.Choice(["here", "kubernetes"]), default="here", show_default=True)
@click.option("--pods", type=click.IntRange(1), default=8, show_default=True, help="pods at once, on Kubernetes")
@click.option("--image", envvar="LUNGSYNTH_IMAGE", show_envvar=True, help="image of the pods")
@click.option("--namespace", default="zenml", show_default=True, help="namespace of the pods")
def slices(config: Path, saved: Place | None, engine: str, pods: int, image: str | None, namespace: str) -> None:
    """Fetch and cut the whole cohort, and draw contact sheets and histograms.

    With `--engine kubernetes`, pods build the shards (infra/kubernetes/build-shards.yaml) and this command waits.
    """
    from lungsynth.report.build import draw_build
    from lungsynth.slicing.shards import build_slices

    settings, selected = _settings_and_cohort(config, saved)
    if engine == "kubernetes":
        from lungsynth.slicing.indexed_job import Engine, build_on_kubernetes

        if image is None:
            raise click.UsageError("--engine kubernetes needs --image, or LUNGSYNTH_IMAGE in the environment")
        sections = settings.model_dump(mode="json", include={"cohort", "splits", "fetch", "slices", "generator"})
        where = Engine(Path("infra/kubernetes/build-shards.yaml"), image, namespace, pods)
        build_on_kubernetes(selected, json.dumps({"parameters": sections}), settings.slices, where)
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


@main.command("run", short_help="Run the pipeline, on a target of configs/targets.")
@run_file
@click.option("--target", envvar="LUNGSYNTH_TARGET", show_envvar=True, help="name of a file in configs/targets")
@click.option("--schedule", envvar="LUNGSYNTH_SCHEDULE", show_envvar=True, help="name of a file in configs/schedules")
def run_pipeline(config: Path, target: str | None, schedule: str | None) -> None:
    """Run `zenml pipeline run gan_augmentation -c CONFIG`, on TARGET, by SCHEDULE; in the project's folder."""
    chosen = {"LUNGSYNTH_TARGET": target, "LUNGSYNTH_SCHEDULE": schedule}
    environment = os.environ | {name: value for name, value in chosen.items() if value}
    zenml = str(Path(sys.executable).with_name("zenml"))
    command = ["zenml", "pipeline", "run", "gan_augmentation", "-c", str(config)]
    os.execve(zenml, command, environment)


@main.command("runs", short_help="List the pipeline's runs, wherever they run.")
@click.option("--last", type=click.IntRange(1, 1000), default=20, show_default=True, help="runs to list at most")
@click.option("--gpu-price", type=click.FloatRange(min=0), help="price of a GPU-hour, to show what runs cost so far")
def list_runs(last: int, gpu_price: float | None) -> None:
    """List runs, newest first: where, in which state, at which step, since when, and their GPU-hours so far."""
    from rich.console import Console

    _in_project()
    from pipelines.runs import table_of_runs

    Console().print(table_of_runs(last, gpu_price))


@main.command("results", short_help="Fetch what a run came to, wherever it ran.")
@click.argument("run")
@click.option("--outputs", type=click.Path(path_type=Path), default=Path("outputs"), show_default=True)
def fetch(run: str, outputs: Path) -> None:
    """Write report, verdict and pictures of RUN into OUTPUTS/RUN; of a failed one what it had, and exit with 1."""
    _in_project()
    from pipelines.runs import fetch_results

    fetch_results(run, outputs)


def _in_project() -> None:
    """Let the pipeline be imported from the current folder: it is no part of the library."""
    if not Path("pipelines/runs.py").exists():
        raise LungsynthError(f"{Path.cwd()} is not the project's folder: run this where `pipelines/` lies")
    sys.path.insert(0, str(Path.cwd()))


def _settings_and_cohort(config: Path, saved: Place | None) -> tuple[Any, Any]:
    from lungsynth.cohort.cohort import Cohort
    from lungsynth.cohort.select import select_cohort
    from lungsynth.run_config import run_config
    from lungsynth.run_file import load

    settings = run_config(config, load(config))
    if saved is None:
        return settings, select_cohort(settings.cohort, settings.splits)
    if isinstance(saved, str):
        pull(saved, on_disk(saved), names(saved))
    return settings, Cohort.load(on_disk(saved))
