"""What networks, stores, disks and operators do to a fetch; after each, no partial series and nothing fetched twice."""

import itertools
import json
import signal
import subprocess
import sys
import time
from uuid import UUID

import numpy as np
import pandas as pd
import pytest
import s3_mirror
from fault_proxy import Fault, fault_proxy

from lungsynth.errors import LungsynthError
from lungsynth.fetching.download import RetryPolicy
from lungsynth.fetching.fetch import OUTAGE_SERIES, FetchConfig, deliver

FILES, FILE_BYTES = 6, 20_000
STALL_S = 1.5  # s5cmd starts within that even on a busy machine
# All of moto's servers in one process share their buckets, so these keys are no other test's.
FOLDERS = [str(UUID(int=1000 + n)) for n in range(OUTAGE_SERIES + 3)]
ONE, TWO = FOLDERS[:2]
BAD = f"{ONE}/2.dcm"


@pytest.fixture(scope="module")
def bucket(tmp_path_factory):
    root = tmp_path_factory.mktemp("bucket")
    rng = np.random.default_rng(0)
    for name, n in itertools.product(FOLDERS, range(FILES)):
        (root / s3_mirror.BUCKET / name).mkdir(parents=True, exist_ok=True)
        (root / s3_mirror.BUCKET / name / f"{n}.dcm").write_bytes(rng.bytes(FILE_BYTES))
    return root


@pytest.fixture(scope="module")
def server(bucket):
    with s3_mirror.serve(bucket) as url:
        yield url


def rows(*names: str, known_size: bool = True) -> pd.DataFrame:
    size = FILES * FILE_BYTES if known_size else None
    return pd.DataFrame(
        {"series_uid": name, "instances": FILES, "bytes": size, "url": f"s3://{s3_mirror.BUCKET}/{name}/"}
        for name in names
    )


def settings(root, proxy, **others) -> dict:
    """Of a `FetchConfig`, as JSON."""
    return {"root": str(root), "endpoints": [proxy.url], "retries": 3, "backoff_s": 0.01, "stall_s": STALL_S} | others


def fetch(names, root, proxy, **others) -> dict:
    return {one.series_uid: one for one in deliver(rows(*names), FetchConfig(**settings(root, proxy, **others)), None)}


def all_visible_is_whole(root, bucket) -> set[str]:
    """The names of the series that can be seen, all of which must be what the store holds, byte for byte."""
    seen = {path for path in root.iterdir() if path.name != ".fetch"}
    for folder in seen:
        original = bucket / s3_mirror.BUCKET / folder.name
        assert {file.name: file.read_bytes() for file in folder.iterdir()} == {
            file.name: file.read_bytes() for file in original.iterdir()
        }
    return {folder.name for folder in seen}


@pytest.mark.parametrize("kind", ["slow_down", "refuse", "reset", "short", "stall", "truncate", "flip"])
def test_what_passes_is_survived(kind, bucket, server, tmp_path):
    """Each fault twice for one object: the series is whole at the third attempt, the other objects came once."""
    with fault_proxy(server, Fault(kind, BAD, times=2)) as proxy:
        deliveries = fetch([ONE, TWO], tmp_path, proxy)
    # Go's HTTP client itself repeats requests on a connection that was closed before any answer: once, twice or never.
    fewest = 1 if kind == "refuse" else 3
    assert [deliveries[name].attempts for name in (ONE, TWO)] in [[number, 1] for number in range(fewest, 4)]
    assert all_visible_is_whole(tmp_path, bucket) == {ONE, TWO}
    gets = proxy.object_gets()
    assert gets.pop(BAD) == 3
    assert len(gets) == 2 * FILES - 1
    assert set(gets.values()) == {1}


