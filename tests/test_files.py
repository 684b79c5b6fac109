"""Files and folders appear whole under their names, or not at all."""

import pytest

from lungsynth.files import whole_file, whole_folder


def test_a_file_takes_the_place_of_the_old_one_when_it_is_whole(tmp_path):
    path = tmp_path / "dataset" / "note"
    path.parent.mkdir()
    path.write_text("old")
    with whole_file(path, beside=path.parent) as part:
        part.write_text("new")
        assert path.read_text() == "old"
        assert part.parent == tmp_path  # out of the folder, which others may be copying
    assert path.read_text() == "new"
    assert [entry.name for entry in tmp_path.iterdir()] == ["dataset"]


def test_a_file_that_fails_leaves_the_old_one_alone(tmp_path):
    path = tmp_path / "note"
    path.write_text("old")
    with pytest.raises(KeyboardInterrupt), whole_file(path) as part:  # noqa: PT012 - the block is what is tested
        part.write_text("ne")
        raise KeyboardInterrupt
    assert [(entry.name, entry.read_text()) for entry in tmp_path.iterdir()] == [("note", "old")]


def test_a_folder_appears_when_it_is_whole(tmp_path):
    with pytest.raises(OSError, match="full"), whole_folder(tmp_path / "a" / "b") as part:
        raise OSError("full")
    assert not list((tmp_path / "a").iterdir())
    with whole_folder(tmp_path / "a" / "b") as part:
        (part / "file").touch()
        assert not (tmp_path / "a" / "b").exists()
    assert [entry.name for entry in (tmp_path / "a").rglob("*")] == ["b", "file"]


def test_a_folder_that_is_there_stays(tmp_path):
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "old").touch()
    with pytest.raises(OSError), whole_folder(tmp_path / "b") as part:  # noqa: PT011 - the system's own words
        (part / "new").touch()
    assert [entry.name for entry in tmp_path.rglob("*")] == ["b", "old"]
