"""Shards: built once, in any order, by any number of workers, and never lost."""

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml

from lungsynth.cohort.phantom import PhantomCohortConfig, select_phantoms
from lungsynth.cohort.splits import SplitConfig
from lungsynth.dataset.store import COLUMNS, write_shard
from lungsynth.errors import LungsynthError
from lungsynth.fetching.delivery import Delivery
from lungsynth.fetching.fetch import FetchConfig, deliver
from lungsynth.slicing import shard, shards
from lungsynth.slicing.series import SliceConfig
from lungsynth.slicing.shards import build_slices, build_some, shard_count
from lungsynth.slicing.slices import slices_of_series

SPLITS = SplitConfig(method="ranked")
PHANTOMS = PhantomCohortConfig(patients=8, matrix=128, slices=(20, 22))


@pytest.fixture(scope="module")
def fetch(tmp_path_factory):
    return FetchConfig(root=tmp_path_factory.mktemp("series"))


@pytest.fixture(scope="module")
def cohort():
    return select_phantoms(PHANTOMS, SPLITS)


def slices(root, **fields):
    return SliceConfig(**({"size": 32, "root": root, "workers": 1, "patients_per_shard": 2} | fields))


@pytest.fixture(scope="module")
def dataset(cohort, fetch, tmp_path_factory):
    return build_slices(cohort, fetch, slices(tmp_path_factory.mktemp("slices"), masks=True), phantoms=PHANTOMS)


def test_every_series_has_a_fate(dataset, cohort):
    assert set(dataset.series["series_uid"]) == set(cohort.images["series_uid"])
    assert (dataset.series["state"] == "built").all()
    assert dataset.series["slices"].sum() == len(dataset.images) == len(dataset.table)
    assert dataset.masks.shape == dataset.images.shape
    assert 0.1 < dataset.masks[:].mean() < 0.9
    assert len(list((dataset.folder / "shards").iterdir())) > 1
    patients = set(cohort.series["patient"])
    assert not patients & set(pd.concat([dataset.table, dataset.series]).astype(str).to_numpy().ravel())


def test_the_number_of_workers_changes_nothing(dataset, cohort, fetch, tmp_path):
    again = build_slices(cohort, fetch, slices(tmp_path, masks=True, workers=2), phantoms=PHANTOMS)
    assert again.sha256 == dataset.sha256
    assert np.array_equal(again.images, dataset.images)


def test_shards_are_built_once(dataset, cohort, fetch):
    config = slices(dataset.folder.parents[1], masks=True)
    before = {path: path.stat().st_mtime_ns for path in config.root.rglob("*")}
    assert build_slices(cohort, fetch, config, phantoms=PHANTOMS).folder == dataset.folder
    assert {path: path.stat().st_mtime_ns for path in config.root.rglob("*")} == before


def test_workers_of_a_job_leave_the_run_nothing_to_build(dataset, cohort, fetch, tmp_path, caplog):
    config = slices(tmp_path, masks=True)
    for index in range(3):
        build_some(cohort, fetch, config, phantoms=PHANTOMS, index=index, count=3)
    caplog.set_level("INFO")
    assert build_slices(cohort, fetch, config, phantoms=PHANTOMS).sha256 == dataset.sha256
    shards = len(list((dataset.folder / "shards").iterdir()))
    assert f"in {shards} shards ({shards} of them were there)" in caplog.text
    with pytest.raises(LungsynthError, match="no shard 4 of 4: count them from 0"):
        build_some(cohort, fetch, config, phantoms=PHANTOMS, index=4)


def test_a_cohort_that_grows_keeps_its_shards(cohort, fetch, tmp_path):
    config = slices(tmp_path)
    build_slices(cohort, fetch, config, phantoms=PHANTOMS)
    before = set((tmp_path / "shards").iterdir())
    larger = PHANTOMS.model_copy(update={"patients": 9})
    # Ranked splits may move patients; theirs stay as they are here, so that only the newcomer's shard is another.
    series = select_phantoms(larger, SPLITS).series
    known = cohort.series.set_index("series_uid")["split"]
    series["split"] = series["series_uid"].map(known).fillna("train")
    grown = type(cohort)(series, cohort.slice_labels, cohort.funnel)
    config = config.model_copy(update={"patients_per_shard": 3})
    assert shard_count(grown, config) == 4
    build_slices(grown, fetch, config, phantoms=larger)
    assert len(set((tmp_path / "shards").iterdir()) - before) == 1


