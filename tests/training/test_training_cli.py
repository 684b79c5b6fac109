"""`python -m lungsynth.training` on a machine that has torch alone."""

import shutil
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
import yaml
from brief_run import halves
from safetensors.numpy import save_file

from lungsynth.dataset.store import COLUMNS, SliceDataset, SliceMeta
from lungsynth.errors import LungsynthError
from lungsynth.generators.package import GeneratorPackage
from lungsynth.training import TrainingRun, train_generator
from lungsynth.training import __main__ as cli
from lungsynth.training.read import read

TRAINING = {"kimg": 0.1, "batch": 16, "device": "cpu", "threads": 1, "monitor": {"images": 20}}
PARAMETERS = {
    "cohort": {"source": "phantom"},
    "slices": {"size": 32},
    "generator": {"family": "dcgan", "size": 32, "nz": 8, "ngf": 8, "ndf": 8},
    "training": TRAINING,
}
BLOCKED = """
import runpy, sys
for name in ("zenml", "mlflow", "pydicom", "pandas", "torchvision", "sklearn", "scipy", "rich", "pyarrow", "cv2"):
    sys.modules[name] = None
runpy.run_module("lungsynth.training", run_name="__main__", alter_sys=True)
"""


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder with a run file, and the slices as a dataset's folder and as arrays."""
    folder = tmp_path_factory.mktemp("cli")
    (folder / "run.yaml").write_text(yaml.safe_dump({"parameters": PARAMETERS}))
    images, labels = halves()
    splits = np.array(["train", "train", "val", "test"])[np.arange(len(labels)) % 7 % 4]
    table = pd.DataFrame({name: pd.Series([0] * len(labels)).astype(kind) for name, kind in COLUMNS.items()})
    table = table.assign(label=np.array(["non-cancer", "cancer"])[labels], split=splits)
    SliceDataset.write(folder / "set", images, table, meta=SliceMeta(32, (-1350.0, 150.0), "abc"))
    np.savez(
        folder / "set.npz", images=images, labels=labels, splits=[["train", "val", "test"].index(s) for s in splits]
    )
    return folder


def run(monkeypatch, *arguments):
    monkeypatch.setattr(sys, "argv", ["training", *map(str, arguments)])
    return cli.main()


