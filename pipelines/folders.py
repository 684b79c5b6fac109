"""Folders that a run must be able to write, tried before any work: before the pipeline is imported, so few imports."""

import secrets
from pathlib import Path

from zenml.client import Client
from zenml.constants import REPOSITORY_DIRECTORY_NAME
from zenml.utils.io_utils import get_global_config_directory

from lungsynth.errors import LungsynthError, reason


def check_writable(folder: Path, what: str, remedy: str) -> None:
    """Fail where nothing could be kept in a folder; the line names it as `what` and ends with `remedy`.

    Raises:
        LungsynthError: The folder cannot be made or written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        probe = folder / f".probe-{secrets.token_hex(4)}"  # pods share folders, and process ids
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise LungsynthError(f"{what} {folder} cannot be written ({reason(error)}); {remedy}") from error


def check_home() -> None:
    """Exit with one line where ZenML could not keep its own files, and would end with a traceback."""
    remedy = "set the environment variable ZENML_CONFIG_PATH to another"
    try:
        check_writable(Path(get_global_config_directory()), "ZenML's folder", remedy)
        if repository := Client.find_repository():
            check_writable(repository / REPOSITORY_DIRECTORY_NAME, "ZenML's folder", "run in a copy of the project")
    except LungsynthError as error:
        raise SystemExit(f"error: {error}") from None
