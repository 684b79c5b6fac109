"""Series that the store did not have: every run asks again, and what is there by then is taken in."""

import json
import shutil
from dataclasses import replace
from uuid import UUID

import pandas as pd
import pytest
import s3_mirror
from fault_proxy import fault_proxy

from lungsynth.cohort.phantom import PhantomCohortConfig, select_phantoms
from lungsynth.cohort.splits import SplitConfig
from lungsynth.dataset.undelivered import NOTE
from lungsynth.fetching.asking import ask
from lungsynth.fetching.fetch import FetchConfig, deliver
from lungsynth.report import tables
from lungsynth.slicing.series import SliceConfig
from lungsynth.slicing.shards import build_slices, build_some

PHANTOMS = PhantomCohortConfig(patients=8, matrix=128, slices=(20, 22))
PATIENTS = 16  # of a shard: one for all


@pytest.fixture(scope="module")
def simulated(tmp_path_factory):
    """A folder with each series as a mirror has it, and the cohort that fetches it from there."""
    cohort = select_phantoms(PHANTOMS, SplitConfig(method="ranked"))
    root = tmp_path_factory.mktemp("simulated")
    folders = {
        one.series_uid: one.folder for one in deliver(cohort.series, FetchConfig(root=root / "series"), PHANTOMS)
    }
    # Names of this file's own: moto's servers of one process share what they hold, also what other tests left.
    names = {uid: str(UUID(int=2000 + n)) for n, uid in enumerate(cohort.series["series_uid"])}
    for uid, name in names.items():
        shutil.copytree(folders[uid], root / s3_mirror.BUCKET / name)
    url = [f"s3://{s3_mirror.BUCKET}/{names[uid]}/" for uid in cohort.series["series_uid"]]
    size = [sum(file.stat().st_size for file in folders[uid].iterdir()) for uid in cohort.series["series_uid"]]
    return root / s3_mirror.BUCKET, replace(cohort, series=cohort.series.assign(url=url, bytes=size))


@pytest.fixture
def mirror(simulated, tmp_path):
    """The mirror at its first run: one series is absent, one has 5 of its objects; gives what brings them whole."""
    bucket, cohort = simulated
    absent, cut = cohort.images.loc[cohort.images["split"] == "train", "series_uid"].iloc[:2]
    url = dict(zip(cohort.series["series_uid"], cohort.series["url"], strict=True))
    name = {uid: where.rstrip("/").rpartition("/")[2] for uid, where in url.items()}
    partial = tmp_path / "mirror" / s3_mirror.BUCKET
    shutil.copytree(bucket, partial, ignore=shutil.ignore_patterns(name[absent]))
    for file in sorted((partial / name[cut]).iterdir())[5:]:
        file.unlink()
    with s3_mirror.serve(partial.parent) as endpoint:

        def bring(uid):
            for file in (bucket / name[uid]).iterdir():
                key = f"{name[uid]}/{file.name}"
                s3_mirror.client(endpoint).put_object(
                    Bucket=s3_mirror.BUCKET, Key=key, Body=file.read_bytes(), ACL="public-read"
                )

        yield cohort, endpoint, absent, cut, bring
        s3 = s3_mirror.client(endpoint)  # moto's servers of one process share what they hold
        for entry in s3.list_objects_v2(Bucket=s3_mirror.BUCKET).get("Contents", ()):
            s3.delete_object(Bucket=s3_mirror.BUCKET, Key=entry["Key"])


def configs(tmp_path, endpoint, name="", **slices):
    fetch = FetchConfig(root=tmp_path / f"series{name}", endpoints=(endpoint,), retries=0, **slices.pop("fetch", {}))
    fields = {"size": 32, "root": tmp_path / f"slices{name}", "workers": 1, "patients_per_shard": PATIENTS}
    return fetch, SliceConfig(**fields | slices)


def whole(cohort, tmp_path, endpoint, **slices):
    """The dataset of a run that finds all series."""
    fetch, config = configs(tmp_path, endpoint, "-whole", **slices)
    return build_slices(cohort, fetch, config)


@pytest.mark.parametrize("slices", [{}, {"masks": True, "fetch": {"disk_budget_gb": 1}}, {"max_slices_per_patient": 4}])
def test_a_series_that_arrives_later_is_taken_in_as_if_it_had_always_been_there(mirror, tmp_path, slices, caplog):
    cohort, endpoint, absent, cut, bring = mirror
    fetch, config = configs(tmp_path, endpoint, **slices)
    first = build_slices(cohort, fetch, config)
    fates = first.rejected.set_index("series_uid")["detail"].to_dict()
    instances = cohort.images.set_index("series_uid").at[cut, "instances"]
    assert fates == {absent: "not_found: no object found", cut: f"incomplete: 5 of {instances} instances"}
    bring(cut)
    caplog.set_level("INFO")
    with fault_proxy(endpoint) as proxy:
        second = build_slices(cohort, fetch.model_copy(update={"endpoints": (proxy.url,)}), config)
        fetched = {path.partition("/")[0] for path in proxy.object_gets()}
    assert "2 series that no store gave before were asked for again: 1 can be had now" in caplog.text
    assert second.rejected["series_uid"].tolist() == [absent]
    if "max_slices_per_patient" not in slices:
        rows = cohort.series[cohort.series[["series_uid", "source_series_uid"]].isin([absent, cut]).any(axis=1)]
        assert {f"s3://{s3_mirror.BUCKET}/{name}/" for name in fetched} <= set(rows["url"])  # the others are cut
    bring(absent)
    third = build_slices(cohort, fetch, config)
    assert third.rejected.empty
    assert not third.undelivered
    fresh = whole(cohort, tmp_path, endpoint, **slices)
    assert third.sha256 == fresh.sha256
    assert (third.images[:] == fresh.images[:]).all()
    for name, array in fresh.figures.items():
        if name.startswith("hu_"):
            assert (third.figures[name] == array).all()
    assert (first.images[:].shape, second.images[:].shape) != (third.images[:].shape, third.images[:].shape)


