"""Targets: a file each, laid over any experiment, and checked before anything runs."""

import re
from pathlib import Path

import pytest
import yaml
from zenml.client import Client
from zenml.enums import StackComponentType as Kind
from zenml.integrations.kubernetes.manifest_utils import build_pod_manifest
from zenml.integrations.kubernetes.pod_settings import KubernetesPodSettings

from lungsynth.errors import LungsynthError
from pipelines import targets
from pipelines.targets import CONFIGS, laid_over
from pipelines.zenml_config import read_run_file
from steps import STEPS

GPU_STEPS = ("train_generator", "train_extractor", "measure_fidelity", "audit_privacy", "measure_utility")
GIVEN = {
    "LUNGSYNTH_STORE": "s3://bucket/lungsynth",
    "LUNGSYNTH_IMAGE": "registry.example.org/lungsynth:1",
    "MLFLOW_TRACKING_URI": "https://mlflow.example.org",
}


@pytest.fixture(scope="module")
def stacks():
    """The stacks of docs/targets.md, with components that nothing connects to."""
    client = Client()
    client.create_stack_component("store", "s3", Kind.ARTIFACT_STORE, {"path": "s3://bucket/zenml"})
    client.create_stack_component("images", "default", Kind.CONTAINER_REGISTRY, {"uri": "registry.example.org"})
    cluster = {"kubernetes_context": "gpu", "kubernetes_namespace": "zenml"}
    client.create_stack_component("kubernetes", "kubernetes", Kind.ORCHESTRATOR, cluster)
    client.create_stack_component("kubernetes", "kubernetes", Kind.STEP_OPERATOR, cluster)
    client.create_stack_component("box", "ssh", Kind.ORCHESTRATOR, {"hostname": "gpu.example.org", "username": "me"})
    client.create_stack_component("here", "local", Kind.ORCHESTRATOR, {})
    shared = {Kind.ARTIFACT_STORE: "store", Kind.CONTAINER_REGISTRY: "images"}
    client.create_stack("lungsynth-kubernetes", shared | {Kind.ORCHESTRATOR: "kubernetes"})
    client.create_stack("lungsynth-ssh", shared | {Kind.ORCHESTRATOR: "box"})
    client.create_stack("lungsynth-hybrid", shared | {Kind.ORCHESTRATOR: "here", Kind.STEP_OPERATOR: "kubernetes"})
    yield
    client.activate_stack("default")


@pytest.fixture
def read(stacks, tmp_path, monkeypatch):
    """Reads a run file of a small phantom cohort with the target's stack active."""
    for name, value in GIVEN.items():
        monkeypatch.setenv(name, value)

    def go(target: str | None, stack: str | None = None, **content):
        Client().activate_stack(stack or (f"lungsynth-{target}" if target else "default"))
        path = tmp_path / "run.yaml"
        parameters = {"cohort": {"source": "phantom"}} | content.pop("parameters", {})
        run_file = {"parameters": parameters, **({"target": target} if target else {}), **content}
        path.write_text(yaml.safe_dump(run_file))
        return read_run_file(path, STEPS)[0]

    return go


@pytest.mark.parametrize("target", ["kubernetes", "hybrid", "ssh"])
def test_a_target_is_laid_over_an_experiment(read, target):
    content = read(target, parameters={"training": {"kimg": 7}, "slices": {"size": 64}, "generator": {"size": 64}})
    parameters = content["parameters"]
    assert parameters["training"]["kimg"] == 7
    assert (parameters["slices"]["size"], parameters["slices"]["root"]) == (64, "s3://bucket/lungsynth/slices")
    assert parameters["checkpoints"] == "s3://bucket/lungsynth/checkpoints"
    assert parameters["registry"]["tracking_uri"] == GIVEN["MLFLOW_TRACKING_URI"]
    assert "target" not in content


@pytest.mark.parametrize(("target", "kind"), [("kubernetes", "orchestrator"), ("hybrid", "step_operator")])
def test_every_gpu_step_is_a_pod_with_a_gpu_on_the_pool(read, target, kind):
    content = read(target)
    for step in STEPS:
        settings = content["steps"].get(step, {}).get("settings", {}).get(f"{kind}.kubernetes", {})
        if step not in GPU_STEPS:
            assert not settings
            continue
        given = KubernetesPodSettings.model_validate(settings["pod_settings"])
        pod = build_pod_manifest("pod", "image", [], [], privileged=False, pod_settings=given)
        assert pod.spec.containers[0].resources["limits"] == {"nvidia.com/gpu": "1"}
        assert pod.spec.node_selector == {"lungsynth/pool": "gpu"}
        assert "nvidia.com/gpu" in {one["key"] for one in pod.spec.tolerations}
        assert content["steps"][step]["retry"]["max_retries"] == 3
    if kind == "orchestrator":
        rules = content["steps"]["train_generator"]["settings"]["orchestrator.kubernetes"]["pod_failure_policy"][
            "rules"
        ]
        assert rules[0]["onPodConditions"][0]["type"] == "DisruptionTarget"  # before failures are counted


def test_every_gpu_step_of_a_box_gets_a_gpu(read):
    steps = read("ssh")["steps"]
    assert {name for name, step in steps.items() if step["settings"]["orchestrator.ssh"]["gpu_indices"]} == {*GPU_STEPS}