def test_a_disk_budget_frees_the_series_and_changes_no_slice(dataset, cohort, tmp_path):
    budget = FetchConfig(root=tmp_path / "series", disk_budget_gb=0.004)
    frugal = build_slices(cohort, budget, slices(tmp_path / "slices", masks=True), phantoms=PHANTOMS)
    assert frugal.sha256 == dataset.sha256
    assert not [path for path in budget.root.rglob("*") if path.suffix == ".dcm"]


def test_a_damaged_series_is_recorded_and_the_rest_is_built(cohort, fetch, tmp_path):
    config = slices(tmp_path / "slices")
    uid = cohort.images.loc[cohort.images["split"] == "train", "series_uid"].iloc[0]
    other = FetchConfig(root=tmp_path / "series")
    build_some(cohort, other, slices(tmp_path / "first"), phantoms=PHANTOMS, index=0, count=1)
    [folder] = other.root.glob(uid)
    damaged = sorted(folder.iterdir())[3]
    content = damaged.read_bytes()
    damaged.write_bytes(content[:100] + bytes(len(content) - 100))  # as long as before: only a reader can tell
    dataset = build_slices(cohort, other, config, phantoms=PHANTOMS)
    assert dataset.rejected[["series_uid", "reason"]].values.tolist() == [[uid, "unreadable"]]
    assert damaged.name in dataset.rejected["detail"].iloc[0]
    assert uid not in set(dataset.table["series_uid"])


def test_slices_that_cannot_be_written_are_said_in_one_line(cohort, fetch, tmp_path):
    (tmp_path / "taken").write_text("a file where the folder should be")
    with pytest.raises(LungsynthError, match=r"cannot write slices into .*taken: Not a directory; free some space"):
        build_slices(cohort, fetch, slices(tmp_path / "taken"), phantoms=PHANTOMS)


def test_a_disk_too_small_for_the_cohort_is_said_before_anything_is_fetched(cohort, tmp_path):
    uuids = [f"00000000-0000-0000-0000-{number:012x}" for number in range(len(cohort.series))]
    remote = cohort.series.assign(url=[f"s3://idc-open-data/{uuid}/" for uuid in uuids], bytes=10**14)
    elsewhere = FetchConfig(root=tmp_path / "series", endpoints=("http://127.0.0.1:9",))
    with pytest.raises(LungsynthError, match=r"12 series need 1.2e\+06 GB and the disk of .*series has .* GB free"):
        build_slices(type(cohort)(remote, cohort.slice_labels, cohort.funnel), elsewhere, slices(tmp_path / "slices"))


