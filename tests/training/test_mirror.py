"""Checkpoints at a URL: a run that was interrupted on one machine goes on from there on another."""

import pytest
from brief_run import BRIEF, SMALL, brief_run, log_of

from lungsynth import remote
from lungsynth.errors import LungsynthError
from lungsynth.training import loop
from lungsynth.training.mirror import Mirror


@pytest.fixture
def machine(tmp_path, monkeypatch):
    """Goes to another machine: to an empty folder."""

    def go(name):
        (tmp_path / name).mkdir()
        monkeypatch.chdir(tmp_path / name)
        return tmp_path / name

    return go


@pytest.mark.parametrize("generator", [SMALL, SMALL.model_copy(update={"per_class": True})], ids=["one", "each class"])
def test_another_machine_goes_on_to_the_same_bits(bucket, machine, monkeypatch, generator):
    undisturbed = brief_run(machine("undisturbed"), generator=generator)
    frames, save_frame = [], loop.save_frame

    def preempted_at_the_fourth_frame(*arguments):
        frames.append(arguments)
        if len(frames) == 4:
            raise KeyboardInterrupt
        return save_frame(*arguments)

    monkeypatch.setattr(loop, "save_frame", preempted_at_the_fourth_frame)
    with pytest.raises(KeyboardInterrupt):
        brief_run(machine("first"), generator=generator, checkpoints=f"{bucket}/checkpoints")
    assert any(name.endswith("state.pt") for name in remote.names(f"{bucket}/checkpoints"))
    resumed = brief_run(machine("second"), generator=generator, checkpoints=f"{bucket}/checkpoints")
    assert len(frames) < 2 * len(log_of(undisturbed))  # it did not start anew
    assert resumed.sha256 == undisturbed.sha256
    assert log_of(resumed) == log_of(undisturbed)
    for name in ("samples.png", "progress.gif"):
        assert (resumed.folder / name).read_bytes() == (undisturbed.folder / name).read_bytes()
    assert remote.names(f"{bucket}/checkpoints") == set()


def test_only_what_is_new_goes_up(bucket, tmp_path, monkeypatch):
    sent = []
    monkeypatch.setattr(remote, "push", lambda folder, url, names, last=None: sent.append((set(names), last)))
    mirror = Mirror(tmp_path, f"{bucket}/run")
    for name in ("state.pt", "frame.png", "lock", ".hidden", "state.partial"):
        (tmp_path / name).touch()
    mirror.push()
    (tmp_path / "state.pt").write_text("changed")
    mirror.push()
    assert sent == [({"state.pt", "frame.png"}, "state.pt"), ({"state.pt"}, "state.pt")]


def test_a_store_that_fails_stops_a_training_before_it_begins_in_one_line(bucket, machine):
    with pytest.raises(LungsynthError, match=r"^s3://no-such-bucket-of-ours/\w+: The specified bucket does not"):
        brief_run(machine("here"), BRIEF, checkpoints="s3://no-such-bucket-of-ours")
