"""How many cores there are to use, and work side by side."""

import os

import pytest
import torch

from lungsynth import cpus
from lungsynth.cpus import side_by_side, torch_threads, usable_cpus


@pytest.fixture
def groups(monkeypatch, tmp_path):
    """Eight cores, and control groups in a folder of the test's own."""
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)), raising=False)
    monkeypatch.setattr(cpus, "CGROUPS", tmp_path)
    monkeypatch.setattr(cpus, "OWN_GROUPS", tmp_path / "own")

    def make(own: str, **limits: str):
        (tmp_path / "own").write_text(own)
        for name, content in limits.items():
            folder, _, file = name.replace("__", "/").rpartition("/")
            (tmp_path / folder).mkdir(parents=True, exist_ok=True)
            (tmp_path / folder / file.replace("cpu_", "cpu.", 1)).write_text(content)

    return make


@pytest.mark.parametrize(
    ("limit", "cores"), [("max 100000", 8), ("200000 100000", 2), ("150000 100000", 2), ("1000 100000", 1)]
)
def test_a_pods_limit_counts(groups, limit, cores):
    groups("0::/\n", cpu_max=limit)
    assert usable_cpus() == cores


def test_the_limit_of_a_group_above_counts(groups):
    groups("0::/pods/mine\n", pods__mine__cpu_max="max 100000", pods__cpu_max="300000 100000")
    assert usable_cpus() == 3


def test_a_hosts_path_that_the_container_does_not_see(groups):
    groups("0::/../../pod\n", cpu_max="200000 100000")
    assert usable_cpus() == 2


def test_version_1(groups):
    groups(
        "4:memory:/pod\n3:cpu,cpuacct:/pod\n",
        cpu__pod__cpu_cfs_quota_us="400000",
        cpu__pod__cpu_cfs_period_us="100000",
        cpu__cpu_cfs_quota_us="-1",
        cpu__cpu_cfs_period_us="100000",
    )
    assert usable_cpus() == 4


@pytest.mark.parametrize("own", ["", "0::/\n", "nonsense\n"])
def test_no_limit_and_what_cannot_be_read(groups, own):
    groups(own)
    assert usable_cpus() == 8


def test_results_in_order_one_thread_each():
    with torch_threads(3):
        found = list(side_by_side(lambda item: (item, torch.get_num_threads()), range(7)))
        assert torch.get_num_threads() == 3
    assert found == [(item, 1) for item in range(7)]


def test_the_first_error_ends_it():
    def fail(item: int) -> int:
        if item == 3:
            raise ValueError("three")
        return item

    with pytest.raises(ValueError, match="three"):
        list(side_by_side(fail, range(100)))
