"""Files at URLs: whole, several at once, and one clear line where the store does not play along."""

import re
from pathlib import Path

import pytest

from lungsynth import remote
from lungsynth.errors import LungsynthError


def test_files_go_up_and_come_down(bucket, tmp_path):
    (tmp_path / "a" / "deep").mkdir(parents=True)
    contents = {"one.txt": b"1", "deep/two.txt": b"22", "last.json": b"{}"}
    for name, content in contents.items():
        (tmp_path / "a" / name).write_bytes(content)
    url = remote.below(bucket, "folder")
    assert remote.names(url) == set()
    assert remote.push(tmp_path / "a", url, contents, last="last.json") == 5
    assert remote.names(url) == set(contents)
    assert remote.exists(f"{url}/deep/two.txt")
    assert remote.pull(url, tmp_path / "b", contents) == 5
    assert {name: (tmp_path / "b" / name).read_bytes() for name in contents} == contents
    remote.remove(url)
    remote.remove(url)  # nothing there
    assert remote.names(url) == set()


def test_a_file_that_is_not_there_leaves_nothing_behind(bucket, tmp_path):
    with pytest.raises(LungsynthError, match=r"^s3://\S+/folder/gone: The specified key does not exist\.; see"):
        remote.pull(f"{bucket}/folder", tmp_path / "b", ["gone"])
    assert not [path for path in (tmp_path / "b").rglob("*") if path.is_file()]


def test_no_name_leads_out_of_the_folder(bucket, tmp_path):
    with pytest.raises(LungsynthError, match=rf"^{bucket}/folder/../../x: this name leads out of the folder"):
        remote.pull(f"{bucket}/folder", tmp_path / "b" / "c", ["../../x"])
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("s3://no-such-bucket-of-ours/x", "bucket does not exist"),
        ("ftpx://host/x", "Protocol not known: ftpx"),
    ],
)
def test_a_store_that_cannot_be_had_is_one_line(bucket, tmp_path, url, message):
    (tmp_path / "file").touch()
    with pytest.raises(LungsynthError, match=rf"^{re.escape(url)}(/file)?: .*{message}") as raised:
        remote.push(tmp_path, url, ["file"])
    assert "\n" not in str(raised.value)


def test_a_server_that_is_down_is_one_line(bucket, monkeypatch):
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    remote.fsspec.get_filesystem_class("s3").clear_instance_cache()
    with pytest.raises(LungsynthError, match=rf"^{bucket}/x: Could not connect to the endpoint URL.*what is finished"):
        remote.names(f"{bucket}/x")


def test_a_missing_package_is_named_with_its_extra(monkeypatch):
    def missing(url: str) -> None:
        raise ImportError("Install gcsfs to access GCS")

    monkeypatch.setattr(remote.fsspec, "url_to_fs", missing)
    with pytest.raises(LungsynthError, match=r"^gs://b/x: Install gcsfs .*: pip install 'lungsynth\[gcp\]'$"):
        remote.names("gs://b/x")


def test_places_are_urls_or_paths():
    assert remote.place("s3://bucket/x") == "s3://bucket/x"
    assert remote.place("data/x") == Path("data/x")
    assert remote.on_disk(Path("data/x")) == Path("data/x")
    assert remote.on_disk("s3://bucket/x").parent == Path("data/remote")
    assert remote.on_disk("s3://bucket/x") != remote.on_disk("s3://bucket/y")
