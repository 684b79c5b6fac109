"""What `lungsynth runs` and `lungsynth results` show: every run of the pipeline, wherever it runs or ran."""

from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from rich.table import Table
from zenml.client import Client
from zenml.models import PipelineRunResponse, StepRunResponse

from lungsynth.errors import LungsynthError
from pipelines.causes import failed_step, is_alive
from pipelines.outputs import export, export_failure, settings_of

PIPELINE = "gan_augmentation"


def fetch_results(name: str, outputs: Path) -> None:
    """Write what a run has come to into `outputs/NAME/`, as the machine that started it would have.

    Raises:
        LungsynthError: there is no such run, or it failed; then with its reason, and what was finished is written.
    """
    try:
        run = Client().get_pipeline_run(name)
    except (KeyError, ValueError) as error:
        raise LungsynthError(f"{name}: no such run on {Client().zen_store.url}: see `lungsynth runs`") from error
    folder, settings = outputs / run.name, settings_of(run)
    try:
        export(run.name, settings, folder)
    except LungsynthError as error:
        raise LungsynthError(export_failure(run.name, settings, folder, error).removeprefix("error: ")) from None


def table_of_runs(last: int, gpu_price: float | None) -> Table:
    """The newest runs: where, since when, at which step, and GPU-hours so far, at `gpu_price` an hour where given."""
    table = Table("run", "stack", "state", "step", "started (UTC)", "GPU-hours", *(["cost"] if gpu_price else []))
    runs = Client().list_pipeline_runs(pipeline=PIPELINE, sort_by="desc:created", size=last, hydrate=True)
    for run in runs.items:
        hours = sum(map(gpu_hours, run.steps.values()))
        started = f"{run.start_time:%Y-%m-%d %H:%M}" if run.start_time else ""
        cost = [f"{hours * gpu_price:.2f}"] if gpu_price else []
        stack = run.stack.name if run.stack else "deleted"
        table.add_row(run.name, stack, state_of(run), _now_at(run), started, f"{hours:.2f}", *cost)
    return table


def state_of(run: PipelineRunResponse) -> str:
    """ZenML's word for the run's state; `dead` where it says that a run goes on and nothing works on it any more."""
    return "dead" if not run.status.is_finished and not is_alive(run) else run.status.value


def gpu_hours(step: StepRunResponse) -> float:
    """Hours that a step has held GPUs, times their number, until now where it goes on. Cached steps held none."""
    if step.start_time is None or step.status.value == "cached":
        return 0.0
    start = step.start_time.replace(tzinfo=step.start_time.tzinfo or UTC)
    end = step.end_time.replace(tzinfo=step.end_time.tzinfo or UTC) if step.end_time else datetime.now(UTC)
    settings = {name: value.model_dump() for name, value in step.config.settings.items()}
    return (end - start).total_seconds() / 3600 * max(_gpus(settings), default=0)


def _gpus(settings: Any) -> Iterator[int]:
    """Numbers of GPUs that settings ask for, in the forms of the targets."""
    for key, value in settings.items() if isinstance(settings, dict) else ():
        if key in ("nvidia.com/gpu", "accelerator_count"):
            yield int(value or 0)
        elif key == "gpu_indices":
            yield len(value or ())
        else:
            yield from _gpus(value)


def _now_at(run: PipelineRunResponse) -> str:
    if run.status.is_successful:
        return ""
    running = [step.name for step in run.steps.values() if not step.status.is_finished]
    failed = failed_step(run)
    return ", ".join(running) or (failed.name if failed else "")
