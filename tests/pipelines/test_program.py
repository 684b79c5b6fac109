"""`python gan_augmentation.py`: which run file it takes, and what it says where nothing can be kept."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from pipelines.checked import DEFAULT_CONFIG, CheckedPipeline
from pipelines.folders import check_home
from pipelines.gan_augmentation import gan_augmentation


@pytest.fixture
def run_with(monkeypatch):
    """Runs the program with these arguments; gives the run files with which it would have run."""

    def run(*arguments: str) -> list[str | None]:
        taken = []

        def with_options(pipeline, *, config_path):
            taken.append(config_path)
            return lambda: None

        monkeypatch.setattr(CheckedPipeline, "with_options", with_options)
        monkeypatch.setattr(sys, "argv", ["gan_augmentation.py", *arguments])
        gan_augmentation.main()
        return taken

    return run


@pytest.mark.parametrize(
    ("arguments", "taken"),
    [((), None), (("-c", "a.yaml"), "a.yaml"), (("--config", "a.yaml"), "a.yaml"), (("--config=a.yaml",), "a.yaml")],
)
def test_the_program_takes_a_run_file_as_zenml_does(run_with, arguments, taken):
    assert run_with(*arguments) == [taken]
    assert DEFAULT_CONFIG.name == "demo.yaml"


@pytest.mark.parametrize(
    "arguments", [("a.yaml",), ("--stack", "gpu"), ("-c",), ("--conf", "a.yaml"), ("-c", "a", "b")]
)
def test_other_arguments_are_refused(run_with, capsys, arguments):
    with pytest.raises(SystemExit) as ended:
        run_with(*arguments)
    assert ended.value.code == 2
    assert capsys.readouterr().err.startswith("usage: gan_augmentation.py [-h] [-c FILE]")


def test_the_file_that_was_named_is_read(tmp_path):
    with pytest.raises(SystemExit, match=r"^error: .*nowhere\.yaml: cannot be read: No such file or directory$"):
        gan_augmentation.with_options(config_path=str(tmp_path / "nowhere.yaml"))


def test_a_full_disk_for_the_temporary_file_is_one_line(monkeypatch, tmp_path):
    def full(**_):
        raise OSError(28, os.strerror(28))

    monkeypatch.setattr("pipelines.checked.tempfile.mkstemp", full)
    (tmp_path / "run.yaml").write_text(f"parameters: {{cohort: {{source: phantom}}, outputs: {tmp_path}}}")
    with pytest.raises(SystemExit, match=r"^error: no temporary file can be written \(No space left on device\): free"):
        gan_augmentation.with_options(config_path=str(tmp_path / "run.yaml"))


def test_an_unwritable_home_is_one_line(project, tmp_path):
    (tmp_path / "home").write_text("a file where the folder should be")
    hidden = ("ZENML_CONFIG_PATH", "ZENML_REPOSITORY_PATH", "XDG_CONFIG_HOME")
    environment = {name: value for name, value in os.environ.items() if name not in hidden}
    done = subprocess.run(
        [sys.executable, "gan_augmentation.py"],
        cwd=project,
        env=environment | {"HOME": str(tmp_path / "home")},
        text=True,
        capture_output=True,
    )
    assert done.returncode == 1
    assert done.stderr.startswith(f"error: ZenML's folder {tmp_path / 'home'}")
    assert done.stderr.endswith(
        "cannot be written (Not a directory); set the environment variable ZENML_CONFIG_PATH to another\n"
    )
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize("name", ["ZENML_CONFIG_PATH", "XDG_CONFIG_HOME"])
def test_other_ways_to_name_zenmls_folder_are_checked_too(monkeypatch, tmp_path, name):
    (tmp_path / "file").touch()
    monkeypatch.delenv("ZENML_CONFIG_PATH")
    monkeypatch.setenv(name, str(tmp_path / "file"))
    with pytest.raises(SystemExit, match=r"^error: ZenML's folder .*file.* cannot be written"):
        check_home()


def test_an_unwritable_repository_is_one_line(monkeypatch, tmp_path):
    (tmp_path / ".zen").mkdir()
    monkeypatch.setenv("ZENML_REPOSITORY_PATH", str(tmp_path))
    check_home()

    def refuse(path: Path) -> None:
        raise OSError(30, os.strerror(30))

    monkeypatch.setattr(Path, "touch", lambda path: refuse(path) if ".zen" in path.parts else None)
    monkeypatch.setattr(Path, "unlink", lambda path: None)
    with pytest.raises(SystemExit, match=r"\.zen cannot be written \(Read-only file system\); run in a copy"):
        check_home()
