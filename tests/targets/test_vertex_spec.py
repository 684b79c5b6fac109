"""What Vertex AI is asked for: the real pipeline, compiled by ZenML and kfp without account and network."""

import json
import os
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from zenml.integrations.gcp import GcpIntegration

from pipelines.targets import laid_over

ROOT = Path(__file__).parents[2]
pytestmark = pytest.mark.cluster
OVERLAY = Path(sys.prefix) / "vertex"
"""Packages of constraints-vertex.txt, before those of this environment, with which they do not go together."""
TARGET = ROOT / "configs" / "targets" / "vertex.yaml"
ON_GPU = ["audit_privacy", "measure_fidelity", "measure_utility", "train_extractor", "train_generator"]
STORE = "gs://bucket/lungsynth"


@pytest.fixture(scope="module")
def python():
    """Runs a program with Vertex's packages."""
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(map(str, (OVERLAY, ROOT)))}
    environment |= {"LUNGSYNTH_IMAGE": "europe-west4-docker.pkg.dev/project/images/steps:1", "LUNGSYNTH_STORE": STORE}
    environment |= {"MLFLOW_TRACKING_URI": "https://mlflow.example.org"}

    def run(*arguments, folder=ROOT, **more):
        command = [sys.executable, *map(str, arguments)]
        return subprocess.run(command, cwd=folder, env=environment | more, capture_output=True, text=True)

    wanted = ("gcsfs", "kfp", "google.cloud.aiplatform", "google_cloud_pipeline_components")
    if run("-c", f"import sys, importlib.util as i; sys.exit(not all(map(i.find_spec, {wanted})))").returncode:
        pytest.skip(f"no packages of Vertex AI: pip install --no-deps --target {OVERLAY} -r constraints-vertex.txt")
    return run


@pytest.fixture(scope="module")
def compiled(python, project):
    """The tests' tiny experiment on this target: what Vertex would get, and what its steps would find on the server."""
    content = yaml.safe_load((ROOT / "tests" / "pipelines" / "tiny.yaml").read_text())
    content = laid_over(content, yaml.safe_load(TARGET.read_text()))
    del content["stack"]
    (project / "vertex.run.yaml").write_text(yaml.safe_dump(content))
    done = python(
        *(Path(__file__).parent / "compile_for_vertex.py", "vertex.run.yaml", "vertex.json"),
        folder=project,
        ZENML_CONFIG_PATH=str(project / ".zenml-vertex"),
        ZENML_REPOSITORY_PATH=str(project),
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return json.loads((project / "vertex.json").read_text())


@pytest.fixture(scope="module")
def jobs(compiled):
    """By step, the inputs of its custom job; for a step that has none, its container."""
    spec = compiled["spec"]
    found = {}
    for name, task in spec["root"]["dag"]["tasks"].items():
        component = spec["components"][task["componentRef"]["name"]]
        inputs = component.get("inputDefinitions", {}).get("parameters", {})
        container = spec["deploymentSpec"]["executors"][component["executorLabel"]]["container"]
        defaults = {key: value.get("defaultValue") for key, value in inputs.items()}
        found[name.replace("-", "_")] = defaults if "worker_pool_specs" in inputs else container
    return found


@pytest.mark.parametrize("step", ON_GPU)
def test_a_gpu_step_asks_vertex_for_one_gpu_on_a_spot_machine(jobs, step):
    job = jobs[step]
    [pool] = job["worker_pool_specs"]
    assert pool["machine_spec"] == {
        "machine_type": "g2-standard-8",
        "accelerator_type": "NVIDIA_L4",
        "accelerator_count": 1,
    }
    assert pool["disk_spec"]["boot_disk_size_gb"] == 200
    assert pool["container_spec"]["image_uri"] == "europe-west4-docker.pkg.dev/project/images/steps:1"
    assert (job["strategy"], job["timeout"], job["restart_job_on_worker_restart"]) == ("SPOT", "172800s", True)


def test_no_other_step_asks_vertex_for_a_gpu(jobs):
    others = {name: job for name, job in jobs.items() if name not in ON_GPU}
    assert sorted(others) == ["build_slices", "decide", "find_champion", "register", "report", "select_cohort"]
    assert "accelerator" not in json.dumps(others)
    assert others["build_slices"]["worker_pool_specs"][0]["disk_spec"]["boot_disk_size_gb"] == 500


def test_steps_on_vertex_find_all_places_in_the_bucket(compiled):
    snapshot = compiled["snapshot"]["metadata"]
    parameters = snapshot["pipeline_spec"]["parameters"]
    assert parameters["checkpoints"] == f"{STORE}/checkpoints"
    assert parameters["registry"]["tracking_uri"] == "https://mlflow.example.org"
    steps = {name: step["config"] for name, step in snapshot["step_configurations"].items()}
    assert steps["build_slices"]["parameters"]["config"]["root"] == f"{STORE}/slices"
    for name in ("measure_fidelity", "audit_privacy"):
        assert steps[name]["parameters"]["config"]["cache"] == f"{STORE}/features"


def test_zenml_lets_vertex_start_a_spot_step_again(compiled, jobs):
    steps = compiled["snapshot"]["metadata"]["step_configurations"]
    again = {name for name, step in steps.items() if step["config"]["retry"]}
    assert again == {name for name, job in jobs.items() if job.get("strategy") == "SPOT"}


def test_the_packages_for_vertex_are_those_that_zenml_requires():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    listed = [*project["dependencies"], *extras["pipeline"], *extras["gcp"], *extras["vertex"][1:]]
    listed = [Requirement(one) for one in listed]
    required = [Requirement(one) for one in GcpIntegration.REQUIREMENTS]
    assert {one.name for one in required} <= {one.name for one in listed}
    lines = [(ROOT / name).read_text().splitlines() for name in ("constraints.txt", "constraints-vertex.txt")]
    pins = dict(line.lower().replace("_", "-").split("==") for line in [*lines[0], *lines[1]] if "==" in line)
    assert [str(one) for one in (*listed, *required) if pins[one.name.lower()] not in one.specifier] == []
