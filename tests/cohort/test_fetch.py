"""Fetching from a real S3 server on loopback by the real s5cmd, and simulating phantoms."""

import logging
import os
import shutil
import socket
import time
from uuid import UUID

import numpy as np
import pandas as pd
import pytest
import s3_mirror
from pydantic import ValidationError

from lungsynth.cohort import fetch
from lungsynth.cohort.cohort import COLUMNS, Cohort, no_slice_labels
from lungsynth.cohort.fetch import FetchConfig, fetch_series
from lungsynth.cohort.idc import IdcCohortConfig, select_idc
from lungsynth.cohort.object_store import ObjectStore
from lungsynth.cohort.phantom import PhantomCohortConfig, select_phantoms
from lungsynth.cohort.splits import SplitConfig
from lungsynth.errors import LungsynthError

IDC = IdcCohortConfig(where="true", labels={"lesion_seg": "nlstseg"})
FILE_BYTES = 20_000
FOLDERS = [str(UUID(int=n)) for n in range(3)]
ABSENT = str(UUID(int=99))


@pytest.fixture(scope="module")
def endpoint(tmp_path_factory):
    """A server with three series of four files each."""
    root = tmp_path_factory.mktemp("bucket")
    rng = np.random.default_rng(0)
    for name in FOLDERS:
        (root / s3_mirror.BUCKET / name).mkdir(parents=True)
        for n in range(4):
            (root / s3_mirror.BUCKET / name / f"{n}.dcm").write_bytes(rng.bytes(FILE_BYTES))
    with s3_mirror.serve(root) as url:
        yield url


def cohort_of(*names: str, instances: int = 4, size: int = 4 * FILE_BYTES, bucket: str = s3_mirror.BUCKET) -> Cohort:
    rows = [
        {"series_uid": f"1.2.{n}", "instances": instances, "bytes": size, "url": f"s3://{bucket}/{name}/"}
        for n, name in enumerate(names)
    ]
    return Cohort(pd.DataFrame(rows).reindex(columns=list(COLUMNS)), no_slice_labels())


def state(store) -> list[tuple[str, str]]:
    return list(zip(store.table["state"], store.table["reason"], strict=True))


def test_series_arrive_whole_and_only_once(endpoint, tmp_path, caplog):
    config = FetchConfig(root=tmp_path / "series", endpoint=endpoint)
    caplog.set_level(logging.INFO)
    store = fetch_series(cohort_of(*FOLDERS), IDC, config)
    assert state(store) == [("present", "")] * 3
    assert sorted(path.name for path in store.root.iterdir()) == FOLDERS
    assert [sum(file.stat().st_size for file in (store.root / name).iterdir()) for name in FOLDERS] == [80_000] * 3
    assert "fetched 3 series (0 MB), 0 already there, 0 rejected" in caplog.text
    with socket.create_server(("127.0.0.1", 0)) as free:
        nobody = f"http://127.0.0.1:{free.getsockname()[1]}"
    again = fetch_series(cohort_of(*FOLDERS), IDC, config.model_copy(update={"endpoint": nobody}))
    assert again.sha256 == store.sha256
    assert "fetched 0 series, 3 already there, 0 rejected" in caplog.text


def test_only_what_is_missing_or_damaged_is_fetched(endpoint, tmp_path):
    config = FetchConfig(root=tmp_path, endpoint=endpoint)
    store = fetch_series(cohort_of(*FOLDERS), IDC, config)
    untouched = (tmp_path / FOLDERS[0] / "0.dcm").stat().st_ino
    (tmp_path / FOLDERS[1] / "2.dcm").unlink()
    shutil.rmtree(tmp_path / FOLDERS[2])
    assert fetch_series(cohort_of(*FOLDERS), IDC, config).sha256 == store.sha256
    assert (tmp_path / FOLDERS[0] / "0.dcm").stat().st_ino == untouched
    assert len(list((tmp_path / FOLDERS[1]).iterdir())) == 4


