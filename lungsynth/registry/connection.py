"""Connects to the MLflow server or database of the registry, and words its errors."""

import os
import re
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from http.client import HTTPException
from pathlib import Path
from shlex import quote
from urllib.error import HTTPError
from urllib.request import urlopen

import mlflow
from mlflow import MlflowClient
from mlflow.exceptions import MlflowException
from mlflow.tracking.registry import UnsupportedModelRegistryStoreURIException
from mlflow.utils.uri import is_local_uri
from pydantic import Field, field_validator
from sqlalchemy import make_url
from sqlalchemy.exc import ArgumentError, NoSuchModuleError, SQLAlchemyError

from lungsynth.config import Config
from lungsynth.errors import LungsynthError, reason
from lungsynth.progress import on_terminal

SQLITE = re.compile(r"sqlite(\+pysqlite)?:///(?P<file>[^?]+)(?P<options>\?(\w+=[^/&]*&?)+)?", re.DOTALL)
SQLITE_WAIT_S = 20.0
"""Longest wait for another program that locks the database."""
PACKAGES = {
    "psycopg2": "psycopg2-binary",
    "MySQLdb": "mysqlclient",
    "google.cloud": "google-cloud-storage",
    "azure": "azure-storage-blob azure-identity",
}
"""Packages whose module has another name."""
FORMS = "sqlite:///FILE, https://SERVER, or a postgresql://, mysql:// or mssql:// database"


class RegistryConfig(Config):
    """Where runs and model versions are kept."""

    tracking_uri: str = "sqlite:///mlflow.db"
    """MLflow server or database. Beside a SQLite file, artifacts go to `mlartifacts/`; a server keeps its own."""
    experiment: str = Field(
        "gan_augmentation", min_length=1, max_length=500, description="MLflow experiment that holds the runs"
    )
    model_name: str = Field(
        "lung-ct-generator",
        pattern=r"^[\w.-]*[\w-][\w.-]*$",
        max_length=256,
        description="name of the registered model",
    )
    alias: str = Field(
        "champion", pattern=r"^[A-Za-z][\w-]*$", max_length=255, description="alias of the version that is in use"
    )
    track_training: bool = Field(False, description="send the course of a training to the server while it runs")

    @field_validator("alias")
    @classmethod
    def _not_reserved(cls, alias: str) -> str:
        if re.fullmatch(r"latest|v\d+", alias, re.IGNORECASE):
            raise ValueError("latest, and v with a number, are MLflow's own; choose another")
        return alias


@contextmanager
def connect(config: RegistryConfig) -> Iterator[MlflowClient]:
    """Yield a client of the configured server; the process's own tracking URI is restored afterwards."""
    os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", str(on_terminal()).lower())
    before = mlflow.get_tracking_uri() if mlflow.is_tracking_uri_set() else None
    mlflow.set_tracking_uri(answering(config.tracking_uri))
    try:
        yield MlflowClient()
    except (UnsupportedModelRegistryStoreURIException, NoSuchModuleError) as error:
        raise _at(config.tracking_uri, f"registry.tracking_uri is of no kind that MLflow knows: {FORMS}") from error
    except ImportError as error:
        raise _at(config.tracking_uri, missing(error)) from error
    except (MlflowException, SQLAlchemyError, OSError) as error:
        text = one_line(error)
        if "database schema" in text:  # MLflow says the same of older and newer ones
            upgrade = f"mlflow db upgrade {quote(shown(mlflow.get_tracking_uri()))}"
            newer = f"if that fails, it is of a newer MLflow than {mlflow.__version__}"
            text = f"{text.partition('. ')[0]}: back it up and run `{upgrade}`; {newer}"
        raise _at(config.tracking_uri, text) from error
    finally:
        mlflow.set_tracking_uri(before)  # type: ignore[arg-type]  # None unsets it, though its annotation forgets that