@pytest.mark.parametrize(
    ("kind", "reason", "detail"),
    [
        ("slow_down", "unreachable", "1 of 6 instances are missing: SlowDown: Reduce your request rate."),
        ("refuse", "unreachable", "1 of 6 instances are missing: "),
        ("reset", "unreachable", "1 of 6 instances are missing: read: connection reset by peer"),
        ("short", "unreachable", "1 of 6 instances are missing: unexpected EOF"),
        ("stall", "stalled", "nothing arrived for 1.5 s"),
        ("truncate", "damaged", "1 of 6 instances differ from the store's sizes or MD5 sums"),
        ("flip", "damaged", "1 of 6 instances differ from the store's sizes or MD5 sums"),
    ],
)
def test_what_stays_is_given_up_and_a_later_run_fetches_what_is_missing(kind, reason, detail, bucket, server, tmp_path):
    with fault_proxy(server, Fault(kind, BAD)) as proxy:
        lost = fetch([ONE, TWO], tmp_path, proxy, retries=1)
        assert (lost[ONE].folder, lost[ONE].reason, lost[ONE].attempts) == (None, reason, 2)
        assert lost[ONE].detail.startswith(detail)
        assert not lost[TWO].reason
        assert all_visible_is_whole(tmp_path, bucket) == {TWO}
        proxy.faults.clear()
        proxy.gets.clear()
        again = fetch([ONE, TWO], tmp_path, proxy)
    assert (again[ONE].reason, again[ONE].bytes, again[TWO].source) == ("", FILE_BYTES, "disk")
    assert all_visible_is_whole(tmp_path, bucket) == {ONE, TWO}
    assert proxy.object_gets() == {BAD: 1}


def test_a_storm_over_everything_is_waited_out(bucket, server, tmp_path):
    """The first three answers to listings are 503, the first two to each object; the probe takes one of them."""
    with fault_proxy(server, Fault("slow_down", f"prefix={ONE}", times=3), Fault("slow_down", times=2)) as proxy:
        delivery = fetch([ONE, TWO], tmp_path, proxy, retries=8)[ONE]
    assert (delivery.reason, delivery.attempts, delivery.bytes) == ("", 5, FILES * FILE_BYTES)
    assert all_visible_is_whole(tmp_path, bucket) == {ONE, TWO}


def test_a_missing_object_and_a_missing_prefix_are_no_reason_to_ask_again(bucket, server, tmp_path):
    absent = str(UUID(int=99))
    with fault_proxy(server, Fault("missing", BAD)) as proxy:
        deliveries = fetch([ONE, absent, TWO], tmp_path, proxy)
    assert [deliveries[name].reason for name in (ONE, absent, TWO)] == ["incomplete", "not_found", ""]
    assert deliveries[ONE].detail == "1 of 6 instances are missing: NoSuchKey: There is none. status code: 404"
    assert [one.attempts for one in deliveries.values()] == [1, 1, 1]
    assert all_visible_is_whole(tmp_path, bucket) == {TWO}
    assert not list((tmp_path / ".fetch").glob("*.part"))


def test_a_trickle_is_given_up_when_its_time_is_up(server, tmp_path):
    with fault_proxy(server, Fault("slow", ONE, pause_s=0.3)) as proxy:
        delivery = fetch([ONE], tmp_path, proxy, connections=1, workers=1, timeout_s=1.0)[ONE]
    assert (delivery.folder, delivery.reason) == (None, "too_slow")


def test_a_store_that_fails_is_asked_last(bucket, server, tmp_path):
    """Two stores that stand in for each other: what the first gave of a series is not fetched from the second."""
    with fault_proxy(server, Fault("slow_down", BAD)) as first, fault_proxy(server) as second:
        deliveries = fetch([ONE, TWO], tmp_path, first, endpoints=[first.url, second.url], workers=1)
    assert [(one.source, one.attempts) for one in deliveries.values()] == [(second.url, 2), (second.url, 1)]
    assert second.object_gets() == {BAD: 1} | {f"{TWO}/{n}.dcm": 1 for n in range(FILES)}
    assert all_visible_is_whole(tmp_path, bucket) == {ONE, TWO}


def test_an_outage_in_the_middle_ends_the_run_and_the_next_goes_on(bucket, server, tmp_path):
    lost, config = [], {"retries": 0, "workers": 1}
    with fault_proxy(server, *(Fault("refuse", name) for name in FOLDERS[2:])) as proxy:
        with pytest.raises(LungsynthError, match=r"none of the last 8 series .*: what is whole stays; run again"):
            lost.extend(deliver(rows(*FOLDERS), FetchConfig(**settings(tmp_path, proxy, **config)), None))
        assert all_visible_is_whole(tmp_path, bucket) == {ONE, TWO}
        proxy.faults.clear()
        proxy.gets.clear()
        assert not any(one.reason for one in fetch(FOLDERS, tmp_path, proxy, **config).values())
    assert not any(name.startswith((ONE, TWO)) for name in proxy.object_gets())
    assert all_visible_is_whole(tmp_path, bucket) == set(FOLDERS)


FETCH = """
import json, sys, pandas
from lungsynth.fetching.fetch import FetchConfig, deliver
from lungsynth.errors import LungsynthError
def fetch(config, series):
    try:
        return [one.reason for one in deliver(pandas.read_json(series), FetchConfig(**json.loads(config)), None)]
    except LungsynthError as error:
        return str(error)
"""


