"""`lungsynth …` as a user or a Kubernetes Job runs it."""

import json
import sys
from pathlib import Path
from subprocess import CompletedProcess

import pytest
import yaml
from click.testing import CliRunner
from warm import run_warm

from lungsynth.cli import main
from lungsynth.dataset.store import SliceDataset


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> Path:
    """A folder with a run file of a small phantom cohort."""
    folder = tmp_path_factory.mktemp("cli")
    parameters = {
        "cohort": {"source": "phantom", "patients": 6, "matrix": 128, "slices": [20, 22]},
        "splits": {"method": "ranked"},
        "slices": {"size": 32, "workers": 1, "patients_per_shard": 3, "masks": True},
        "generator": {"size": 32},
    }
    (folder / "run.yaml").write_text(yaml.safe_dump({"parameters": parameters}))
    return folder


@pytest.fixture(scope="module")
def run(place):
    def run(*arguments: object, **environment: str) -> CompletedProcess[str]:
        own = {"PATH": str(Path(sys.executable).parent), "OMP_NUM_THREADS": "1"}
        return run_warm("lungsynth", [str(part) for part in arguments], folder=place, environment=own | environment)

    return run


def test_a_preview_names_no_patient_and_fetches_nothing(run, place):
    done = run("cohort", "-c", "run.yaml", "--save", "cohort")
    assert done.returncode == 0, done.stderr
    assert "simulated CT series" in done.stdout
    assert "nothing has been fetched" in done.stdout
    assert "PHANTOM" not in done.stdout
    assert sorted(path.name for path in place.iterdir()) == ["cohort", "run.yaml"]


def test_pods_of_an_indexed_job_build_what_the_run_needs(run, place):
    for index in ("0", "1"):
        pod = run("build-shard", "-c", "run.yaml", "--cohort", "cohort", "--count", "2", JOB_COMPLETION_INDEX=index)
        assert pod.returncode == 0, pod.stderr
        assert f"shard {index} of 2: " in pod.stderr
    again = run("build-shard", "-c", "run.yaml", "--index", "0")
    assert "was there already" in again.stderr
    whole = run("slices", "-c", "run.yaml", "--cohort", "cohort")
    assert whole.returncode == 0, whole.stderr
    assert "in 2 shards (2 of them were there)" in whole.stderr
    folder = place / whole.stdout.strip()
    assert {"contact_sheet.png", "rejected.png", "histograms.png"} < {path.name for path in folder.iterdir()}
    assert len(SliceDataset(folder).images) > 30


def test_lungs_are_learnt_from_the_masks_of_a_dataset(run, place):
    [dataset] = (place / "data" / "slices" / "datasets").iterdir()
    done = run("train-lungs", dataset, "unet", "--steps", "3")
    assert done.returncode == 0, done.stderr
    assert "Dice" in done.stdout
    content = yaml.safe_load((place / "run.yaml").read_text())
    content["parameters"]["slices"]["lungs"] = {"backend": "unet", "weights": "unet", "fallback": "threshold"}
    (place / "unet.yaml").write_text(yaml.safe_dump(content))
    built = run("slices", "-c", "unet.yaml")
    assert built.returncode == 0, built.stderr
    notes = SliceDataset(place / built.stdout.strip()).series["notes"]
    assert notes.str.contains("lungs by threshold, as unet failed").any()  # three steps teach nothing


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["cohort", "-c", "nowhere.yaml"], "nowhere.yaml: cannot be read"),
        (["build-shard", "-c", "run.yaml", "--index", "5"], "there is no shard 5 of 2: count them from 0"),
        (["train-lungs", "cohort", "unet"], "cohort is no slice dataset"),
        (["slices", "-c", "misspelt.yaml"], "slices.sise: is unknown; did you mean size?"),
    ],
)
def test_what_is_wrong_is_one_line(place, arguments, message, monkeypatch):
    monkeypatch.chdir(place)
    (place / "misspelt.yaml").write_text(
        json.dumps({"parameters": {"cohort": {"source": "phantom"}, "slices": {"sise": 1}}})
    )
    done = CliRunner().invoke(main, arguments)
    assert done.exit_code == 1
    assert isinstance(done.exception, SystemExit)
    assert message in done.stderr
    assert done.stderr.startswith("Error: ")
    assert done.stderr.count("\n") == 1
