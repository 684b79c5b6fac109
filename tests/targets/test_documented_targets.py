"""Targets for clouds that no test runs on: their files against ZenML's own settings, which need no cloud's package."""

import json
from pathlib import Path

import pytest
from zenml.config.pipeline_run_configuration import PipelineRunConfiguration
from zenml.integrations.aws.flavors.sagemaker_orchestrator_flavor import SagemakerOrchestratorSettings
from zenml.integrations.azure.flavors.azureml_orchestrator_flavor import AzureMLOrchestratorSettings
from zenml.integrations.gcp.flavors.vertex_orchestrator_flavor import VertexOrchestratorSettings
from zenml.integrations.skypilot_aws.flavors.skypilot_orchestrator_aws_vm_flavor import SkypilotAWSOrchestratorSettings

from lungsynth.run_file import load
from steps import STEPS

FOLDER = Path(__file__).parents[2] / "configs" / "targets"
SETTINGS = {
    "vertex": ("orchestrator.vertex", VertexOrchestratorSettings),
    "sagemaker": ("orchestrator.sagemaker", SagemakerOrchestratorSettings),
    "azureml": ("orchestrator.azureml", AzureMLOrchestratorSettings),
    "skypilot": ("orchestrator.vm_aws", SkypilotAWSOrchestratorSettings),
}
ON_GPU = {"audit_privacy", "measure_fidelity", "measure_utility", "train_extractor", "train_generator"}


@pytest.fixture(params=SETTINGS)
def name(request):
    return request.param


@pytest.fixture
def target(name, monkeypatch):
    """A target's content, as a user's environment fills it in."""
    monkeypatch.setenv("LUNGSYNTH_IMAGE", "registry.example.org/steps:1")
    monkeypatch.setenv("LUNGSYNTH_STORE", "s3://bucket/lungsynth")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "https://mlflow.example.org")
    return load(FOLDER / f"{name}.yaml")


@pytest.fixture
def settings(name, target):
    """By step, and for those that have none of their own under `others`, the orchestrator's settings."""
    key, model = SETTINGS[name]
    all_steps = target["settings"].get(key, {})
    given = {step: all_steps | found["settings"][key] for step, found in target["steps"].items()} | {
        "others": all_steps
    }
    for values in given.values():
        assert set(values) <= set(model.model_fields)
    return {step: model.model_validate(values) for step, values in given.items()}


def test_a_target_that_was_not_run_says_so_in_its_first_lines(name):
    assert "*not run*" in "".join((FOLDER / f"{name}.yaml").read_text().splitlines(keepends=True)[:2])


def test_zenml_reads_the_whole_target(name, target):
    assert target.pop("stack") == f"lungsynth-{name}"
    read = PipelineRunConfiguration.model_validate(target)
    assert read.execution_mode == "continue_on_failure"
    assert set(read.steps) - {"build_slices"} == ON_GPU
    assert set(read.steps) <= set(STEPS)
    kinds = {key for one in (target, *target["steps"].values()) for key in one["settings"]}
    assert kinds == {"docker", SETTINGS[name][0]}


def test_all_places_of_a_target_are_urls(target):
    parameters = target["parameters"]
    places = [parameters["slices"]["root"], parameters["checkpoints"]]
    places += [parameters[part]["cache"] for part in ("fidelity", "privacy")]
    assert all(place.startswith("s3://bucket/lungsynth/") for place in places)
    assert parameters["registry"]["tracking_uri"] == "https://mlflow.example.org"


GPUS = {
    "vertex": lambda one: one.custom_job_parameters and one.custom_job_parameters.accelerator_count == 1,
    "sagemaker": lambda one: one.instance_type.startswith(("ml.g", "ml.p")),
    "azureml": lambda one: "_NC" in (one.size or ""),
    "skypilot": lambda one: one.accelerators == "L4:1" and "--gpus=all" in one.docker_run_args,
}
SPOT = {
    "vertex": lambda one: one.custom_job_parameters.additional_training_job_args["strategy"] == "SPOT",
    "sagemaker": lambda one: one.estimator_args["use_spot_instances"] and one.keep_alive_period_in_seconds == 0,
    "azureml": lambda one: one.tier == "low_priority",
    "skypilot": lambda one: not one.use_spot,
}


def test_gpu_steps_of_a_target_and_no_others_have_a_gpu(name, settings):
    assert {step for step, one in settings.items() if GPUS[name](one)} == ON_GPU


def test_gpu_steps_are_on_spot_machines_where_they_are_started_again(name, settings, target):
    assert all(SPOT[name](settings[step]) for step in ON_GPU)
    assert {"retry" in target["steps"][step] for step in ON_GPU} == {name != "skypilot"}


def test_a_spot_job_of_sagemaker_may_wait_longer_than_it_may_run(settings, name):
    if name == "sagemaker":
        one = settings["train_generator"]
        assert one.estimator_args["max_wait"] >= one.max_runtime_in_seconds


def test_no_target_holds_a_secret(target):
    assert not {"secret", "password", "access_key", "token"} & set(json.dumps(target).lower().replace('"', " ").split())
