"""What `register` needs is looked at before anything trains, and what is wrong is one line that says what to do."""

import logging
import shlex
import shutil
import sqlite3
from contextlib import closing
from pathlib import Path

import mlflow
import pytest
from click.testing import CliRunner
from mlflow import MlflowClient
from mlflow.exceptions import MlflowException
from pydantic import ValidationError

from lungsynth.errors import LungsynthError
from lungsynth.registry import connection
from lungsynth.registry.check import check_registry
from lungsynth.registry.connection import RegistryConfig, connect, one_line
from lungsynth.registry.history import history
from lungsynth.registry.mlflow_registry import check_champion, find_champion, register

pytestmark = [
    pytest.mark.filterwarnings("ignore:.*Any type hint is inferred as AnyType:UserWarning"),  # at MLflow's own import
    pytest.mark.filterwarnings("ignore:Operation with range is deprecated"),  # MLflow's input example, pandas 3
]


def refused(config: RegistryConfig, says: str) -> str:
    """The one line by which both the check and `lungsynth history` refuse, as before any work."""
    with pytest.raises(LungsynthError, match=says) as caught:
        check_registry(config)
    line = str(caught.value)
    assert "\n" not in line
    assert not line.rstrip().endswith(":")
    return line


@pytest.mark.parametrize(
    ("uri", "says"),
    [
        (
            "postgresql://ann:secret@host/db",
            "MLflow at postgresql://host/db: Python's psycopg2 .* install psycopg2-binary$",
        ),
        ("mysql://ann:secret@host/db", "MLflow at mysql://host/db: Python's MySQLdb .* pip install mysqlclient$"),
        ("mssql+pyodbc://host/db", "Python's pyodbc is not installed: pip install pyodbc$"),
        ("postgresql:/host", "cannot be read as the address of a database"),
        ("sqllite:///x.db", "is of no kind that MLflow knows: sqlite:///FILE, https://SERVER, or"),
        ("s3://bucket/mlflow", "is of no kind that MLflow knows"),
        ("SQLITE:///x.db", "is of no kind that MLflow knows"),
        ("sqlite:/x.db", "names no file to keep"),
        ("sqlite:///", "names no file to keep"),
        ("sqlite:///:memory:", "names no file to keep"),
        ("sqlite:///a?b/x.db", "names no file to keep: .* may have no question mark$"),
        ("mlruns", "keeps no registry in a folder any more"),
        ("file:///mlruns", "keeps no registry in a folder any more"),
        ("", "MLflow at an empty address: "),
        ("HTTP://127.0.0.1:9", "does not answer"),
    ],
)
def test_an_address_that_cannot_be_is_one_line(uri, says, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    line = refused(RegistryConfig(tracking_uri=uri), says)
    assert "secret" not in line
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "fields",
    [
        {"alias": "latest"},
        {"alias": "Latest"},
        {"alias": "v3"},
        {"alias": "a" * 256},
        {"model_name": "m" * 257},
        {"model_name": ".."},
        {"experiment": "e" * 501},
    ],
)
def test_names_that_mlflow_would_refuse_are_refused_with_the_run_file(fields):
    with pytest.raises(ValidationError):
        RegistryConfig(**fields)


def test_a_registry_that_is_ready_is_left_as_it_is(config, tmp_path):
    for _ in range(2):
        check_registry(config)
    assert MlflowClient(config.tracking_uri).get_experiment_by_name(config.experiment).artifact_location == (
        (tmp_path / "mlartifacts").as_uri()
    )
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["mlartifacts", "mlflow.db"]


def test_a_home_in_the_address_is_the_users(empty_database, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    shutil.copy(empty_database, tmp_path / "mlflow.db")
    check_registry(RegistryConfig(tracking_uri="sqlite:///~/mlflow.db?timeout=3"))
    assert (tmp_path / "mlartifacts").is_dir()


def _text(path: Path) -> None:
    path.write_text("no database " * 500)


def _folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


def _cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:5000])


def _other_program(path: Path) -> None:
    path.unlink()
    _sql(path, "CREATE TABLE patients (name TEXT)")


def _other_schema(path: Path) -> None:
    _sql(path, "UPDATE alembic_version SET version_num = '0123456789ab'")


def _sql(path: Path, statement: str) -> None:
    with closing(sqlite3.connect(path)) as database, database:
        database.execute(statement)


@pytest.mark.parametrize(
    ("spoil", "says"),
    [
        (_text, "file is not a database: move the file away or"),
        (_folder, "is a folder; set registry.tracking_uri to a file in it: "),
        (_cut, "malformed: move the file away or"),
        (_other_program, "is the database of another program"),
        (_other_schema, r"schema \(found version .*\): back it up and run `mlflow db upgrade sqlite:////.*`; if that"),
    ],
)
def test_a_database_that_is_none_of_mlflows_is_one_line_and_unchanged(spoil, says, config, tmp_path):
    path = tmp_path / "mlflow.db"
    spoil(path)
    before = path.is_file() and path.read_bytes()
    assert refused(config, says)
    with pytest.raises(LungsynthError, match=says):
        history(config, last=1)
    assert (path.is_file() and path.read_bytes()) == before