def test_the_environment_names_a_target_too(read, monkeypatch):
    monkeypatch.setenv("LUNGSYNTH_TARGET", "kubernetes")
    assert read(None, "lungsynth-kubernetes")["parameters"]["slices"]["root"].startswith("s3://")


def test_a_schedule_is_laid_over_both(read, monkeypatch):
    monkeypatch.setenv("LUNGSYNTH_SCHEDULE", "weekly")
    content = read("kubernetes")
    assert content["schedule"] == {"name": "lungsynth-weekly", "cron_expression": "0 3 * * 0"}
    settings = content["settings"]["orchestrator.kubernetes"]
    assert (settings["concurrency_policy"], settings["synchronous"]) == ("Forbid", False)
    assert settings["pod_settings"]["resources"]["requests"]["cpu"] == "1"  # the target's


KUBERNETES = "orchestrator.kubernetes"


@pytest.mark.parametrize(
    ("target", "stack", "content", "message"),
    [
        ("moon", "default", {}, "target: there is no configs/targets/moon.yaml; there are: azureml, hybrid"),
        (
            "kubernetes",
            "default",
            {},
            "kubernetes.yaml: stack: this target runs on lungsynth-kubernetes, and the active stack is default: zenml "
            "stack set lungsynth-kubernetes",
        ),
        (
            None,
            "default",
            {"settings": {KUBERNETES: {"synchronous": False}}},
            "settings.orchestrator.kubernetes: the active stack default has orchestrator local, and ZenML would drop",
        ),
        (
            "kubernetes",
            None,
            {"settings": {KUBERNETES: {"syncronous": False}}},
            "settings.orchestrator.kubernetes.syncronous: is unknown; did you mean synchronous?",
        ),
        (
            "kubernetes",
            None,
            {"settings": {KUBERNETES: {"concurrency_policy": 3}}},
            "settings.orchestrator.kubernetes.concurrency_policy: ",
        ),
        (
            "kubernetes",
            None,
            {"steps": {"decide": {"settings": {KUBERNETES: {"pod_settings": {"resources": {"limit": {"cpu": "1"}}}}}}}},
            "steps.decide.settings.orchestrator.kubernetes.pod_settings: Kubernetes refuses it: ",
        ),
        (
            "kubernetes",
            None,
            {"steps": {"decide": {"settings": {"resources": {"gpu_count": 1}}}}},
            "steps.decide.settings.resources.gpu_count: is ignored by ZenML's kubernetes orchestrator",
        ),
        (
            None,
            "lungsynth-kubernetes",
            {},
            "parameters.registry.tracking_uri: is sqlite:///mlflow.db, and each step of orchestrator kubernetes, a "
            "machine of its own, would make an empty database",
        ),
        (
            None,
            "lungsynth-kubernetes",
            {"parameters": {"registry": {"tracking_uri": "https://mlflow.example.org"}}},
            "parameters.slices.root: is data/slices, which is lost with orchestrator kubernetes",
        ),
        ("kubernetes", None, {"enable_cache": True}, "enable_cache: "),
        (
            "kubernetes",
            None,
            {"schedule": "hourly"},
            "schedule: there is no configs/schedules/hourly.yaml; there are: weekly",
        ),
    ],
)
def test_what_would_go_wrong_out_there_is_one_line_here(read, target, stack, content, message):
    with pytest.raises(LungsynthError, match=re.escape(message)) as caught:
        read(target, stack, **content)
    assert "\n" not in str(caught.value)


def test_folders_on_a_mounted_volume_are_places_that_pods_reach(read):
    volume = {"name": "work", "persistentVolumeClaim": {"claimName": "lungsynth"}}
    settings = {"pod_settings": {"volumes": [volume], "volume_mounts": [{"name": "work", "mountPath": "/work"}]}}
    places = {"slices": {"root": "/work/slices"}, "checkpoints": "/work/checkpoints"}
    caches = {name: {"cache": "/work/features"} for name in ("fidelity", "privacy")}
    tracking = {"registry": {"tracking_uri": "https://mlflow.example.org"}}
    content = read(
        None,
        "lungsynth-kubernetes",
        settings={KUBERNETES: settings},
        parameters=places | caches | tracking,
    )
    assert content["parameters"]["slices"]["root"] == "/work/slices"


def test_a_wrong_target_file_is_named(read, tmp_path, monkeypatch):
    (tmp_path / "targets").mkdir()
    (tmp_path / "targets" / "odd.yaml").write_text("stack: default\nparameter: {}\n")
    monkeypatch.setattr(targets, "CONFIGS", tmp_path)
    with pytest.raises(LungsynthError, match=r"odd.yaml: parameter: is unknown; did you mean parameters\?"):
        read("odd", "default")


def test_a_target_wins_and_sections_are_joined():
    assert laid_over({"a": {"x": 1, "y": [1]}, "b": 2}, {"a": {"y": [2], "z": 3}}) == {
        "a": {"x": 1, "y": [2], "z": 3},
        "b": 2,
    }


@pytest.mark.parametrize("path", sorted((CONFIGS / "targets").glob("*.yaml")), ids=lambda path: path.stem)
def test_targets_hold_no_secret(path: Path):
    assert not re.search(r"(?i)(password|token|secret_key|api_key)\s*:", path.read_text())