def test_kill_9_in_the_middle(bucket, server, tmp_path):
    """The killed run's s5cmd ends by itself, its lock with it; the next run goes on with the objects that are whole."""
    with fault_proxy(server, Fault("slow", pause_s=0.3)) as proxy:
        config = settings(tmp_path / "series", proxy, workers=1, connections=1)
        rows(ONE, TWO).to_json(tmp_path / "series.json")
        script = FETCH + "fetch(*sys.argv[1:])"
        killed = subprocess.Popen([sys.executable, "-c", script, json.dumps(config), str(tmp_path / "series.json")])
        while sum(proxy.object_gets().values()) < FILES + 3 and killed.poll() is None:
            time.sleep(0.01)
        killed.send_signal(signal.SIGKILL)
        killed.wait()
        time.sleep(1.2)  # in which a living s5cmd would have got all
        assert sum(proxy.object_gets().values()) < 2 * FILES
        assert all_visible_is_whole(tmp_path / "series", bucket) == {ONE}
        before = sum(proxy.object_gets().values())
        again = fetch([ONE, TWO], tmp_path / "series", proxy)
    assert [again[name].reason for name in (ONE, TWO)] == ["", ""]
    assert again[ONE].source == "disk"
    assert 0 < again[TWO].bytes <= (FILES - 2) * FILE_BYTES
    assert sum(proxy.object_gets().values()) - before == again[TWO].bytes // FILE_BYTES
    assert all_visible_is_whole(tmp_path / "series", bucket) == {ONE, TWO}
    assert not list((tmp_path / "series" / ".fetch").glob("*.lock"))


def _may_mount() -> bool:
    command = ["unshare", "-rm", "mount", "-t", "tmpfs", "tmpfs", "/mnt"]
    try:
        return subprocess.run(command, capture_output=True, check=False).returncode == 0
    except FileNotFoundError:
        return False


def test_a_full_disk_is_one_error_and_with_more_room_the_next_run_goes_on(bucket, server, tmp_path):
    """On a real file system of 240 kB, made in a namespace of its own; three series take 360 kB."""
    if not _may_mount():
        pytest.skip("this machine lets nobody mount a file system in a namespace of their own")
    script = FETCH + (
        "import os, subprocess\nconfig, series, root = sys.argv[1:]\n"
        "mount = lambda *options: subprocess.run(['mount', *options, root], check=True)\n"
        "mount('-t', 'tmpfs', '-o', 'size=240k', 'tmpfs')\n"
        "full = fetch(config, series)\nseen = {name: len(os.listdir(f'{root}/{name}')) for name in os.listdir(root)}\n"
        "mount('-o', 'remount,size=2m')\n"
        "print(json.dumps([full, seen, fetch(config, series), sorted(os.listdir(root))]))\n"
    )
    root = tmp_path / "small"
    root.mkdir()
    with fault_proxy(server) as proxy:
        config = json.dumps(settings(root, proxy, workers=1, connections=1))
        rows(*FOLDERS[:3], known_size=False).to_json(tmp_path / "series.json")
        command = ["unshare", "-rm", sys.executable, "-c", script, config, str(tmp_path / "series.json"), str(root)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    full, seen, then, names = json.loads(done.stdout)
    assert full.startswith(f"the disk of {root} became full at series {TWO}: free some space, set fetch.root")
    assert "\n" not in full
    assert {name: count for name, count in seen.items() if name != ".fetch"} == {ONE: FILES}
    assert then == ["", "", ""]
    assert names == [".fetch", *FOLDERS[:3]]
    assert all(proxy.object_gets()[f"{ONE}/{n}.dcm"] == 1 for n in range(FILES))
    assert sum(proxy.object_gets()[f"{TWO}/{n}.dcm"] for n in range(FILES)) < 2 * FILES


def test_waits_grow_with_full_jitter_and_follow_the_seed():
    policy = RetryPolicy(retries=9, backoff_s=1.0, stall_s=60, timeout_s=900, seed=3)
    waits = np.array([policy.waits(str(n)) for n in range(2000)])
    bounds = np.minimum(60, 2.0 ** np.arange(9))
    assert (waits[:, 0] == 0).all()
    assert (waits[:, 1:] <= bounds).all()
    assert np.allclose(waits[:, 1:].mean(axis=0), bounds / 2, rtol=0.05)
    assert policy.waits("1") == policy.waits("1") != policy.waits("2")
