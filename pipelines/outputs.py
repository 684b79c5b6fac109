"""Writes the results of a run to `outputs/<run>/` on the machine that started it; `outputs/latest` is the newest."""

import json
import shutil
from pathlib import Path

from rich.console import Console
from zenml.client import Client
from zenml.models import PipelineRunResponse

from lungsynth.cohort.cohort import Cohort
from lungsynth.evaluation.scorecard import Scorecard
from lungsynth.files import whole_file
from lungsynth.generators.package import GeneratorPackage
from lungsynth.registry.connection import shown
from lungsynth.report.render import Report
from lungsynth.report.summary import summary_table
from lungsynth.report.usage import usage
from lungsynth.verdict.record import Verdict


def export_results(run_name: str, run_file: Path, folder: Path) -> None:
    """Copy the run's report, verdict, scorecard, cohort and pictures into `folder` and print the closing table."""
    run = Client().get_pipeline_run(run_name)
    if not run.status.is_successful:
        # An asynchronous orchestrator has only just accepted it.
        print(f"{run_name} is {run.status.value}; its report and pictures are artifacts of the run")
        return
    report: Report = run.steps["report"].output.load()
    shutil.copytree(report.folder, folder)
    _keep_settings(run_file, folder)
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


def export_failure(run_name: str, run_file: Path, folder: Path, error: BaseException) -> str:
    """Write what a failed run had finished, and `failure.json`, to `folder`.

    Returns:
        Text for the user: which step failed, why, and where the results are.
    """
    folder.mkdir(parents=True, exist_ok=True)
    _keep_settings(run_file, folder)
    runs = Client().list_pipeline_runs(name=run_name, hydrate=True)
    failed, kept = ("start", []) if not runs.items else _export_parts(runs.items[0], folder)
    interrupted = isinstance(error, KeyboardInterrupt)
    why = "interrupted; the same command goes on from the last checkpoint" if interrupted else f"{error}"
    (folder / "failure.json").write_text(json.dumps({"step": failed, "error": why, "kept": kept}, indent=2))
    _point_latest_to(folder)
    return f"error: step {failed}: {why}\nkept in {folder}: {', '.join(['config.yaml', 'failure.json', *kept])}"


def _keep_settings(run_file: Path, folder: Path) -> None:
    """Write all settings of the run to `config.yaml`, without passwords that came from environment variables."""
    (folder / "config.yaml").write_text(shown(run_file.read_text()))


def _export_parts(run: PipelineRunResponse, folder: Path) -> tuple[str, list[str]]:
    """Export the outputs of the finished steps; return the name of the failed step and the names of the files."""
    failed = "start"
    for name, step in run.steps.items():
        if not step.status.is_successful:
            failed = name
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
