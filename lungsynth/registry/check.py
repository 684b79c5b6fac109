"""Checks before training that a generator could be registered after it."""

import os
import secrets
from pathlib import Path
from shlex import quote

import mlflow
from mlflow import MlflowClient
from mlflow.entities import Experiment
from mlflow.entities.model_registry import ModelVersion
from mlflow.exceptions import MlflowException
from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository
from mlflow.utils.file_utils import local_file_uri_to_path
from mlflow.utils.uri import is_local_uri

from lungsynth import __version__
from lungsynth.errors import LungsynthError, reason
from lungsynth.generators.package import WEIGHTS
from lungsynth.registry.connection import RegistryConfig, connect, opened, shown, sqlite_file
from lungsynth.registry.succession import holder_of

ARTIFACTS = "mlartifacts"
"""Folder of artifacts beside a SQLite database."""


def check_registry(config: RegistryConfig) -> None:
    """Check that a generator could be registered, and create the experiment if it does not exist.

    The experiment gets a tag, so that missing write permission is found now.

    Raises:
        LungsynthError: the server does not answer; database or artifacts cannot be written; the experiment is in the
            trash; the project was moved or copied; or the model's name or alias belongs to something else.
    """
    database = sqlite_file(config.tracking_uri)
    with connect(config) as client:
        if database:
            with opened(database) as connection:
                connection.execute("BEGIN IMMEDIATE")
                connection.execute("CREATE TABLE lungsynth_probe (a)")  # a read-only database refuses only now
                connection.rollback()
        experiment = client.get_experiment(experiment_of(client, config))
        client.set_experiment_tag(experiment.experiment_id, "checked_by", f"lungsynth {__version__}")
        _check_artifacts(experiment, config)
        _check_name(client, config)
        if holder := holder_of(client, config.model_name, config.alias):
            check_package(client, holder, config)


def active_experiment(client: MlflowClient, config: RegistryConfig) -> Experiment | None:
    """The configured experiment.

    Raises:
        LungsynthError: it is in the trash, where MLflow keeps its runs but shows none.
    """
    found = client.get_experiment_by_name(config.experiment)
    if found is not None and found.lifecycle_stage == "deleted":
        command = f"mlflow experiments restore --experiment-id {found.experiment_id}"
        raise LungsynthError(
            f"MLflow at {shown(config.tracking_uri)}: experiment {config.experiment} is in the trash: restore it by "
            f"`MLFLOW_TRACKING_URI={quote(shown(mlflow.get_tracking_uri()))} {command}`, or set another "
            "registry.experiment"
        )
    return found


def experiment_of(client: MlflowClient, config: RegistryConfig) -> str:
    """Id of the configured experiment, created if it does not exist."""
    experiment = active_experiment(client, config)
    if experiment is not None:
        return experiment.experiment_id
    database = sqlite_file(config.tracking_uri)
    # MLflow's default would be ./mlruns of the first process that asks.
    artifacts = None if database is None else (database.parent / ARTIFACTS).as_uri()
    try:
        return client.create_experiment(config.experiment, artifact_location=artifacts)
    except MlflowException:
        experiment = active_experiment(client, config)
        if experiment is None:
            raise
        return experiment.experiment_id  # another run created it meanwhile


def moved_from(experiment: Experiment, database: Path) -> Path | None:
    """The former folder, if the database was moved or copied and still looks for artifacts there; else None."""
    folder = _local(experiment.artifact_location)
    if folder is None or folder.name != ARTIFACTS:
        return None  # an artifact location that a user chose
    return None if os.path.realpath(folder.parent) == os.path.realpath(database.parent) else folder.parent


def check_package(client: MlflowClient, version: ModelVersion, config: RegistryConfig) -> None:
    """Raise a LungsynthError if the champion's version has no generator package to compare with."""
    name = version_name(version, config)
    if "weights_sha256" not in version.tags:
        raise LungsynthError(f"{name} has no generator package: move the alias {config.alias} to one that has")
    there = {Path(file.path).name for file in mlflow.artifacts.list_artifacts(package_uri(version))}
    if not {WEIGHTS, "generator.json"} <= there:
        where = client.get_model_version_download_uri(version.name, version.version)
        uri, alias = shown(mlflow.get_tracking_uri()), f"({config.model_name!r}, {config.alias!r})"
        raise LungsynthError(
            f"the files of {name} are gone: put them back to {_local(where) or where}, or give up this champion by "
            f"`mlflow.MlflowClient({uri!r}).delete_registered_model_alias{alias}` in Python"
        )


def version_name(version: ModelVersion, config: RegistryConfig) -> str:
    """Name of a version in error messages."""
    return f"version {version.version} of {config.model_name} at {shown(config.tracking_uri)}"


def package_uri(version: ModelVersion) -> str:
    """URI of a version's generator package."""
    return f"models:/{version.name}/{version.version}/artifacts/package"


def _check_artifacts(experiment: Experiment, config: RegistryConfig) -> None:
    where = f"MLflow at {shown(config.tracking_uri)}: experiment {config.experiment}"
    database, folder = sqlite_file(config.tracking_uri), _local(experiment.artifact_location)
    if folder is None:
        get_artifact_repository(experiment.artifact_location)  # raises if a library for this store is missing
        return
    if database and (old := moved_from(experiment, database)):
        raise LungsynthError(
            f"{where} keeps its artifacts in {old / ARTIFACTS}, so this project was moved or copied from there: "
            "`lungsynth relocate -c` with this run file makes it keep them beside its database, as before"
        )
    try:
        folder.mkdir(parents=True, exist_ok=True)
        probe = folder / f".probe-{secrets.token_hex(4)}"  # not the process id: pods share folders and process ids
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise LungsynthError(
            f"{where}: its artifacts cannot be written to {folder} ({reason(error)}): make that a folder you may "
            "write, or set another registry.experiment"
        ) from error


def _check_name(client: MlflowClient, config: RegistryConfig) -> None:
    for model in client.search_registered_models(
        f"name = '{config.model_name}' AND tag.`mlflow.prompt.is_prompt` = 'true'"
    ):
        raise LungsynthError(
            f"MLflow at {shown(config.tracking_uri)}: {model.name} is the name of a prompt there: set another "
            "registry.model_name"
        )


def _local(location: str) -> Path | None:
    """Local folder of an artifact location; None if it lies elsewhere."""
    if not is_local_uri(location, is_tracking_or_registry_uri=False):
        return None
    return Path(local_file_uri_to_path(location)).absolute()
