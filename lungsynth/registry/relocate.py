"""Repairs the database of a moved or copied project: MLflow stores absolute paths of artifacts."""

from lungsynth.errors import LungsynthError
from lungsynth.registry.check import ARTIFACTS, active_experiment, moved_from
from lungsynth.registry.connection import RegistryConfig, connect, opened, sqlite_file

COLUMNS = (
    ("experiments", "artifact_location"),
    ("runs", "artifact_uri"),
    ("logged_models", "artifact_location"),
    ("model_versions", "source"),
    ("model_versions", "storage_location"),
)
"""Tables and columns of MLflow's database that hold artifact paths."""


def relocate(config: RegistryConfig) -> str:
    """Point the database to the artifacts in `mlartifacts` beside it; returns one line that says what was done.

    Raises:
        LungsynthError: the registry is no SQLite database, or the artifacts are not beside it.
    """
    database = sqlite_file(config.tracking_uri)
    if database is None or not database.exists():
        raise LungsynthError(f"{database or 'a server'}: only a SQLite database that is there can be relocated")
    with connect(config) as client:
        experiment = active_experiment(client, config)
        old = moved_from(experiment, database) if experiment else None
    here = database.parent / ARTIFACTS
    if old is None:
        return f"{database} looks for its artifacts in the right place; nothing was changed"
    if not here.is_dir():
        raise LungsynthError(f"{here} is not there: copy it from {old / ARTIFACTS} first")
    before, after = (old / ARTIFACTS).as_uri(), here.as_uri()
    with opened(database) as connection, connection:  # one transaction
        for table, column in COLUMNS:
            connection.execute(
                f"UPDATE {table} SET {column} = ? || substr({column}, ?) "
                f"WHERE {column} = ? OR substr({column}, 1, ?) = ?",
                (after, len(before) + 1, before, len(before) + 1, before + "/"),
            )
    return f"{database} looks for its artifacts in {here} from now on, no longer in {old / ARTIFACTS}"
