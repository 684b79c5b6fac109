"""Console scripts run in forks of a process that has imported the libraries: what they do is the same, 12 s sooner.

Not for scripts that start a pool of processes: a fork waits five minutes for the pool's own end; programs do not.
"""

import atexit
import logging
import multiprocessing
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from pkgutil import resolve_name

SCRIPTS = {"zenml": "zenml_cli:cli", "lungsynth": "lungsynth.cli:main"}
_server = multiprocessing.get_context("forkserver")
# Not `zenml.cli`, which sends stdout to stderr, and nothing that keeps the state of a run or starts threads.
SLOW = """
    zenml.stack zenml.zen_stores.sql_zen_store mlflow.store.tracking.sqlalchemy_store
    lungsynth.cli lungsynth.registry.mlflow_registry lungsynth.report.render lungsynth.training.train
"""
_server.set_forkserver_preload(SLOW.split())


def run_warm(
    script: str, arguments: Sequence[str], *, folder: Path, environment: Mapping[str, str], merged: bool = False
) -> subprocess.CompletedProcess[str]:
    """Run a console script in `folder`, as `subprocess.run` would with both streams captured, apart or `merged`."""
    with tempfile.TemporaryDirectory() as scratch:
        streams = [Path(scratch) / name for name in ("stdout", "stdout" if merged else "stderr")]
        child = _server.Process(target=_run, args=(script, list(arguments), folder, dict(environment), streams))
        child.start()
        child.join()
        assert child.exitcode is not None
        return subprocess.CompletedProcess(
            [script, *arguments], child.exitcode, *(stream.read_text() for stream in streams)
        )


def _run(script: str, arguments: list[str], folder: Path, environment: dict[str, str], streams: list[Path]) -> None:
    for number, stream in enumerate(streams, start=1):
        os.dup2(os.open(stream, os.O_WRONLY | os.O_CREAT | os.O_APPEND), number)
    os.environ.clear()
    os.environ.update(environment)
    os.chdir(folder)
    here = str(Path(__file__).parents[1])
    sys.path[:] = [
        str(Path(sys.executable).parent),
        *(path for path in sys.path if not path.startswith(here + "/tests")),
    ]
    sys.path.remove(here)  # `steps` and `pipelines` are those of `folder`
    if script != "zenml":
        logging.getLogger().handlers.clear()  # ZenML set its own when it was imported
    sys.argv[:] = [script, *arguments]
    try:
        resolve_name(SCRIPTS[script])()
    finally:
        atexit._run_exitfuncs()  # a child of multiprocessing ends without them