def test_a_lesion_outline_that_cannot_be_had_is_tried_again(cohort, fetch, tmp_path, monkeypatch):
    seg = cohort.series[cohort.series["role"] == "lesion"].iloc[0]

    def lossy(series, config, phantoms):
        for delivery in deliver(series, config, phantoms):
            lost = delivery.series_uid == seg["series_uid"]
            yield Delivery(delivery.series_uid, None, "unreachable", "503") if lost else delivery

    config = slices(tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr(shard, "deliver", lossy)
        first = build_slices(cohort, fetch, config, phantoms=PHANTOMS)
    fate = first.rejected[["series_uid", "reason", "detail"]].values.tolist()
    assert fate == [[seg["source_series_uid"], "not_fetched", "lesion segmentation: unreachable: 503"]]
    again = build_slices(cohort, fetch, config, phantoms=PHANTOMS)
    assert again.rejected.empty
    assert len(again.images) > len(first.images)


def test_of_two_builders_of_one_shard_the_quicker_one_wins(tmp_path):
    table = pd.DataFrame(columns=list(COLUMNS))
    written = [write_shard(tmp_path / "shard", np.empty((0, 8, 8), np.uint8), table) for _ in range(2)]
    assert written[0] == written[1]
    assert [path.name for path in tmp_path.iterdir()] == ["shard"]


def test_a_fault_of_ours_costs_one_series_and_tells_no_text_of_it(cohort, fetch, tmp_path, monkeypatch):
    uid = cohort.images.loc[cohort.images["split"] == "train", "series_uid"].iloc[0]

    def faulty(job, config, classes):
        if job.series_uid == uid:
            raise ValueError("Doe^Jane")
        return slices_of_series(job, config, classes)

    monkeypatch.setattr(shard, "slices_of_series", faulty)
    dataset = build_slices(cohort, fetch, slices(tmp_path), phantoms=PHANTOMS)
    assert dataset.rejected[["series_uid", "reason"]].values.tolist() == [[uid, "failed"]]
    assert dataset.rejected["detail"].str.fullmatch(r"ValueError in test_shards\.py, line \d+").all()


def test_a_patient_gives_no_more_slices_than_the_cap(cohort, fetch, tmp_path):
    dataset = build_slices(cohort, fetch, slices(tmp_path, max_slices_per_patient=3), phantoms=PHANTOMS)
    counts = dataset.table.groupby(["patient", "label"]).size()
    assert counts.max() == 3
    assert dataset.series["slices"].sum() == len(dataset.images)


def test_a_class_without_slices_is_named(cohort, fetch, tmp_path):
    healthy = type(cohort)(cohort.series[cohort.series["label"] == "non-cancer"], cohort.slice_labels, cohort.funnel)
    with pytest.raises(LungsynthError, match="no cancer slice in train, no cancer slice in val"):
        build_slices(healthy, fetch, slices(tmp_path), phantoms=PHANTOMS)


def test_two_builds_at_once_take_turns_and_give_the_same(dataset, cohort, fetch, tmp_path, caplog):
    config, found = slices(tmp_path, masks=True, workers=1), []
    caplog.set_level("INFO")
    both = [
        threading.Thread(target=lambda: found.append(build_slices(cohort, fetch, config, phantoms=PHANTOMS)))
        for _ in range(2)
    ]
    for thread in both:
        thread.start()
    for thread in both:
        thread.join()
    assert [one.sha256 for one in found] == [dataset.sha256] * 2
    assert found[0].folder == found[1].folder
    assert sum("is at work in" in message for message in caplog.messages) == 1
    assert "(4 of them were there)" in caplog.text
    assert "(0 of them were there)" in caplog.text
    assert sorted(path.name for path in tmp_path.iterdir()) == ["datasets", "shards"]
    assert not [path for path in (tmp_path / "shards").iterdir() if path.name.startswith(".")]


def test_a_dataset_of_others_that_cannot_be_written_is_read(dataset, cohort, fetch, monkeypatch):
    def refuse(*_):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(shards, "alone", refuse)
    monkeypatch.setattr(shards, "write_notes", refuse)
    assert (
        build_slices(cohort, fetch, slices(dataset.folder.parents[1], masks=True), phantoms=PHANTOMS).sha256
        == dataset.sha256
    )


def test_kill_9_costs_no_finished_shard(dataset, tmp_path):
    run_file = tmp_path / "run.yaml"
    config = {
        "cohort": PHANTOMS.model_dump(mode="json"),
        "splits": {"method": "ranked"},
        "fetch": {"root": str(tmp_path / "series")},
        "slices": {"size": 32, "root": str(tmp_path / "slices"), "workers": 2, "patients_per_shard": 2, "masks": True},
        "generator": {"size": 32},
    }
    run_file.write_text(yaml.safe_dump({"parameters": config}))
    shards = tmp_path / "slices" / "shards"
    with _cli("slices", "-c", run_file) as killed:
        deadline = time.monotonic() + 120
        while not (finished := [path for path in shards.glob("*") if not path.name.startswith(".")]):
            assert killed.poll() is None, killed.communicate()
            assert time.monotonic() < deadline
            time.sleep(0.02)
        os.killpg(killed.pid, signal.SIGKILL)
    kept = {path: path.stat().st_mtime_ns for path in finished}
    with _cli("slices", "-c", run_file) as again:
        output, _ = again.communicate(timeout=200)
    assert again.returncode == 0, output
    assert {path: path.stat().st_mtime_ns for path in finished} == kept
    built = type(dataset)(Path(output.splitlines()[-1]))
    assert built.sha256 == dataset.sha256


def _cli(*arguments):
    command = [sys.executable, "-c", "from lungsynth.cli import main; main()", *map(str, arguments)]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True, env=environment
    )


def test_another_cut_version_or_decoder_gives_another_shard(cohort, tmp_path, monkeypatch):
    part = next(iter(cohort.shards(1)))
    before = shard.shard_folder(part, slices(tmp_path))
    monkeypatch.setattr(shard, "CUT_VERSION", f"{shard.CUT_VERSION}a")
    raised = shard.shard_folder(part, slices(tmp_path))
    monkeypatch.setattr(shard, "version", lambda package: f"99 {package}")
    assert len({before, raised, shard.shard_folder(part, slices(tmp_path))}) == 3
