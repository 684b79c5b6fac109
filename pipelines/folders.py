"""Checks that folders can be written, before the pipeline is imported; so this file imports little."""

import secrets
from pathlib import Path

from zenml.client import Client
from zenml.constants import REPOSITORY_DIRECTORY_NAME
from zenml.utils.io_utils import get_global_config_directory

from lungsynth.errors import LungsynthError, reason


def check_writable(folder: Path, what: str, remedy: str) -> None:
    """Check that `folder` can be written; the error calls it `what` and ends with `remedy`.

    Raises:
        LungsynthError: The folder cannot be made or written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        probe = folder / f".probe-{secrets.token_hex(4)}"  # not the process id: pods share folders and process ids
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise LungsynthError(f"{what} {folder} cannot be written ({reason(error)}); {remedy}") from error


def check_home() -> None:
    """Exit with one line if ZenML's own folders cannot be written: ZenML itself would end with a traceback."""
    remedy = "set the environment variable ZENML_CONFIG_PATH to another"
    try:
        check_writable(Path(get_global_config_directory()), "ZenML's folder", remedy)
        if repository := Client.find_repository():
            check_writable(repository / REPOSITORY_DIRECTORY_NAME, "ZenML's folder", "run in a copy of the project")
    except LungsynthError as error:
        raise SystemExit(f"error: {error}") from None
