"""`gan_augmentation` on Kubernetes, S3 and an MLflow server gives what it gives on a laptop, to the last digit."""

import os
import re
import shutil
import threading
from pathlib import Path

import pytest
import yaml
from warm import run_warm

pytestmark = pytest.mark.cluster


@pytest.fixture(scope="module")
def run_here(clone, tmp_path_factory):
    """Runs `tiny.yaml`, or what `changed` makes of it, without a target; gives the folder of results."""

    def run(name, changed=lambda content: None):
        folder = tmp_path_factory.mktemp("laptop") / name
        shutil.copytree(clone, folder, ignore=shutil.ignore_patterns("outputs", "data"))
        content = yaml.safe_load((Path(__file__).parents[1] / "pipelines" / "tiny.yaml").read_text())
        content["parameters"]["training"]["threads"] = 1
        changed(content)
        (folder / "run.yaml").write_text(yaml.safe_dump(content))
        own = {"ZENML_CONFIG_PATH": str(folder / ".zenml"), "OMP_NUM_THREADS": "1"}
        command = ["pipeline", "run", "gan_augmentation", "-c", "run.yaml"]
        done = run_warm("zenml", command, folder=folder, environment=os.environ | own, merged=True)
        assert done.returncode == 0, done.stdout
        return (folder / "outputs" / "latest").resolve()

    return run


@pytest.fixture(scope="module")
def first(services, run_on, clone):
    done = run_on("kubernetes")
    assert done.returncode == 0, done.stdout
    return done, (clone / "outputs" / "latest").resolve()


def test_the_results_are_those_of_a_laptop(first, run_here):
    folder, on_laptop = first[1], run_here("tiny")
    for name in ("scorecard.json", "verdict.json", "samples.png", "progress.gif", "interpolation.png"):
        assert (folder / name).read_bytes() == (on_laptop / name).read_bytes(), name
    assert "SHA-256" in first[0].stdout
    assert yaml.safe_load((folder / "config.yaml").read_text())["parameters"]["slices"]["root"].startswith("s3://")


def test_a_second_run_fetches_no_series_and_computes_nothing_anew(services, first, run_on):
    again = run_on("kubernetes")
    assert again.returncode == 0, again.stdout
    for step in (
        "train_generator",
        "train_extractor",
        "measure_fidelity",
        "audit_privacy",
        "measure_utility",
        "decide",
    ):
        assert f"Using cached version of step `{step}`" in again.stdout, step
    pod = services.cluster.pods("step_name=build_slices")[-1]
    log = services.cluster.podman.log(f"zenml.{pod['metadata']['name']}").decode()
    assert re.search(r"in (\d+) shards \(\1 of them were there\), 0 series rejected, 0 MB fetched", log)


def test_pictures_are_in_the_store_of_the_dashboard(services, first):
    keys = [
        one["Key"]
        for page in services.s3.get_paginator("list_objects_v2").paginate(Bucket="zenml")
        for one in page["Contents"]
    ]
    assert {"contact_sheet.png", "samples.png", "report.html"} <= {Path(key).name for key in keys}
    assert not [key for key in keys if key.startswith("build_slices") and "images.safetensors" in key]  # a manifest


def test_results_are_fetched_from_anywhere(services, first, clone, tmp_path):
    shutil.copytree(clone, tmp_path / "other", ignore=shutil.ignore_patterns("outputs", "data"))
    listed = run_warm(
        "lungsynth",
        ["runs", "--gpu-price", "2"],
        folder=tmp_path / "other",
        environment=services.environment | {"COLUMNS": "200"},
    )
    assert listed.returncode == 0, listed.stderr
    assert first[1].name in listed.stdout
    assert "completed" in listed.stdout
    done = run_warm(
        "lungsynth", ["results", first[1].name], folder=tmp_path / "other", environment=services.environment
    )
    assert done.returncode == 0, done.stderr
    folder = tmp_path / "other" / "outputs" / first[1].name
    for name in ("scorecard.json", "verdict.json", "report.html"):
        assert (folder / name).read_bytes() == (first[1] / name).read_bytes()


def test_a_training_on_a_spot_node_goes_on_at_the_same_image(services, run_on, clone, run_here):
    def longer(content):
        content["parameters"]["training"] |= {"kimg": 12, "snapshot_kimg": 2, "checkpoint_kimg": 0.5, "seed": 5}

    known = {pod["metadata"]["name"] for pod in services.cluster.pods("step_name=train_generator")}

    def logs():
        pods = services.cluster.pods("step_name=train_generator")
        names = [pod["metadata"]["name"] for pod in pods if pod["metadata"]["name"] not in known]
        return [services.cluster.podman.log(f"zenml.{name}").decode() for name in names]

    def preempt():
        def has_checkpoint():
            listed = services.s3.list_objects_v2(Bucket="lungsynth", Prefix="checkpoints/").get("Contents", [])
            return [one for one in listed if one["Key"].endswith("state.pt")]

        services.cluster.wait(has_checkpoint, 300)
        pods = services.cluster.pods("step_name=train_generator")
        services.cluster.preempt(next(pod for pod in pods if pod["metadata"]["name"] not in known))

    thread = threading.Thread(target=preempt)
    thread.start()
    done = run_on("kubernetes", longer)
    thread.join()
    assert done.returncode == 0, done.stdout
    first, second = logs()
    stopped, *_ = re.findall(r"stopped by SIGTERM at ([\d.]+) kimg", " ".join(first.split()))
    resumed, *_ = re.findall(r"training goes on at ([\d.]+) of 12 kimg", second)
    assert float(resumed) == pytest.approx(float(stopped), abs=0.005)
    undisturbed = run_here("undisturbed", longer)
    for name in ("samples.png", "progress.gif", "scorecard.json"):
        assert (clone / "outputs" / "latest" / name).read_bytes() == (undisturbed / name).read_bytes(), name
