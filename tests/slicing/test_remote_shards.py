"""Shards at a URL: each is built by one machine, and others take its tables, and its slices when they need them."""

from pathlib import Path

import numpy as np
import pytest

from lungsynth import remote
from lungsynth.cohort.phantom import PhantomCohortConfig, select_phantoms
from lungsynth.cohort.splits import SplitConfig
from lungsynth.dataset.store import SliceDataset
from lungsynth.errors import LungsynthError
from lungsynth.fetching.fetch import FetchConfig
from lungsynth.report.build import draw_build
from lungsynth.slicing.series import SliceConfig
from lungsynth.slicing.shards import build_slices, build_some
from lungsynth.training.read import read

PHANTOMS = PhantomCohortConfig(source="phantom", patients=8, matrix=128, slices=(20, 22))


@pytest.fixture(scope="module")
def cohort():
    return select_phantoms(PHANTOMS, SplitConfig(method="ranked"))


def config(root) -> SliceConfig:
    return SliceConfig(size=32, root=root, workers=1, patients_per_shard=2, masks=True)


@pytest.fixture(scope="module")
def on_one_disk(cohort, tmp_path_factory) -> SliceDataset:
    folder = tmp_path_factory.mktemp("local")
    return build_slices(cohort, FetchConfig(root=folder / "series"), config(folder / "slices"), phantoms=PHANTOMS)


def test_machines_that_share_no_disk_make_the_dataset_of_one(
    bucket, cohort, on_one_disk, tmp_path, monkeypatch, caplog
):
    caplog.set_level("INFO", "lungsynth")
    for index in ("0", "1"):  # two pods
        (tmp_path / index).mkdir()
        monkeypatch.chdir(tmp_path / index)
        build_some(cohort, FetchConfig(), config(f"{bucket}/slices"), phantoms=PHANTOMS, index=int(index), count=2)
        assert not [*Path("data/remote").rglob("*.safetensors")]  # they are at the URL alone
    (tmp_path / "run").mkdir()
    monkeypatch.chdir(tmp_path / "run")
    dataset = build_slices(cohort, FetchConfig(), config(f"{bucket}/slices"), phantoms=PHANTOMS)
    assert "in 4 shards (4 of them were there), 0 series rejected, 0 MB fetched" in caplog.text
    assert not Path("data/series").exists()
    assert dataset.sha256 == on_one_disk.sha256
    draw_build(dataset)
    assert not [*dataset.folder.glob("shards/*/*")]  # neither tables nor pictures of a build need the slices
    assert np.array_equal(dataset.images[:], on_one_disk.images[:])
    assert np.array_equal(dataset.masks[:], on_one_disk.masks[:])
    data = read(dataset.folder)
    assert np.array_equal(data.images[:], on_one_disk.images[:])
    assert data.sha256 == on_one_disk.sha256


def test_a_dataset_at_a_url_opens_wherever_its_folder_is_copied(bucket, cohort, on_one_disk, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    built = build_slices(cohort, FetchConfig(), config(f"{bucket}/slices"), phantoms=PHANTOMS)
    built.folder.rename(tmp_path / "elsewhere")
    assert np.array_equal(SliceDataset(tmp_path / "elsewhere").images[3], on_one_disk.images[3])


def test_a_shard_that_is_gone_from_its_url_is_named(bucket, cohort, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    dataset = build_slices(cohort, FetchConfig(), config(f"{bucket}/slices"), phantoms=PHANTOMS)
    remote.remove(f"{bucket}/slices")
    with pytest.raises(LungsynthError, match=rf"^{bucket}/slices/shards/\w+/images.safetensors: .* does not exist"):
        dataset.images  # noqa: B018


def test_a_store_that_is_down_stops_the_build_in_one_line(bucket, cohort, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    with pytest.raises(LungsynthError, match=rf"^{bucket}/slices/shards: Could not connect"):
        build_slices(cohort, FetchConfig(), config(f"{bucket}/slices"), phantoms=PHANTOMS)