@pytest.mark.parametrize(
    ("cohort", "reason", "detail"),
    [
        (cohort_of(FOLDERS[0], instances=5, size=5 * FILE_BYTES), "incomplete", "4 of 5 instances"),
        (cohort_of(FOLDERS[0], instances=3), "size_differs", "4 instances where 3 are expected"),
        (cohort_of(FOLDERS[0], size=4 * FILE_BYTES + 100), "size_differs", "80000 bytes where 80100 are expected"),
        (cohort_of(ABSENT), "not_found", "no object found"),
        (cohort_of(FOLDERS[0], bucket="other-bucket"), "not_found", "NotFound: Not Found status code: 404"),
    ],
)
def test_what_is_not_whole_is_rejected_and_leaves_nothing(endpoint, tmp_path, cohort, reason, detail):
    store = fetch_series(cohort, IDC, FetchConfig(root=tmp_path, endpoint=endpoint))
    assert state(store) == [("rejected", reason)]
    assert store.table["detail"][0] == detail
    assert list(tmp_path.iterdir()) == []


def test_one_rejected_series_does_not_stop_the_others(endpoint, tmp_path):
    store = fetch_series(cohort_of(FOLDERS[0], ABSENT, FOLDERS[1]), IDC, FetchConfig(root=tmp_path, endpoint=endpoint))
    assert state(store) == [("present", ""), ("rejected", "not_found"), ("present", "")]


def test_headers_that_a_mirror_rewrote_are_tolerated(endpoint, tmp_path):
    cohort = cohort_of(FOLDERS[0], size=4 * FILE_BYTES + 4)
    assert state(fetch_series(cohort, IDC, FetchConfig(root=tmp_path, endpoint=endpoint))) == [("present", "")]
    strict = FetchConfig(root=tmp_path, endpoint=endpoint, size_tolerance=0)
    assert state(fetch_series(cohort, IDC, strict)) == [("rejected", "size_differs")]


def test_leftovers_of_dead_runs_go_and_those_of_living_ones_stay(endpoint, tmp_path):
    dead, living = tmp_path / f".{FOLDERS[0]}.0a.part", tmp_path / f".{FOLDERS[1]}.0b.part"
    for part in (dead, living):
        part.mkdir()
        (part / "0.dcm").write_bytes(b"half")
    os.utime(dead, (time.time() - 1000, time.time() - 1000))
    store = fetch_series(cohort_of(*FOLDERS), IDC, FetchConfig(root=tmp_path, endpoint=endpoint, timeout_s=900))
    assert state(store) == [("present", "")] * 3
    assert not dead.exists()
    assert living.exists()


def test_an_endpoint_that_refuses_is_an_error_that_names_it(tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as free:
        url = f"http://127.0.0.1:{free.getsockname()[1]}"
    with pytest.raises(LungsynthError, match=f"{url} gives nothing: .*connection refused; .*fetch.endpoint") as error:
        fetch_series(cohort_of(*FOLDERS), IDC, FetchConfig(root=tmp_path, endpoint=url, retries=0))
    assert "\n" not in str(error.value)


def test_an_endpoint_that_never_answers_ends_in_an_error(tmp_path, monkeypatch):
    monkeypatch.setattr("lungsynth.cohort.object_store.PROBE_TIMEOUT_S", 0.5)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}"
        with pytest.raises(LungsynthError, match=r"gives nothing: no end after 0\.5 s"):
            fetch_series(cohort_of(*FOLDERS), IDC, FetchConfig(root=tmp_path, endpoint=url))


def test_a_series_that_takes_too_long_is_rejected(endpoint, tmp_path):
    store = fetch_series(cohort_of(FOLDERS[0]), IDC, FetchConfig(root=tmp_path, endpoint=endpoint, timeout_s=1e-3))
    assert state(store) == [("rejected", "unreachable")]
    assert store.table["detail"][0] == "no end after 0.001 s"


