"""A pipeline that checks its run file first, prints clear errors, and leaves one folder of results."""

import argparse
import logging
import os
import secrets
import tempfile
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import yaml
from zenml.enums import ExecutionMode
from zenml.models import PipelineRunResponse
from zenml.pipelines.pipeline_definition import Pipeline

from lungsynth.errors import LungsynthError, reason
from pipelines.folders import check_writable
from pipelines.outputs import export, export_failure
from pipelines.zenml_config import read_run_file
from steps import STEPS

DEFAULT_CONFIG = Path(__file__).parents[1] / "configs" / "demo.yaml"


class CheckedPipeline(Pipeline):
    """A ZenML pipeline that checks its run file (by default the demo's) and writes its results to `outputs/<run>/`."""

    _run_file: Path | None = None
    _run_name: str | None = None
    _outputs = Path("outputs")

    def with_options(self, *args: Any, config_path: str | None = None, **options: Any) -> "CheckedPipeline":
        """Check the run file and fill in its defaults, then as in ZenML. Bad input exits with one line."""
        try:
            content, outputs = read_run_file(Path(config_path or DEFAULT_CONFIG), STEPS)
            check_writable(outputs, "output folder", "set parameters.outputs to another")
            if "schedule" not in content:  # ZenML names each run of a schedule
                content["run_name"] = _run_name(content.get("run_name") or f"{self.name}-{{date}}-{{time}}")
            path = _write(content)
        except LungsynthError as error:
            raise SystemExit(f"error: {error}") from None
        pipeline = super().with_options(*args, **options | {"config_path": str(path)})
        assert isinstance(pipeline, CheckedPipeline)  # ZenML copies the pipeline
        pipeline._run_file, pipeline._run_name, pipeline._outputs = path, content.get("run_name"), outputs
        return pipeline

    def main(self) -> None:
        """Run as a program, with the run file that `-c` names, as `zenml pipeline run` does."""
        parser = argparse.ArgumentParser(description=self.entrypoint.__doc__, allow_abbrev=False)
        parser.add_argument("-c", "--config", metavar="FILE", help="run file; without one, the demo's")
        self.with_options(config_path=parser.parse_args().config)()

    def __call__(self, *args: Any, **kwargs: Any) -> PipelineRunResponse | None:
        """Run, write the results to `outputs/<run>/`, and print the closing table. A failed run exits with 1."""
        if self._run_file is None:
            return self.with_options()(*args, **kwargs)
        if self._run_name is None:
            return super().__call__(*args, **kwargs)
        quiet = _NoTracebackForUserErrors()
        for handler in logging.getLogger().handlers:
            handler.addFilter(quiet)
        folder, settings = self._outputs / self._run_name, self._run_file.read_text()
        try:
            run = super().__call__(*args, **kwargs)
            export(self._run_name, settings, folder)
        except (Exception, KeyboardInterrupt) as error:
            message = export_failure(self._run_name, settings, folder, error)
            raise SystemExit(message) from (None if quiet.seen or isinstance(error, LungsynthError) else error)
        finally:
            for handler in logging.getLogger().handlers:
                handler.removeFilter(quiet)
            self._run_file.unlink()
        return run


def checked_pipeline(entrypoint: Callable[..., None]) -> CheckedPipeline:
    """Make a pipeline of its wiring. It stops at the first failure: no later step could change the outcome."""
    return CheckedPipeline(name=entrypoint.__name__, entrypoint=entrypoint, execution_mode=ExecutionMode.FAIL_FAST)


class _NoTracebackForUserErrors(logging.Filter):
    """Drops the traceback of a `LungsynthError`: the message is enough for the user."""

    seen = False

    def filter(self, record: logging.LogRecord) -> bool:
        if record.exc_info and isinstance(record.exc_info[1], LungsynthError):
            record.exc_info = None
            self.seen = True
        return True


def _write(content: dict[str, Any]) -> Path:
    """Write the checked run file for ZenML, readable by its owner alone."""
    try:
        handle, path = tempfile.mkstemp(prefix="lungsynth-run-", suffix=".yaml")
        with os.fdopen(handle, "w") as file:
            yaml.safe_dump(content, file, sort_keys=False)
    except OSError as error:
        raise LungsynthError(
            f"no temporary file can be written ({reason(error)}): free some space, or set the environment's TMPDIR"
        ) from error
    return Path(path)


def _run_name(template: str) -> str:
    """Fill ZenML's placeholders, and add four random digits, since two runs may start in the same second."""
    now = datetime.now(UTC)
    name = template.replace("{date}", now.strftime("%Y_%m_%d")).replace("{time}", now.strftime("%H_%M_%S"))
    return f"{name}-{secrets.token_hex(2)}"
