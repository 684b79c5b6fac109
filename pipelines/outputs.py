"""Writes the results of a run to `outputs/<run>/` on the machine that started it; `outputs/latest` is the newest."""

import json
import shutil
from pathlib import Path

import yaml
from rich.console import Console
from zenml.client import Client
from zenml.models import PipelineRunResponse

from lungsynth.cohort.cohort import Cohort
from lungsynth.errors import LungsynthError
from lungsynth.evaluation.scorecard import Scorecard
from lungsynth.files import whole_file
from lungsynth.generators.package import GeneratorPackage
from lungsynth.registry.connection import shown
from lungsynth.report.render import Report
from lungsynth.report.summary import summary_table
from lungsynth.report.usage import usage
from lungsynth.verdict.record import Verdict
from pipelines.causes import cause_of, failed_step, is_alive


def export(run_name: str, settings: str, folder: Path) -> None:
    """Write what a finished run has come to into `folder`, and print it; of one that goes on, say so.

    Raises:
        LungsynthError: the run failed; see `export_failure`.
    """
    run = Client().get_pipeline_run(run_name, allow_name_prefix_match=False)
    if run.status.is_successful:
        _export_results(run, settings, folder)
    elif run.status.is_finished or not is_alive(run):
        raise LungsynthError(cause_of(run))
    else:
        print(f"{run_name} is {run.status.value}; when it has finished: lungsynth results {run_name}")


def settings_of(run: PipelineRunResponse) -> str:
    """The parameters of a run, as its run file had them, for one whose run file is elsewhere."""
    settings: str = yaml.safe_dump({"parameters": run.config.parameters}, sort_keys=False)
    return settings


def _export_results(run: PipelineRunResponse, settings: str, folder: Path) -> None:
    """Copy the run's report, verdict, scorecard, cohort and pictures into `folder` and print the closing table."""
    report: Report = run.steps["report"].output.load()
    shutil.copytree(report.folder, folder, dirs_exist_ok=True)
    _keep_settings(settings, folder)
    _point_latest_to(folder)
    outputs = {name: run.steps[name].output.load() for name in ("build_slices", "train_generator", "register")}
    _export_record(outputs["train_generator"], folder)
    scorecard, verdict = (run.steps["decide"].outputs[name][0].load() for name in ("scorecard", "verdict"))
    Console().print(
        summary_table(
            outputs["build_slices"],
            outputs["train_generator"],
            scorecard,
            verdict=verdict,
            registration=outputs["register"],
            report=folder / "report.html",
        )
    )
    if lines := usage(outputs["register"], outputs["train_generator"].classes):
        print(f"\n# to use the model, from any folder\n{lines}")  # not in the table, which would wrap them


def export_failure(run_name: str, settings: str, folder: Path, error: BaseException) -> str:
    """Write what a failed run had finished, and `failure.json`, to `folder`.

    Returns:
        Text for the user: which step failed, why, and where the results are.
    """
    folder.mkdir(parents=True, exist_ok=True)
    _keep_settings(settings, folder)
    runs = Client().list_pipeline_runs(name=run_name, hydrate=True)
    failed, kept = ("start", []) if not runs.items else _export_parts(runs.items[0], folder)
    interrupted = isinstance(error, KeyboardInterrupt)
    why = f"{error}"
    if interrupted and Client().active_stack.orchestrator.config.is_remote:
        why = f"interrupted here; the run goes on: lungsynth results {run_name}"
    elif interrupted:
        why = "interrupted; the same command goes on from the last checkpoint"
    (folder / "failure.json").write_text(json.dumps({"step": failed, "error": why, "kept": kept}, indent=2))
    _point_latest_to(folder)
    return f"error: step {failed}: {why}\nkept in {folder}: {', '.join(['config.yaml', 'failure.json', *kept])}"


def _keep_settings(settings: str, folder: Path) -> None:
    """Write all settings of the run to `config.yaml`, without passwords that came from environment variables."""
    (folder / "config.yaml").write_text(shown(settings))


def _export_parts(run: PipelineRunResponse, folder: Path) -> tuple[str, list[str]]:
    """Export the outputs of the finished steps; return the name of the failed step and the names of the files."""
    failed = step.name if (step := failed_step(run)) else "start"
    for step in run.steps.values():
        if not step.status.is_successful:
            continue
        for versions in step.outputs.values():
            _export_record(versions[0].load(), folder)
    return failed, sorted(path.name for path in folder.iterdir() if path.name not in ("config.yaml", "failure.json"))


def _export_record(record: object, folder: Path) -> None:
    match record:
        case Cohort():
            record.series.to_parquet(folder / "cohort.parquet", index=False)
        case GeneratorPackage():
            for path in record.folder.iterdir():
                if path.suffix not in (".safetensors", ".json") and not (folder / path.name).exists():
                    shutil.copyfile(path, folder / path.name)
        case Verdict():
            (folder / "verdict.json").write_text(record.model_dump_json(indent=2))
        case Scorecard():
            path = folder / "scorecard.json"
            before = Scorecard.model_validate_json(path.read_text()) if path.exists() else Scorecard(metrics=())
            path.write_text((before + record).model_dump_json(indent=2))


def _point_latest_to(folder: Path) -> None:
    """Replace the link in one step, so that it always exists."""
    with whole_file(folder.parent / "latest") as link:
        link.symlink_to(folder.name)
