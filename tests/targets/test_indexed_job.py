"""Shards by an Indexed Job: pods that share nothing but a bucket make the dataset of one machine."""

import shutil
import threading
from pathlib import Path

import pytest
import yaml
from warm import run_warm

from lungsynth.dataset.store import SliceDataset

pytestmark = pytest.mark.cluster
ROOT = Path(__file__).parents[2]
PARAMETERS = {
    "cohort": {"source": "phantom", "patients": 24, "matrix": 128, "slices": [20, 24]},
    "splits": {"method": "ranked"},
    "generator": {"size": 32},
}


@pytest.fixture
def build(services, tmp_path):
    """Runs `lungsynth slices` in a folder of its own."""

    def run(name, root, *options):
        (tmp_path / name / "infra").mkdir(parents=True)
        shutil.copytree(ROOT / "infra" / "kubernetes", tmp_path / name / "infra" / "kubernetes")
        slices = {"size": 32, "root": root, "workers": 1, "patients_per_shard": 3}
        (tmp_path / name / "run.yaml").write_text(yaml.safe_dump({"parameters": PARAMETERS | {"slices": slices}}))
        command = ["slices", "-c", "run.yaml", *options]
        done = run_warm("lungsynth", command, folder=tmp_path / name, environment=services.environment)
        return done, tmp_path / name

    return run


def test_four_pods_of_which_one_is_killed_build_the_dataset_of_one_machine(services, build):
    alone, here = build("alone", "data/slices")
    assert alone.returncode == 0, alone.stderr
    killed = []

    def kill_one():
        def running():
            pods = services.cluster.pods("app.kubernetes.io/component=build-shards")
            return [pod for pod in pods if pod["status"]["phase"] == "Running"]

        killed.append(services.cluster.wait(running)[0])
        services.cluster.preempt(killed[0], grace_s=0)

    thread = threading.Thread(target=kill_one)
    thread.start()
    done, there = build("pods", "s3://lungsynth/indexed", "--engine", "kubernetes", "--pods", "4")
    thread.join()
    assert done.returncode == 0, done.stderr
    assert "in 8 shards (8 of them were there)" in done.stderr
    pods = services.cluster.pods("app.kubernetes.io/component=build-shards")
    assert len(pods) == 5  # one index had a second pod
    assert killed[0]["status"]["phase"] == "Failed"
    assert not (there / "data" / "series").exists()
    datasets = [SliceDataset(folder / run.stdout.strip()) for run, folder in ((alone, here), (done, there))]
    assert datasets[0].sha256 == datasets[1].sha256


def test_a_root_that_pods_do_not_share_is_refused(build):
    done, _ = build("local", "data/slices", "--engine", "kubernetes")
    assert done.returncode == 1
    assert done.stderr.startswith("Error: slices.root is data/slices, which pods do not share: name a URL")
    assert done.stderr.count("\n") == 1
