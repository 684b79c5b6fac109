"""A run learns, follows its seed, goes on where it stopped, and ends when it diverges."""

import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from brief_run import BRIEF, BRIGHT, DARK, SMALL, brief_run, halves, log_of
from PIL import Image

from lungsynth import generators
from lungsynth.errors import LungsynthError
from lungsynth.generators.family import GeneratorConfig
from lungsynth.training import TrainingConfig, loop
from lungsynth.training.pace import Pace

TOYS = Path(__file__).parents[1] / "families"


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A brief run that nothing disturbed, and the folder it ran in."""
    folder = tmp_path_factory.mktemp("finished")
    return brief_run(folder), folder


@pytest.fixture
def toy(monkeypatch):
    """The configuration of the toy family."""
    monkeypatch.setattr(generators, "__path__", [*generators.__path__, str(TOYS)])
    yield GeneratorConfig.model_validate({"family": "toy", "size": 32})
    sys.modules.pop(f"{generators.__name__}.toy", None)


def with_changes(**changes):
    return TrainingConfig.model_validate(BRIEF.model_dump() | changes)


def test_package_is_complete(finished):
    package, folder = finished
    names = {"generator.json", "progress.gif", "samples.png", "training_log.jsonl", "weights.safetensors"}
    assert names <= {file.name for file in package.folder.iterdir()}
    assert package.card.training == BRIEF.model_dump(mode="json")
    assert {0.512, 1.008, 1.312} <= {row["kimg"] for row in log_of(package)}
    with Image.open(package.folder / "progress.gif") as film:
        assert film.n_frames == 5
    assert list((folder / "checkpoints").iterdir()) == []


def test_same_seed_same_weights_and_no_global_draw(finished, tmp_path):
    before = torch.random.get_rng_state()
    assert brief_run(tmp_path).sha256 == finished[0].sha256
    assert torch.equal(before, torch.random.get_rng_state())
    brief = {"kimg": 0.1}
    assert brief_run(tmp_path / "0", with_changes(**brief)).sha256 != (
        brief_run(tmp_path / "1", with_changes(seed=1, **brief)).sha256
    )


def test_interrupted_run_ends_as_if_it_had_not_been(finished, tmp_path, monkeypatch):
    calls = 0

    def killed_at_the_third_frame(*arguments):
        nonlocal calls
        calls += 1
        if calls == 3:
            raise KeyboardInterrupt
        return save_frame(*arguments)

    save_frame = loop.save_frame
    monkeypatch.setattr(loop, "save_frame", killed_at_the_third_frame)
    with pytest.raises(KeyboardInterrupt):
        brief_run(tmp_path)
    (run,) = (tmp_path / "checkpoints").iterdir()
    assert torch.load(run / "state.pt", weights_only=True)["step"] == 32
    monkeypatch.undo()

    resumed = brief_run(tmp_path)
    assert resumed.sha256 == finished[0].sha256
    assert log_of(resumed) == log_of(finished[0])
    for name in ("samples.png", "progress.gif"):
        assert (resumed.folder / name).read_bytes() == (finished[0].folder / name).read_bytes()


@pytest.mark.parametrize(
    "loss",
    [
        {"kind": "logistic", "r1_gamma": 0},
        {"kind": "logistic", "r1_gamma": 0.1},
        {"kind": "relativistic", "r1_gamma": 0.1, "r2_gamma": 0.1, "penalty_every": 1},
        {"kind": "wasserstein", "r1_gamma": 0, "slope": 10, "penalty_every": 1, "drift": 0.001},
    ],
)
def test_learns_which_half_is_bright(tmp_path, toy, loss):
    check_halves(brief_run(tmp_path, with_changes(kimg=2.5, loss=loss, generator_lr=0.01), toy))


def test_a_convolutional_network_learns_which_half_is_bright(tmp_path):
    check_halves(brief_run(tmp_path, with_changes(kimg=3)))


def check_halves(package):
    slices = package.sample(np.repeat([0, 1], 32), seed=5).astype(float)
    excess = slices[:, :, :16].mean(axis=(1, 2)) - slices[:, :, 16:].mean(axis=(1, 2))
    left, right = excess.reshape(2, 32).mean(axis=1)
    assert left > (BRIGHT - DARK) / 3
    assert right < (DARK - BRIGHT) / 3


def test_diverged_run_stops(tmp_path):
    with pytest.raises(LungsynthError, match=r"diverged before 0\.51 kimg"):
        brief_run(tmp_path, with_changes(generator_lr=1e38))
    assert not (tmp_path / "package").exists()


def test_threads_are_given_back(tmp_path, monkeypatch):
    used = []
    step = loop._step
    monkeypatch.setattr(loop, "_step", lambda *state: used.append(torch.get_num_threads()) or step(*state))
    before = torch.get_num_threads()
    brief_run(tmp_path, with_changes(kimg=0.03, threads=3))
    assert set(used) == {3}
    assert torch.get_num_threads() == before


def test_the_number_of_threads_that_a_run_chose_is_logged_and_taken_again(tmp_path, monkeypatch):
    step, begun = loop._step, []

    class Chosen(Pace):
        """Three, whatever the machine: a run that goes on is told."""

        def __init__(self, threads: int = 0, recorded: int = 0) -> None:
            begun.append(recorded)
            super().__init__(threads or 3)

    def killed(state, *rest):
        if state.step == 6 and len(begun) == 1:
            raise KeyboardInterrupt
        return step(state, *rest)

    monkeypatch.setattr(loop, "Pace", Chosen)
    monkeypatch.setattr(loop, "_step", killed)
    brief = with_changes(kimg=0.13, checkpoint_kimg=0.05, threads=0)
    with pytest.raises(KeyboardInterrupt):
        brief_run(tmp_path, brief)
    assert {row["threads"] for row in log_of(brief_run(tmp_path, brief))} == {3}
    assert begun == [0, 3]


def test_unconditional_training(tmp_path):
    package = brief_run(tmp_path, with_changes(kimg=0.1), SMALL.model_copy(update={"classes": ()}))
    assert package.classes == ()
    assert package.sample(np.zeros(3, np.int64), seed=0).shape == (3, 32, 32)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda x, y: (x[:, :30], y), "need uint8 N×32×32"),
        (lambda x, y: (x.astype(np.float32), y), "got float32"),
        (lambda x, y: (x, y[:-1]), "with 199 labels"),
        (lambda x, y: (x[:0], y[:0]), "with 0 labels"),
        (lambda x, y: (x, np.zeros_like(y)), "no slice of the class cancer"),
        (lambda x, y: (x, np.where(np.arange(200) == 7, 2, y)), "not the code of one of"),
    ],
)
def test_data_that_do_not_fit(tmp_path, change, message):
    with pytest.raises(LungsynthError, match=message):
        brief_run(tmp_path, data=change(*halves()))


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_missing_gpu(tmp_path):
    with pytest.raises(LungsynthError, match="torch finds no GPU"):
        brief_run(tmp_path, with_changes(device="cuda"))
