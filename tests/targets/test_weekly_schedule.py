"""A schedule of configs/schedules on Kubernetes, from its creation to its end, by plain `zenml` commands."""

import shutil
from pathlib import Path

import pytest
import yaml
from minicluster.objects import ApiError
from warm import run_warm

pytestmark = pytest.mark.cluster
HERE = Path(__file__).parent
WEEKLY = yaml.safe_load((HERE.parents[1] / "configs" / "schedules" / "weekly.yaml").read_text())


@pytest.fixture
def zenml(services, tmp_path):
    shutil.copytree(HERE / "toy", tmp_path / "toy")

    def run(*command):
        return run_warm("zenml", command, folder=tmp_path / "toy", environment=services.environment, merged=True)

    return run


def test_a_schedule_fires_never_twice_at_once_and_obeys(services, zenml, tmp_path):
    cluster = services.cluster

    def crons():
        with cluster.objects.lock:
            return cluster.objects.all("cronjobs", "zenml")

    def ended(job):
        with cluster.objects.lock:
            return cluster.objects.get("jobs", "zenml", job)["status"].get("conditions")

    settings = WEEKLY["settings"]["orchestrator.kubernetes"] | {"job_monitoring_interval": 1}
    docker = {"parent_image": services.environment["LUNGSYNTH_IMAGE"], "skip_build": True}
    content = {"enable_cache": False, "schedule": WEEKLY["schedule"], "parameters": {"wait_s": 3}}
    content["settings"] = {"docker": docker, "orchestrator.kubernetes": settings}
    (tmp_path / "toy" / "run.yaml").write_text(yaml.safe_dump(content))

    created = zenml("pipeline", "run", "toy.toy", "-c", "run.yaml", "-s", "lungsynth-kubernetes")
    assert created.returncode == 0, created.stdout
    [cron] = crons()
    assert cron["spec"]["schedule"] == "0 3 * * 0"
    assert (cron["spec"]["concurrencyPolicy"], cron["spec"]["startingDeadlineSeconds"]) == ("Forbid", 3600)
    assert cron["spec"]["jobTemplate"]["spec"]["activeDeadlineSeconds"] == 172800
    name = cron["metadata"]["name"]

    job = cluster.fire(name)
    with pytest.raises(ApiError, match="is still active"):
        cluster.fire(name)
    assert cluster.wait(lambda: ended(job), 120)[0]["type"] == "Complete"

    assert "lungsynth-weekly" in zenml("pipeline", "schedule", "list").stdout
    paused = zenml("pipeline", "schedule", "deactivate", "lungsynth-weekly")
    assert paused.returncode == 0, paused.stdout
    with pytest.raises(ApiError, match="is suspended"):
        cluster.fire(name)
    assert zenml("pipeline", "schedule", "activate", "lungsynth-weekly").returncode == 0
    assert not crons()[0]["spec"].get("suspend")
    assert zenml("pipeline", "schedule", "update", "lungsynth-weekly", "-c", "0 3 * * 6").returncode == 0
    assert crons()[0]["spec"]["schedule"] == "0 3 * * 6"
    deleted = zenml("pipeline", "schedule", "delete", "lungsynth-weekly", "-y")
    assert deleted.returncode == 0, deleted.stdout
    assert crons() == []
