"""`zenml pipeline run gan_augmentation` as a user runs it, on phantoms: results, caching, repeatability, failures."""

import json
import re
import subprocess
import sys
from pathlib import Path

import mlflow
import pandas as pd
import pytest
import yaml

from lungsynth.evaluation.quantities import COMPARED
from lungsynth.evaluation.scorecard import Metric, Scorecard
from lungsynth.generators.dcgan import DcganConfig, Generator
from lungsynth.generators.package import GeneratorCard, GeneratorPackage
from lungsynth.registry.connection import RegistryConfig
from lungsynth.registry.mlflow_registry import register
from lungsynth.registry.tracking import TAG
from lungsynth.verdict.record import Verdict

TINY = Path(__file__).with_name("tiny.yaml")
RESULTS = {
    "report.html",
    "verdict.json",
    "scorecard.json",
    "cohort.parquet",
    "samples.png",
    "progress.gif",
    "interpolation.png",
    "training.png",
    "real_beside_synthetic.png",
    "config.yaml",
}
CACHED = ("train_generator", "train_extractor", "measure_fidelity", "audit_privacy", "measure_utility")


@pytest.fixture(scope="module")
def first(project, zenml_environment):
    """The first run, in a process as a user's, and its folder of results."""
    command = [str(Path(sys.executable).with_name("zenml")), "pipeline", "run", "gan_augmentation", "-c", str(TINY)]
    done = subprocess.run(
        command, cwd=project, env=zenml_environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    assert done.returncode == 0, done.stdout
    return done, (project / "outputs" / "latest").resolve()


def _run_with(project: Path, run_pipeline, **parameters):
    content = yaml.safe_load(TINY.read_text())
    for section, fields in parameters.items():
        content["parameters"][section] = content["parameters"].get(section, {}) | fields
    path = project / "changed.yaml"
    path.write_text(yaml.safe_dump(content))
    return run_pipeline("-c", str(path))


def test_a_run_leaves_one_folder_of_results(first):
    done, folder = first
    assert {path.name for path in folder.iterdir()} >= RESULTS
    assert not list(folder.glob("*.safetensors"))  # the discriminator tells who was trained on
    assert json.loads((folder / "verdict.json").read_text())["outcome"] in done.stdout
    assert "report.html" in done.stdout
    assert "%|" not in done.stdout  # no bar, be it of a library, where there is no terminal
    assert 'src="http' not in (folder / "report.html").read_text()


def test_no_patient_identifier_leaves_the_cohort(first, project):
    done, folder = first
    patients = set(pd.read_parquet(folder / "cohort.parquet")["patient"])
    texts = [done.stdout]
    readable = (".html", ".json", ".csv", ".md", ".yaml")
    texts += [path.read_text() for path in folder.iterdir() if path.suffix in readable]
    assert not any(patient in text for patient in patients for text in texts)
    names = [path.name for path in (project / "mlartifacts").rglob("*")]
    assert "report.html" in names
    assert "cohort.parquet" not in names


def test_every_verdict_is_a_run_in_mlflow(first, project):
    client = mlflow.MlflowClient(f"sqlite:///{project / 'mlflow.db'}")
    [run] = client.search_runs([client.get_experiment_by_name("gan_augmentation").experiment_id])
    assert run.data.tags["gate_result"] == json.loads((first[1] / "verdict.json").read_text())["outcome"]
    assert not client.search_model_versions("name = 'lung-ct-generator'")


def test_a_second_run_fetches_and_recomputes_nothing(first, project, run_pipeline):
    """Neither does tracking, which is no part of what is trained."""
    again = _run_with(project, run_pipeline, registry={"track_training": True, "experiment": "tracked"})
    assert again.returncode == 0, again.stdout
    assert re.search(r"in (\d+) shards \(\1 of them were there\), 0 series rejected, 0 MB fetched", again.stdout)
    for step in (*CACHED, "decide"):
        assert f"Using cached version of step {step}" in again.stdout.replace("`", "")
    folder = (project / "outputs" / "latest").resolve()
    assert folder != first[1]
    assert (folder / "scorecard.json").read_text() == (first[1] / "scorecard.json").read_text()


def test_without_the_cache_the_same_seed_gives_the_same_numbers(first, project, run_pipeline):
    content = yaml.safe_load(TINY.read_text()) | {"enable_cache": False}
    path = project / "uncached.yaml"
    path.write_text(yaml.safe_dump(content))
    again = run_pipeline("-c", str(path))
    assert again.returncode == 0, again.stdout
    assert "Using cached version" not in again.stdout
    folder = project / "outputs" / "latest"
    for name in ("scorecard.json", "verdict.json", "samples.png", "progress.gif"):
        assert (folder / name).read_bytes() == (first[1] / name).read_bytes(), name


def test_tracking_sends_a_training_to_mlflow(first, project, run_pipeline):
    done = _run_with(
        project, run_pipeline, registry={"track_training": True, "experiment": "tracked"}, training={"seed": 1}
    )
    assert done.returncode == 0, done.stdout
    client = mlflow.MlflowClient(f"sqlite:///{project / 'mlflow.db'}")
    experiment = client.get_experiment_by_name("tracked").experiment_id
    [run] = [run for run in client.search_runs([experiment]) if TAG in run.data.tags]
    assert run.info.status == "FINISHED"
    assert run.data.params["training.seed"] == "1"
    assert {"loss_d", "real_sign", "p", "diversity"} <= set(run.data.metrics)


def test_a_misspelt_key_stops_before_anything_runs(project, run_pipeline):
    done = _run_with(project, run_pipeline, training={"kimgs": 3})
    assert done.returncode == 1
    assert "parameters.training.kimgs: is unknown; did you mean kimg?" in done.stdout
    assert "Traceback" not in done.stdout
    assert "Initiating" not in done.stdout


def test_a_failed_run_says_what_failed_and_keeps_what_it_had(first, project, run_pipeline):
    done = _run_with(project, run_pipeline, cohort={"cancer_fraction": 0.0})
    assert done.returncode == 1
    assert "Traceback" not in done.stdout
    folder = (project / "outputs" / "latest").resolve()
    failure = json.loads((folder / "failure.json").read_text())
    assert failure["step"] in ("select_cohort", "build_slices")
    assert "cancer" in failure["error"]
    assert failure["error"] in done.stdout


def test_an_output_folder_that_cannot_be_written_is_named_first(project, run_pipeline):
    (project / "taken").write_text("a file where the folder should be")
    content = yaml.safe_load(TINY.read_text())
    content["parameters"]["outputs"] = "taken/outputs"
    path = project / "unwritable.yaml"
    path.write_text(yaml.safe_dump(content))
    done = run_pipeline("-c", str(path))
    assert done.returncode == 1
    assert "output folder taken/outputs cannot be written" in done.stdout
    assert "Initiating" not in done.stdout


def test_a_damaged_and_a_foreign_file_reject_their_series_and_the_run_goes_on(first, project, run_pipeline):
    cohort = pd.read_parquet(first[1] / "cohort.parquet")
    train = cohort[(cohort["role"] == "image") & (cohort["split"] == "train") & (cohort["label"] == "non-cancer")]
    folders = [project / "data" / "series" / url.rstrip("/").rpartition("/")[2] for url in train["url"].iloc[:2]]
    damaged, foreign = (sorted(folder.iterdir())[3] for folder in folders)
    contents = {path: path.read_bytes() for path in (damaged, foreign)}
    # As long as before, or the series would be made anew.
    damaged.write_bytes(contents[damaged][:200] + bytes(len(contents[damaged]) - 200))
    modality = b"\x08\x00\x60\x00CS\x02\x00"
    assert modality + b"CT" in contents[foreign]
    foreign.write_bytes(contents[foreign].replace(modality + b"CT", modality + b"MR"))
    try:
        # Another cap on slices, since the files' content is no part of a shard's key.
        done = _run_with(project, run_pipeline, slices={"max_slices_per_series": 5})
        assert done.returncode == 0, done.stdout
        page = (project / "outputs" / "latest" / "report.html").read_text()
        assert "unreadable" in page
        assert "not_ct" in page
    finally:
        for path, content in contents.items():
            path.write_bytes(content)


@pytest.mark.filterwarnings("ignore:.*Any type hint is inferred as AnyType:UserWarning")  # at MLflow's own import
@pytest.mark.filterwarnings("ignore:Operation with range is deprecated")  # MLflow's input example, pandas 3
def test_a_champion_becomes_an_arm_to_beat(first, project, run_pipeline, tmp_path):
    network = DcganConfig(size=32, nz=8, ngf=4)
    card = GeneratorCard(generator=network, window_hu=(-1350, 150))
    package = GeneratorPackage.write(tmp_path / "planted", Generator(network).eval(), card)
    auroc = Metric(quantity=COMPARED["AUROC"], arm="chosen on val", value=0.9, computed_with="planted")
    verdict = Verdict(
        outcome="promote",
        reason="Planted.",
        rule="gain",
        candidate_arm="planted",
        baseline_arm="real",
        measure="AUROC",
        test_patients=(),
        score=auroc,
        chosen=(),
        protocol_sha256="planted",
    )
    config = RegistryConfig(tracking_uri=f"sqlite:///{project / 'mlflow.db'}")
    hashes = {"data_sha256": "planted", "code_version": "planted"}
    assert register(package, Scorecard(metrics=()), verdict, champion=None, **hashes, config=config).alias == "champion"
    done = run_pipeline("-c", str(TINY))
    assert done.returncode == 0, done.stdout
    assert "Using cached version of step train_generator" in done.stdout.replace("`", "")
    metrics = json.loads((project / "outputs" / "latest" / "scorecard.json").read_text())["metrics"]
    assert any("champion@1" in metric["name"] for metric in metrics)