def test_a_locked_database_is_one_line_that_comes_soon(config, tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(connection, "SQLITE_WAIT_S", 0.1)
    with closing(sqlite3.connect(tmp_path / "mlflow.db")) as other, caplog.at_level(logging.ERROR):
        other.execute("BEGIN IMMEDIATE")  # others may read
        refused(config, r"database is locked: another program has held it for 0\.1 s; end that and run again$")
        other.rollback()
        other.execute("BEGIN EXCLUSIVE")
        refused(config, "database is locked")
    assert caplog.records == []


def test_a_database_that_may_only_be_read_is_one_line_but_for_its_history(config, monkeypatch):
    connecting = sqlite3.connect

    def read_only(path, **options):
        return connecting(f"file:{path}?mode=ro", uri=True, **options)

    monkeypatch.setattr(connection.sqlite3, "connect", read_only)
    assert history(config, last=1) == []
    with pytest.raises(LungsynthError, match="readonly database: give yourself the right to write file and folder"):
        check_registry(config)


def test_an_experiment_in_the_trash_is_named_and_the_command_restores_it(config, monkeypatch):
    check_registry(config)
    client = MlflowClient(config.tracking_uri)
    client.delete_experiment(client.get_experiment_by_name(config.experiment).experiment_id)
    line = refused(config, "experiment gan_augmentation is in the trash: restore it by `")
    with pytest.raises(LungsynthError, match="is in the trash"):
        history(config, last=1)

    setting, *command = shlex.split(line.split("`")[1])
    name, _, value = setting.partition("=")
    monkeypatch.setenv(name, value)
    from mlflow.cli import cli

    assert command[0] == "mlflow"
    assert CliRunner().invoke(cli, command[1:]).exit_code == 0
    monkeypatch.delenv(name)
    check_registry(config)


@pytest.mark.parametrize("spoil", ["file", "dangling link"])
def test_artifacts_that_cannot_be_written_are_one_line(spoil, config, tmp_path):
    folder = tmp_path / "mlartifacts"
    if spoil == "file":
        folder.write_text("")
    else:
        folder.symlink_to("/proc/none/of/it")
    refused(config, f"its artifacts cannot be written to {folder} \\(.*\\): make that a folder")


@pytest.mark.parametrize(
    ("location", "says"),
    [("gs://bucket/x", "pip install google-cloud-storage$"), ("foo://x", "Could not find a registered")],
)
def test_a_store_of_artifacts_that_nothing_here_can_write_is_one_line(location, says, config):
    MlflowClient(config.tracking_uri).create_experiment("elsewhere", artifact_location=location)
    refused(config.model_copy(update={"experiment": "elsewhere"}), says)


def test_an_experiment_that_keeps_its_artifacts_elsewhere_has_not_moved(config, tmp_path):
    MlflowClient(config.tracking_uri).create_experiment("own", artifact_location=str(tmp_path / "own" / "place"))
    check_registry(config.model_copy(update={"experiment": "own"}))
    assert (tmp_path / "own" / "place").is_dir()


def test_a_name_that_a_prompt_has_is_one_line(config):
    with connect(config):
        mlflow.genai.register_prompt("greeting", "Hello")
    refused(config.model_copy(update={"model_name": "greeting"}), "greeting is the name of a prompt there: set another")


def test_a_champion_of_another_kind_is_refused_before_a_training(config, make_package, tmp_path):
    client = MlflowClient(config.tracking_uri)
    client.create_registered_model("lung-ct-generator")
    client.create_model_version("lung-ct-generator", str(tmp_path))
    client.set_registered_model_alias("lung-ct-generator", "champion", "1")
    with pytest.raises(LungsynthError, match=r"version 1 of lung-ct-generator .* has no generator package: move the"):
        check_champion(config, make_package(tmp_path / "new", seed=1).card, "classification")


@pytest.mark.parametrize("lost", ["mlartifacts", "weights.safetensors"])
def test_a_champion_whose_files_are_gone_is_one_line_with_a_way_on(
    lost, config, make_package, make_verdict, scorecard, tmp_path
):
    package = make_package(tmp_path / "first", seed=1)
    register(package, scorecard, make_verdict(), champion=None, data_sha256="d", code_version="0", config=config)
    for path in [path for path in tmp_path.rglob(lost) if "first" not in path.parts]:
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    rival = make_package(tmp_path / "rival", seed=2)
    line = refused(
        config, "the files of version 1 of lung-ct-generator at .* are gone: put them back to /.*, or give up"
    )
    with pytest.raises(LungsynthError, match="are gone"):
        check_champion(config, rival.card, "classification")
    eval(line.split("`")[1], {"mlflow": mlflow})
    check_champion(config, rival.card, "classification")
    assert find_champion(config, rival, "classification", folder=tmp_path / "champion") is None


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (MlflowException(""), "MlflowException"),
        (OSError(), "OSError"),
        (
            MlflowException("It failed:\n##### File a.json #####\nNo such file\nmore"),
            "It failed: File a.json No such file",
        ),
        (MlflowException("It failed:"), "It failed"),
        (MlflowException("\n\nat http://ann:secret@host/api\nmore"), "at http://host/api"),
    ],
)
def test_an_errors_line_says_something(error, line, config):
    assert one_line(error) == line
    with pytest.raises(LungsynthError, match=f": {line}$"), connect(config):
        raise error
