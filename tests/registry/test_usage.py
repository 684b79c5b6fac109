"""The lines that a run prints for its generator work by copy and paste from any folder, whatever the path is called."""

import os
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import mlflow
import numpy as np
import pytest
import yaml
from click.testing import CliRunner

from lungsynth.cli import main
from lungsynth.errors import LungsynthError
from lungsynth.registry.check import check_registry
from lungsynth.registry.connection import RegistryConfig
from lungsynth.registry.mlflow_registry import Registration, find_champion, register
from lungsynth.registry.relocate import relocate
from lungsynth.report.usage import usage

pytestmark = [
    pytest.mark.filterwarnings("ignore:.*Any type hint is inferred as AnyType:UserWarning"),  # at MLflow's own import
    pytest.mark.filterwarnings("ignore:Operation with range is deprecated"),  # MLflow's input example, pandas 3
]
ODD = ["ä b#c%20d", "100%", "line\nbreak", "quo'te\" back\\slash", " ;&=@:$HOME "]
CLASSES = ["non-cancer", "cancer"]


@pytest.fixture
def run_in(make_config, make_package, make_verdict, scorecard, tmp_path, monkeypatch):
    """Registers a generator from a new folder of this name, with the default tracking URI; the folder and what came."""

    def run(name: str) -> tuple[Path, Registration]:
        folder = tmp_path / name
        folder.mkdir()
        make_config(folder)  # MLflow's tables take seconds to create
        monkeypatch.chdir(folder)
        config = RegistryConfig()
        check_registry(config)
        package = make_package(tmp_path / "package", seed=1)
        found = register(
            package, scorecard, make_verdict(), champion=None, data_sha256="d", code_version="0", config=config
        )
        monkeypatch.chdir(tmp_path)
        return folder, found

    return run


def environment() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if not name.startswith("MLFLOW_")}


def test_the_printed_lines_draw_slices_in_another_folder(run_in, tmp_path):
    _, registration = run_in(ODD[0])
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    lines = usage(registration, CLASSES) + "\nprint(slices.dtype, slices.shape)\n"
    done = subprocess.run(
        [sys.executable, "-I", "-"], input=lines, cwd=elsewhere, env=environment(), capture_output=True, text=True
    )
    assert done.stdout == "uint8 (2, 32, 32)\n", done.stderr
    assert list(elsewhere.iterdir()) == []


@pytest.mark.parametrize("name", ODD)
def test_every_name_of_a_folder_keeps_its_files_together(name, run_in, tmp_path):
    folder, registration = run_in(name)
    assert {path.name for path in folder.iterdir()} == {"mlflow.db", "mlartifacts"}
    assert {path.name for path in tmp_path.iterdir()} == {name, "package"}
    typed: list[str] = []
    (line,) = (line for line in usage(registration, CLASSES).splitlines() if "set_tracking_uri" in line)
    exec(line, {"mlflow": SimpleNamespace(set_tracking_uri=typed.append)})
    assert len(mlflow.MlflowClient(typed[0]).search_model_versions("name = 'lung-ct-generator'")) == 1


@pytest.mark.parametrize("name", ["what?", "?", os.fsdecode(b"\xff")])
def test_a_folder_that_mlflow_cannot_name_is_an_error_before_any_work(name, tmp_path, monkeypatch):
    (tmp_path / name).mkdir()
    monkeypatch.chdir(tmp_path / name)
    with pytest.raises(
        LungsynthError, match=r"MLflow cannot keep a database below a folder .*: rename the folder"
    ) as found:
        check_registry(RegistryConfig())
    assert str(found.value).isprintable()
    assert [path.name for path in tmp_path.iterdir()] == [name]
    assert list(tmp_path.rglob("*")) == [tmp_path / name]


def test_a_generator_without_a_version_has_no_lines():
    registration = Registration(
        tracking_uri="sqlite:////x", run_id="r", model_name="m", version=None, alias=None, message="none"
    )
    assert usage(registration, CLASSES) == ""
    third = registration.model_copy(update={"version": 3})
    assert 'load_model("models:/m/3")' in usage(third, CLASSES)


@pytest.mark.parametrize("how", [shutil.move, shutil.copytree])
def test_a_moved_or_copied_project_is_recognised_and_relocated(how, run_in, make_package, tmp_path):
    original, _ = run_in("first #1")
    moved = tmp_path / "moved ü %20"
    how(original, moved)
    before = {path: path.stat().st_mtime_ns for path in original.rglob("*")}
    config = RegistryConfig(tracking_uri=f"sqlite:///{moved}/mlflow.db")
    challenger = make_package(tmp_path / "challenger", seed=2)
    recognised = pytest.raises(
        LungsynthError, match=r"moved or copied from there: `lungsynth relocate -c` with this run"
    )
    with recognised:
        check_registry(config)
    with recognised:
        find_champion(config, challenger, "classification", folder=tmp_path / "champion")
    (tmp_path / "run.yaml").write_text(
        yaml.safe_dump({"parameters": {"cohort": {"source": "phantom"}, "registry": config.model_dump()}})
    )
    done = CliRunner().invoke(main, ["relocate", "-c", str(tmp_path / "run.yaml")])
    assert "from now on" in done.stdout, done.output
    assert "nothing was changed" in relocate(config)

    check_registry(config)
    champion = find_champion(config, challenger, "classification", folder=tmp_path / "champion")
    assert champion.package.sample(np.array([0, 1]), 3).shape == (2, 32, 32)
    places = {run.info.artifact_uri for run in mlflow.MlflowClient(config.tracking_uri).search_runs(["1"])}
    assert all(place.startswith((moved / "mlartifacts").as_uri()) for place in places)
    assert {path: path.stat().st_mtime_ns for path in original.rglob("*")} == before


def test_only_what_lies_beside_its_database_is_relocated(run_in, tmp_path):
    original, _ = run_in("first")
    (tmp_path / "alone").mkdir()
    shutil.copy(original / "mlflow.db", tmp_path / "alone")
    with pytest.raises(LungsynthError, match=r"alone/mlartifacts is not there: copy it from .*first/mlartifacts first"):
        relocate(RegistryConfig(tracking_uri=f"sqlite:///{tmp_path}/alone/mlflow.db"))
    with pytest.raises(LungsynthError, match="only a SQLite database that is there"):
        relocate(RegistryConfig(tracking_uri="http://127.0.0.1:9"))


def test_a_folder_reached_by_a_link_has_not_moved(run_in, tmp_path):
    original, _ = run_in("first")
    (tmp_path / "link").symlink_to(original)
    check_registry(RegistryConfig(tracking_uri=f"sqlite:///{tmp_path}/link/mlflow.db"))