def test_the_same_answer_changes_nothing_but_the_time_of_asking(mirror, tmp_path, caplog, monkeypatch):
    cohort, endpoint, absent, _, _ = mirror
    fetch, config = configs(tmp_path, endpoint)
    first = build_slices(cohort, fetch, config)
    before = {path: path.stat().st_mtime_ns for path in config.root.rglob("*.*") if path.name != NOTE}
    monkeypatch.setattr("lungsynth.slicing.shards.utc_now", lambda: "2030-01-02 03:04 UTC")
    caplog.set_level("INFO")
    again = build_slices(cohort, fetch, config)
    assert (again.folder, again.sha256) == (first.folder, first.sha256)
    assert {path: path.stat().st_mtime_ns for path in config.root.rglob("*.*") if path.name != NOTE} == before
    assert "in 1 shards (1 of them were there), 2 series rejected, 0 MB fetched" in caplog.text
    asked = tables.public_series(again, cohort).set_index("series_uid")["asked"].dropna()
    assert asked[absent] == "last asked for on 2030-01-02 03:04 UTC: not_found: no object found"
    assert len(asked) == 2
    (row,) = tables.rejected(again)
    assert "; last asked for on 2030-01-02 03:04 UTC: " in row["detail"]


def test_without_a_network_what_is_known_stays_and_that_is_said(mirror, tmp_path, caplog):
    cohort, endpoint, *_ = mirror
    fetch, config = configs(tmp_path, endpoint)
    first = build_slices(cohort, fetch, config)
    nobody = fetch.model_copy(update={"endpoints": ("http://127.0.0.1:9",)})
    again = build_slices(cohort, nobody, config)
    assert again.sha256 == first.sha256
    assert again.undelivered == first.undelivered
    (said,) = [record.message for record in caplog.records if record.levelname == "WARNING"]
    assert said.startswith("2 series could not be asked for (http://127.0.0.1:9 gives nothing: ")
    assert said.endswith(f"they stay left out, as when last asked for on {first.undelivered[0].asked}")


def test_pods_ask_again_as_well(mirror, tmp_path):
    cohort, endpoint, absent, cut, bring = mirror
    fetch, config = configs(tmp_path, endpoint)
    build_some(cohort, fetch, config, index=0, count=1)
    bring(absent)
    bring(cut)
    build_some(cohort, fetch, config, index=0, count=1)
    assert build_slices(cohort, fetch, config).rejected.empty


def test_pictures_and_series_on_the_disk_are_asked_for_there(tmp_path):
    picture = tmp_path / "a.png"
    picture.write_bytes(b"png")
    urls = [picture.as_uri(), (tmp_path / "b.png").as_uri(), "phantom://demo/1.2.3/"]
    series = pd.DataFrame({"series_uid": ["a", "b", "c"], "instances": 1, "bytes": 3, "url": urls})
    answers = ask(series, FetchConfig(root=tmp_path / "series", endpoints=("http://127.0.0.1:9",)))
    assert answers.there == {"a", "c"}
    assert answers.refused == {"b": "not_found: there is no such file"}
    assert not answers.silent


def test_one_of_two_stores_is_enough(mirror, tmp_path):
    cohort, endpoint, absent, cut, bring = mirror
    bring(cut)
    rows = cohort.images[cohort.images["series_uid"].isin([absent, cut])]
    fetch = FetchConfig(root=tmp_path / "series", endpoints=("http://127.0.0.1:9", endpoint))
    answers = ask(rows, fetch)
    assert (answers.there, answers.refused) == ({cut}, {absent: "not_found: no object found"})


def test_notes_are_no_part_of_a_hash(mirror, tmp_path):
    cohort, endpoint, *_ = mirror
    fetch, config = configs(tmp_path, endpoint)
    dataset = build_slices(cohort, fetch, config)
    notes = json.loads((dataset.folder / NOTE).read_text())
    assert {one["image_uid"] for one in notes} == set(dataset.rejected["series_uid"])
    (dataset.folder / NOTE).unlink()
    assert type(dataset)(dataset.folder).sha256 == dataset.sha256