def test_a_disk_that_is_too_small_is_an_error_before_anything_is_fetched(endpoint, tmp_path):
    with pytest.raises(LungsynthError, match=r"1 series need 1000000000\.0 GB and the disk of .* has [\d.]+ GB free"):
        fetch_series(cohort_of(FOLDERS[0], size=10**18), IDC, FetchConfig(root=tmp_path, endpoint=endpoint))
    assert list(tmp_path.iterdir()) == []


def test_a_root_that_is_a_file_is_an_error(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(LungsynthError, match="cannot make the folder of series"):
        fetch_series(cohort_of(FOLDERS[0]), IDC, FetchConfig(root=tmp_path / "file"))


@pytest.mark.parametrize("name", ["..", "../../etc", "series 1", "*", ".hidden"])
def test_urls_that_name_no_series_folder_are_errors(tmp_path, name):
    with pytest.raises(LungsynthError, match="expected s3://bucket/UUID/"):
        fetch_series(cohort_of(name), IDC, FetchConfig(root=tmp_path))


@pytest.mark.parametrize("endpoint", ["azure", "s3.amazonaws.com", "https://user:secret@host", "https://host/path"])
def test_endpoints_are_checked(endpoint):
    with pytest.raises(ValidationError):
        FetchConfig(endpoint=endpoint)


def test_googles_names_of_the_buckets():
    google, amazon = (ObjectStore(name, connections=1, retries=0) for name in ("gcs", "aws"))
    assert google.object_url("s3://idc-open-data-cr/u/") == "s3://idc-open-cr/u/"
    assert (
        google.object_url("s3://idc-open-data/u/")
        == amazon.object_url("s3://idc-open-data/u/")
        == "s3://idc-open-data/u/"
    )


def test_real_series_of_idc(mirror, tmp_path):
    config = IdcCohortConfig(
        where="collection_id IN ('lidc_idri', 'lung_pet_ct_dx', 'qin_lung_ct')",
        labels={"slice_csv": mirror / "slice_labels.csv"},
    )
    cohort = select_idc(config, SplitConfig(method="ranked"))
    with s3_mirror.serve(mirror) as url:
        store = fetch_series(cohort, config, FetchConfig(root=tmp_path, endpoint=url))
    assert state(store) == [("present", "")] * 4
    for folder in store.table["folder"]:
        original = mirror / s3_mirror.BUCKET / folder
        assert {file.name for file in (store.root / folder).iterdir()} == {file.name for file in original.iterdir()}
        some = next(original.iterdir())
        assert (store.root / folder / some.name).read_bytes() == some.read_bytes()


def test_phantoms_are_simulated_once_and_alike_in_any_number_of_processes(tmp_path, monkeypatch):
    config = PhantomCohortConfig(patients=3, cancer_fraction=0.4, matrix=128, slices=(20, 20))
    cohort = select_phantoms(config, SplitConfig(method="ranked"))
    alone = fetch_series(cohort, config, FetchConfig(root=tmp_path / "alone"))
    assert state(alone) == [("present", "")] * 4
    written = {file.relative_to(alone.root): file.stat().st_mtime_ns for file in alone.root.rglob("*.dcm")}
    assert len(written) == cohort.series["instances"].sum() == 61
    assert fetch_series(cohort, config, FetchConfig(root=alone.root)).sha256 == alone.sha256
    assert all((alone.root / name).stat().st_mtime_ns == time_ns for name, time_ns in written.items())
    monkeypatch.setattr(fetch, "PATIENTS_PER_PROCESS", 1)
    together = fetch_series(cohort, config, FetchConfig(root=tmp_path / "together", workers=2))
    assert together.sha256 == alone.sha256
    assert all((together.root / name).read_bytes() == (alone.root / name).read_bytes() for name in written)


def test_a_cohort_of_another_phantom_configuration_is_an_error(tmp_path):
    cohort = select_phantoms(PhantomCohortConfig(patients=3), SplitConfig(method="ranked"))
    with pytest.raises(LungsynthError, match="select the cohort again"):
        fetch_series(cohort, PhantomCohortConfig(patients=3, seed=1), FetchConfig(root=tmp_path))
