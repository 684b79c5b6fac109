"""Checkpoints: all or nothing, and of one run alone."""

import hashlib
import json
import resource

import pytest
import torch

from lungsynth.errors import LungsynthError
from lungsynth.generators.dcgan import DcganConfig
from lungsynth.training import TrainingConfig
from lungsynth.training.state import TrainingState, run_key

SMALL = DcganConfig(size=32, nz=8, ngf=4, ndf=4)


def new(seed=0):
    return TrainingState.new(SMALL, TrainingConfig(seed=seed), torch.device("cpu"))


def test_checkpoint_restores_everything(tmp_path):
    state = new(seed=1)
    state.step, state.shown, state.log = 4, 128, [{"kimg": 0.1}]
    state.pending = [torch.arange(5.0)]
    state.scalars["p"].fill_(0.25)
    for parameter in state.generator.parameters():
        parameter.grad = torch.ones_like(parameter)
    state.generator_optimizer.step()
    state.save(tmp_path / "run" / "state.pt")
    assert [file.name for file in (tmp_path / "run").iterdir()] == ["state.pt"]

    other = new(seed=2)
    other.restore(tmp_path / "run" / "state.pt")
    assert (other.step, other.shown, other.log) == (4, 128, [{"kimg": 0.1}])
    assert torch.equal(other.pending[0], torch.arange(5.0))
    assert other.scalars["p"] == 0.25
    for name in ("generator", "discriminator", "average"):
        for key, tensor in getattr(state, name).state_dict().items():
            assert torch.equal(tensor, getattr(other, name).state_dict()[key])
    moments, restored = (s.generator_optimizer.state_dict()["state"] for s in (state, other))
    assert all(torch.equal(moments[key]["exp_avg_sq"], restored[key]["exp_avg_sq"]) for key in moments)
    assert len(moments) == len(list(state.generator.parameters()))


def test_checkpoints_are_laid_out_as_those_of_older_versions(tmp_path):
    new().save(tmp_path / "state.pt")
    content = torch.load(tmp_path / "state.pt", weights_only=True)
    networks = {"generator", "discriminator", "average", "generator_optimizer", "discriminator_optimizer"}
    plain = {"step", "shown", "before", "pending", "log", "best", "best_discriminator", "threads"}
    assert set(content) == networks | plain | {"memory"}
    assert set(content["memory"]) == {"p", "sum", "path_mean"}


def test_damaged_checkpoint(tmp_path):
    state = new()
    state.save(tmp_path / "state.pt")
    (tmp_path / "state.pt").write_bytes((tmp_path / "state.pt").read_bytes()[:3000])
    with pytest.raises(LungsynthError, match=r"state\.pt: not a usable checkpoint; delete it"):
        state.restore(tmp_path / "state.pt")


def test_run_key_follows_data_and_configuration():
    training = TrainingConfig()
    key = run_key(SMALL, training, "a")
    assert key == run_key(SMALL, TrainingConfig(), "a")
    others = {
        run_key(SMALL, training, "b"),
        run_key(SMALL, TrainingConfig(seed=1), "a"),
        run_key(SMALL.model_copy(update={"ngf": 8}), training, "a"),
    }
    assert len(others | {key}) == 4


def test_runs_of_older_versions_whose_generators_state_their_channels_are_found():
    generator, training = SMALL.model_dump(mode="json") | {"channels": 1}, TrainingConfig().model_dump(mode="json")
    text = json.dumps([generator, training, "a"], sort_keys=True)
    assert run_key(SMALL, TrainingConfig(), "a") == hashlib.sha256(text.encode()).hexdigest()[:16]


def test_a_full_disk_leaves_the_checkpoint_before(tmp_path):
    state, path = new(), tmp_path / "run" / "state.pt"
    state.save(path)
    before, limits = path.read_bytes(), resource.getrlimit(resource.RLIMIT_FSIZE)
    state.step = 5
    resource.setrlimit(resource.RLIMIT_FSIZE, (len(before) // 2, limits[1]))
    try:
        with pytest.raises(LungsynthError, match=r"state\.pt: the checkpoint cannot be written \(File too large\)"):
            state.save(path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert path.read_bytes() == before
    assert list(path.parent.iterdir()) == [path]


def test_a_folder_that_cannot_be_made(tmp_path):
    (tmp_path / "run").write_text("a file where the folder should be")
    with pytest.raises(LungsynthError, match=r"state\.pt: the checkpoint cannot be written"):
        new().save(tmp_path / "run" / "state.pt")