def answering(uri: str) -> str:
    """The URI, made absolute if it names a file, after one short request: MLflow would retry a dead server for minutes.

    Raises:
        LungsynthError: there is no such place, or it does not answer.
    """
    if database := sqlite_file(uri):
        _check_readable(database)
        return f"sqlite:///{database}{_parts(uri)['options'] or ''}"
    if is_local_uri(uri):
        raise _at(uri, f"MLflow keeps no registry in a folder any more; set registry.tracking_uri to {FORMS}")
    try:
        if re.match("https?://", uri, re.IGNORECASE):
            urlopen(shown(uri), timeout=10).close()  # it would take a password for a part of the server's name
        elif re.match("(postgresql|mysql|mssql)", uri):
            make_url(uri).get_dialect().import_dbapi()
    except HTTPError as error:  # it answers; what it allows is for MLflow to find out
        error.close()
    except (OSError, HTTPException) as error:
        raise LungsynthError(
            f"MLflow at {shown(uri)} does not answer ({error}): start the server or change registry.tracking_uri"
        ) from error
    except ImportError as error:
        raise _at(uri, missing(error)) from error
    except (ArgumentError, NoSuchModuleError) as error:
        raise _at(uri, f"cannot be read as the address of a database ({one_line(error)}): {FORMS}") from error
    return uri


def sqlite_file(uri: str) -> Path | None:
    """Absolute path of the database that a SQLite URI names; None for other URIs.

    Raises:
        LungsynthError: it names no file, or one that MLflow could not find again.
    """
    if not uri.startswith("sqlite"):
        return None
    name = _parts(uri)["file"]
    path = Path(name).expanduser().absolute()
    if "?" in str(path):
        raise LungsynthError(
            f"{path.parent}: MLflow cannot keep a database below a folder with a question mark: rename the folder, "
            "or name another one by registry.tracking_uri: sqlite:////FOLDER/mlflow.db"
        )
    try:
        str(path).encode()
    except UnicodeEncodeError as error:
        name = str(path.parent).encode("utf-8", "backslashreplace").decode()
        raise LungsynthError(
            f"{name}: MLflow cannot keep a database below a folder whose name is not UTF-8: rename the folder, "
            "or name another one by registry.tracking_uri: sqlite:////FOLDER/mlflow.db"
        ) from error
    return path


def _parts(uri: str) -> re.Match[str]:
    found = SQLITE.fullmatch(uri)
    if found is None or found["file"].startswith((":memory:", "file:")):
        raise _at(
            uri,
            "names no file to keep: set registry.tracking_uri to sqlite:///FILE for one beside the run, to "
            "sqlite:////FOLDER/FILE for an absolute path, which may have no question mark",
        )
    return found


def _check_readable(database: Path) -> None:
    """Refuse a file that MLflow would retry for minutes, and the database of another program."""
    uri = f"sqlite:///{database}"
    if database.is_dir():
        raise _at(uri, f"is a folder; set registry.tracking_uri to a file in it: {uri}/mlflow.db")
    try:
        database.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise _at(uri, f"its folder cannot be made ({reason(error)}); change registry.tracking_uri") from error
    with opened(database) as connection:
        tables = {name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
    if tables - {"alembic_version"} and "experiments" not in tables:
        raise _at(uri, "is the database of another program; set registry.tracking_uri to a file of its own")


@contextmanager
def opened(database: Path) -> Iterator[sqlite3.Connection]:
    """Open the database without MLflow.

    Raises:
        LungsynthError: the file is no database, is locked, or cannot be read or written.
    """
    try:
        with closing(sqlite3.connect(database, timeout=SQLITE_WAIT_S)) as connection:
            yield connection
    except sqlite3.Error as error:
        remedy = "move the file away or change registry.tracking_uri"
        if "locked" in str(error):
            remedy = f"another program has held it for {SQLITE_WAIT_S:g} s; end that and run again"
        elif "readonly" in str(error) or "unable to open" in str(error):
            remedy = "give yourself the right to write file and folder, or change registry.tracking_uri"
        raise _at(f"sqlite:///{database}", f"{error}: {remedy}") from error


def missing(error: ImportError) -> str:
    """Which package to install for a missing module."""
    if not error.name:
        return one_line(error)
    return f"Python's {error.name} is not installed: pip install {PACKAGES.get(error.name, error.name)}"


def one_line(error: Exception) -> str:
    """First line of an error without passwords, three if that ends in a colon; the class name if it is empty."""
    lines = [text for line in str(error).splitlines() if (text := line.strip("# \t"))]
    announced = len(lines) > 1 and lines[0].endswith(":")
    return shown(" ".join(lines[: 3 if announced else 1]).rstrip(": ")) or type(error).__name__


def shown(text: str) -> str:
    """The text with user names and passwords removed from its URIs."""
    return re.sub(r"(\w://)[^/\s]*@", r"\1", text)


def _at(uri: str, problem: str) -> LungsynthError:
    return LungsynthError(f"MLflow at {shown(uri) or 'an empty address'}: {problem}")