def test_trains_where_the_pipeline_stack_is_missing_as_the_step_does(place, tmp_path):
    command = [sys.executable, "-c", BLOCKED, "-c", place / "run.yaml", "--data", place / "set"]
    done = subprocess.run(
        [*command, "--out", tmp_path / "package", "--checkpoints", tmp_path / "checkpoints"],
        text=True,
        capture_output=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout == f"{tmp_path / 'package'}\n"
    assert "\r" not in done.stderr  # no bar where there is no terminal

    package, dataset = GeneratorPackage(tmp_path / "package"), SliceDataset(place / "set")
    assert package.card.data_sha256 == dataset.sha256
    assert package.window_hu == (-1350, 150)
    sections = cli.training_sections(place / "run.yaml", cli.load(place / "run.yaml"))
    data = read(place / "set")
    again = train_generator(
        TrainingRun(
            data.of("train"),
            data.of("val"),
            window_hu=dataset.meta.window_hu,
            data_sha256=dataset.sha256,
            generator=sections.generator,
            training=sections.training,
            folder=tmp_path / "again",
            checkpoints=tmp_path / "checkpoints",
        )
    )
    assert again.sha256 == package.sha256


def test_the_folder_reads_as_the_dataset(place):
    data, dataset = read(place / "set"), SliceDataset(place / "set")
    assert (data.classes, data.window_hu, data.sha256) == (dataset.meta.classes, dataset.meta.window_hu, dataset.sha256)
    assert np.array_equal(data.labels, dataset.labels)
    for split in ("train", "val", "test"):
        assert data.of(split).rows.tolist() == dataset.rows(split).tolist()
        assert np.array_equal(data.of(split).take(np.arange(3))[:, 0], dataset.images[dataset.rows(split)[:3]])


def test_arrays_of_ones_own(place, tmp_path, monkeypatch, capsys):
    assert run(monkeypatch, "-c", place / "run.yaml", "--data", place / "set.npz", "--out", tmp_path / "package") == 0
    assert capsys.readouterr().out == f"{tmp_path / 'package'}\n"
    assert GeneratorPackage(tmp_path / "package").window_hu is None
    data, folder = read(place / "set.npz"), read(place / "set")
    for split in ("train", "val", "test"):
        assert data.of(split).rows.tolist() == folder.of(split).rows.tolist()
    assert data.sha256 != folder.sha256


def change(place, tmp_path, section, **fields):
    parameters = PARAMETERS | {section: PARAMETERS.get(section, {}) | fields}
    (tmp_path / "run.yaml").write_text(yaml.safe_dump({"parameters": parameters}))
    return tmp_path / "run.yaml"


@pytest.mark.parametrize(
    ("section", "fields", "says"),
    [
        ("training", {"kimgs": 3}, "run.yaml: parameters.training.kimgs: is unknown; did you mean kimg?"),
        ("trainin", {"kimg": 3}, "run.yaml: parameters.trainin: is unknown; did you mean training?"),
        ("generator", {"family": "dcgam"}, "'dcgam' is no family of generators"),
        ("generator", {"size": 64}, "need uint8 N×64×64"),
        ("generator", {"classes": ["a", "b"]}, "generator.classes are a, b and the slices' non-cancer, cancer"),
    ],
)
def test_a_wrong_run_file_is_one_clear_line(place, tmp_path, monkeypatch, capsys, section, fields, says):
    path = change(place, tmp_path, section, **fields)
    assert run(monkeypatch, "-c", path, "--data", place / "set", "--out", tmp_path / "package") == 1
    found = capsys.readouterr()
    assert found.out == ""
    assert found.err.startswith("error: ")
    assert says in found.err
    assert found.err.count("\n") == 1


def test_data_that_cannot_be_read_are_one_clear_line(place, tmp_path):
    (tmp_path / "empty").mkdir()
    (tmp_path / "wrong.npz").write_bytes(b"no archive")
    np.savez(tmp_path / "half.npz", images=np.zeros((2, 32, 32), np.uint8))
    old = SliceDataset.write(
        tmp_path / "old", halves()[0][:4], SliceDataset(place / "set").table[:4], meta=SliceMeta(32, None, "")
    )
    shutil.copytree(old.folder, tmp_path / "broken")
    (tmp_path / "broken" / "dataset.json").write_text("{}")
    shutil.copytree(old.folder, tmp_path / "short")
    save_file({"labels": np.zeros(3), "splits": np.zeros(3)}, tmp_path / "short" / "labels.safetensors")
    (old.folder / "labels.safetensors").unlink()
    for name, says in (
        ("absent", "is not there"),
        ("empty", "is no slice dataset"),
        ("old", "older than this library; build it again"),
        ("broken", "is no slice dataset: cannot read dataset.json"),
        ("short", "has 3 labels of 4 slices; build the slices again"),
        ("wrong.npz", "is no .npz file of numbers, or damaged"),
        ("half.npz", "has no array labels"),
    ):
        with pytest.raises(LungsynthError, match=says) as error:
            read(tmp_path / name)
        assert name in str(error.value)
        assert "\n" not in str(error.value)


def test_an_output_folder_that_cannot_be_made_is_named_first(place, tmp_path, monkeypatch, capsys):
    (tmp_path / "taken").write_text("a file where the folder should be")
    assert run(monkeypatch, "-c", place / "run.yaml", "--data", place / "set", "--out", tmp_path / "taken" / "new") == 1
    assert "cannot be made" in capsys.readouterr().err


def test_labels_without_a_class_are_one_clear_line(place, tmp_path, monkeypatch, capsys):
    images, labels = halves()
    np.savez(tmp_path / "three.npz", images=images, labels=labels + (np.arange(len(labels)) % 5 == 0))
    assert run(monkeypatch, "-c", place / "run.yaml", "--data", tmp_path / "three.npz", "--out", tmp_path / "new") == 1
    error = capsys.readouterr().err
    assert "generator.classes are non-cancer, cancer, and the labels go from 0 to 2: name a class for each" in error
    assert error.count("\n") == 1
