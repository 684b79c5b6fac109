"""ZenML's own Kubernetes orchestrator and step operator against the mini cluster: what the targets rely on."""

import json
import shutil
import subprocess
import sys
import threading
from pathlib import Path

import pytest
import yaml
from warm import run_warm

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
TARGET = yaml.safe_load((ROOT / "configs" / "targets" / "kubernetes.yaml").read_text())
ON_GPU = TARGET["steps"]["train_generator"]["settings"]["orchestrator.kubernetes"]
GPU = ON_GPU["pod_settings"] | {"resources": {"limits": {"nvidia.com/gpu": "1"}}}
IMAGE = "127.0.0.1:5001/lungsynth:test"


@pytest.fixture
def toy(services, tmp_path):
    """Runs the toy pipeline on a stack; `add` are the fields of its second step in the run file."""
    shutil.copytree(HERE / "toy", tmp_path / "toy")

    def run(stack="lungsynth-kubernetes", image=IMAGE, parameters=None, add=None, **content):
        docker = {"parent_image": image, "skip_build": True}
        kubernetes = {"orchestrator.kubernetes": {"job_monitoring_interval": 1}} if "kubernetes" in stack else {}
        (tmp_path / "toy" / "run.yaml").write_text(
            yaml.safe_dump(
                {
                    "enable_cache": False,
                    "parameters": parameters or {},
                    "settings": {"docker": docker, **kubernetes},
                    "steps": {"add": add or {"settings": {"orchestrator.kubernetes": {"pod_settings": GPU}}}},
                    **content,
                }
            )
        )
        command = ["pipeline", "run", "toy.toy", "-c", "run.yaml", "-s", stack]
        return run_warm("zenml", command, folder=tmp_path / "toy", environment=services.environment, merged=True)

    return run


@pytest.fixture
def ask(services):
    """What the project says of the newest run of the toy."""

    def question():
        command = [sys.executable, str(HERE / "ask.py"), "toy"]
        done = subprocess.run(command, cwd=ROOT, env=services.environment, text=True, capture_output=True)
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout.splitlines()[-1])

    return question


def pods_of(services, step):
    return services.cluster.pods(f"step_name={step}")


def while_running(services, step, act):
    """Do something to the first pod of a step that comes up from now on."""
    known = {pod["metadata"]["name"] for pod in pods_of(services, step)}

    def wait():
        def adding():
            new = [pod for pod in pods_of(services, step) if pod["metadata"]["name"] not in known]
            logs = (services.cluster.podman.log(f"zenml.{pod['metadata']['name']}") for pod in new)
            return [pod for pod, log in zip(new, logs, strict=True) if b"adding" in log]

        act(services.cluster.wait(adding)[0])

    thread = threading.Thread(target=wait)
    thread.start()
    return thread


def test_each_step_is_a_pod_and_the_gpu_step_has_its_gpu(services, toy, ask):
    before = len(services.cluster.pods())
    done = toy()
    assert done.returncode == 0, done.stdout
    found = ask()
    assert found["outputs"]["add"] == {"sum": "10", "gpus": "0", "pod": "True"}
    assert found["gpu_hours"]["make"] == 0
    assert 0 < found["gpu_hours"]["add"] < 0.1
    assert len(services.cluster.pods()) == before + 3  # an orchestrator, two steps
    [make, add] = (pods_of(services, step)[-1] for step in ("make", "add"))
    assert (make["spec"]["nodeName"], add["spec"]["nodeName"]) == ("cpu-0", "gpu-0")
    variables = {one["name"]: one.get("value") for one in add["spec"]["containers"][0]["env"]}
    assert variables["ZENML_STORE_API_TOKEN"] is None  # it comes from a Secret


@pytest.mark.cluster
def test_a_pod_that_runs_out_of_memory_is_named(services, toy, ask):
    thread = while_running(services, "add", services.cluster.run_out_of_memory)
    toy(parameters={"wait_s": 60})
    thread.join()
    cause = ask()["cause"]
    assert "container failure reason: OOMKilled, exit_code=137): give the step more memory" in cause
    assert "adding" in cause  # the end of its log


@pytest.mark.cluster
def test_an_image_that_cannot_be_pulled_is_named(services, toy, ask):
    docker = {"docker": {"parent_image": "127.0.0.1:5001/no/such:image", "skip_build": True}}
    toy(add={"settings": docker | {"orchestrator.kubernetes": {"pod_settings": GPU}}})
    found = ask()
    assert found["state"] == "failed"
    assert "ImagePullBackOff" in found["cause"]


@pytest.mark.cluster
def test_a_preempted_pod_is_started_again_on_another_node(services, toy, ask):
    thread = while_running(services, "add", services.cluster.preempt)
    policy = {key: value for key, value in ON_GPU.items() if key == "pod_failure_policy"}
    settings = {"orchestrator.kubernetes": {"pod_settings": GPU, **policy}}
    done = toy(parameters={"wait_s": 5}, add={"retry": {"max_retries": 3}, "settings": settings})
    thread.join()
    assert done.returncode == 0, done.stdout
    assert ask()["state"] == "completed"


@pytest.mark.cluster
def test_only_the_gpu_step_is_a_pod_where_a_laptop_has_a_step_operator(services, toy, ask):
    before = len(services.cluster.pods())
    done = toy(
        "lungsynth-hybrid",
        add={"step_operator": "kubernetes", "settings": {"step_operator.kubernetes": {"pod_settings": GPU}}},
    )
    assert done.returncode == 0, done.stdout
    assert ask()["outputs"]["add"] == {"sum": "10", "gpus": "0", "pod": "True"}
    assert len(services.cluster.pods()) == before + 1


@pytest.fixture
def started(services, toy, tmp_path):
    """The toy, started by a client of its own that waits for it; ends with the first log line of the GPU step."""
    clients = []

    def start():
        thread = while_running(services, "add", lambda pod: None)
        (tmp_path / "toy" / "run.yaml").write_text(
            yaml.safe_dump(
                {
                    "enable_cache": False,
                    "parameters": {"wait_s": 12},
                    "settings": {
                        "docker": {"parent_image": IMAGE, "skip_build": True},
                        "orchestrator.kubernetes": {"job_monitoring_interval": 1},
                    },
                }
            )
        )
        command = [str(Path(sys.executable).with_name("zenml")), "pipeline", "run", "toy.toy", "-c", "run.yaml"]
        clients.append(
            subprocess.Popen(
                [*command, "-s", "lungsynth-kubernetes"],
                cwd=tmp_path / "toy",
                env=services.environment,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
            )
        )
        thread.join()
        return clients[-1]

    yield start
    for client in clients:
        client.kill()
        client.wait()


@pytest.mark.cluster
def test_a_run_goes_on_without_the_client_that_started_it(services, started, ask):
    client = started()
    client.kill()
    assert ask()["state"] == "running"
    services.cluster.wait(lambda: ask()["state"] == "completed", 120)


@pytest.mark.cluster
def test_a_run_whose_orchestrator_is_gone_is_dead(services, started, ask):
    client = started()
    client.kill()
    objects = services.cluster.objects
    with objects.lock:
        jobs = [job for job in objects.all("jobs", "zenml") if not job["status"].get("conditions")]
        [orchestrator] = [job for job in jobs if "step_name" not in (job["metadata"].get("labels") or {})]
        for pod in objects.delete("jobs", "zenml", orchestrator["metadata"]["name"]):
            services.cluster.podman.kill(f"zenml.{pod['metadata']['name']}", 0)  # no time to report its end
    assert ask()["state"] == "dead"
