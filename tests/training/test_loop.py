"""A run learns, follows its seed, survives a kill, and stops when it diverges."""

import json
import subprocess
import sys

import numpy as np
import pytest
import torch
from PIL import Image

from lungsynth.errors import LungsynthError
from lungsynth.generators.dcgan import DcganConfig
from lungsynth.training import TrainingConfig, loop, train_generator

SMALL = DcganConfig(size=32, nz=8, ngf=16, ndf=8)
BRIEF = TrainingConfig(kimg=1.3, batch=16, snapshot_kimg=0.3, checkpoint_kimg=0.5, device="cpu")
DARK, BRIGHT = 60, 200


@pytest.fixture(scope="module")
def data():
    """Noisy slices with one bright half: the left one in class 0, three quarters of all, the right one in class 1."""
    rng = np.random.default_rng(0)
    labels = (np.arange(200) % 4 == 0).astype(np.int64)
    bright = (np.arange(32) // 16) == labels[:, None, None]
    noise = rng.normal(0, 10, (200, 1, 1)) + rng.normal(0, 8, (200, 32, 32))
    return (np.where(bright, BRIGHT, DARK) + noise).clip(0, 255).astype(np.uint8), labels


def train(data, folder, training=BRIEF, generator=SMALL):
    return train_generator(
        *data,
        window_hu=(-1350, 150),
        data_sha256="0" * 64,
        generator=generator,
        training=training,
        folder=folder / "package",
        checkpoints=folder / "checkpoints",
    )


@pytest.fixture(scope="module")
def finished(data, tmp_path_factory):
    """A brief run that nothing disturbed, and the folder it ran in."""
    folder = tmp_path_factory.mktemp("finished")
    return train(data, folder), folder


def log_of(package):
    rows = [json.loads(line) for line in (package.folder / "training_log.jsonl").read_text().splitlines()]
    return [{key: value for key, value in row.items() if key != "img_per_s"} for row in rows]


def test_package_is_complete(finished):
    package, folder = finished
    assert sorted(file.name for file in package.folder.iterdir()) == [
        "generator.json",
        "progress.gif",
        "samples.png",
        "training_log.jsonl",
        "weights.safetensors",
    ]
    assert package.card.kimg == 1.3
    assert package.card.training == BRIEF.model_dump(mode="json")
    assert [row["kimg"] for row in log_of(package)] == [0.496, 0.992, 1.296]
    with Image.open(package.folder / "progress.gif") as film:
        assert film.n_frames == 5
        assert film.size == (256, 128)
    assert list((folder / "checkpoints").iterdir()) == []


def test_same_seed_same_weights_and_no_global_draw(data, finished, tmp_path):
    before = torch.random.get_rng_state()
    assert train(data, tmp_path).sha256 == finished[0].sha256
    assert torch.equal(before, torch.random.get_rng_state())
    assert train(data, tmp_path, BRIEF.model_copy(update={"seed": 1})).sha256 != finished[0].sha256


def test_interrupted_run_ends_as_if_it_had_not_been(data, finished, tmp_path, monkeypatch):
    calls = 0

    def killed_at_the_third_frame(*arguments):
        nonlocal calls
        calls += 1
        if calls == 3:
            raise KeyboardInterrupt
        return snapshot(*arguments)

    snapshot = loop.snapshot
    monkeypatch.setattr(loop, "snapshot", killed_at_the_third_frame)
    with pytest.raises(KeyboardInterrupt):
        train(data, tmp_path)
    (run,) = (tmp_path / "checkpoints").iterdir()
    assert torch.load(run / "state.pt", weights_only=True)["step"] == 31
    monkeypatch.undo()

    resumed = train(data, tmp_path)
    assert resumed.sha256 == finished[0].sha256
    assert log_of(resumed) == log_of(finished[0])
    for name in ("samples.png", "progress.gif"):
        assert (resumed.folder / name).read_bytes() == (finished[0].folder / name).read_bytes()


@pytest.mark.parametrize("r1_gamma", [0, 1])
def test_learns_which_half_is_bright(data, tmp_path, r1_gamma):
    fast = {"r1_gamma": r1_gamma, "kimg": 3, "generator_lr": 1e-3, "discriminator_lr": 1e-3, "ema_kimg": 0.3}
    package = train(data, tmp_path, BRIEF.model_copy(update=fast))
    slices = package.sample(np.repeat([0, 1], 32), seed=5)
    left, right = slices[:, :, :16].mean(axis=(1, 2)), slices[:, :, 16:].mean(axis=(1, 2))
    assert left.reshape(2, 32).mean(axis=1) == pytest.approx([BRIGHT, DARK], abs=25)
    assert right.reshape(2, 32).mean(axis=1) == pytest.approx([DARK, BRIGHT], abs=25)


def test_balanced_draws(data):
    images, labels = data
    rng = torch.Generator().manual_seed(0)
    for balanced, share in ((True, 0.5), (False, 0.25)):
        source = loop._Data(images, labels, balanced=balanced, device=torch.device("cpu"))
        drawn, codes = source.draw(4000, rng)
        assert codes.float().mean() == pytest.approx(share, abs=0.03)
        assert len(torch.unique(drawn, dim=0)) == 200
        assert torch.equal(drawn[..., 16:].mean(dim=(1, 2, 3)) > 0, codes == 1)


def test_diverged_run_stops(data, tmp_path):
    with pytest.raises(LungsynthError, match=r"diverged before 0\.50 kimg"):
        train(data, tmp_path, BRIEF.model_copy(update={"generator_lr": 1e38}))
    assert not (tmp_path / "package").exists()


def test_threads_are_given_back(data, tmp_path, monkeypatch):
    used = []
    step = loop._step
    monkeypatch.setattr(loop, "_step", lambda *state: used.append(torch.get_num_threads()) or step(*state))
    before = torch.get_num_threads()
    train(data, tmp_path, BRIEF.model_copy(update={"kimg": 0.03, "threads": 3}))
    assert set(used) == {3}
    assert torch.get_num_threads() == before


def test_unconditional_training(data, tmp_path):
    training = BRIEF.model_copy(update={"kimg": 0.1})
    package = train(data, tmp_path, training, SMALL.model_copy(update={"classes": ()}))
    assert package.classes == ()
    with Image.open(package.folder / "samples.png") as picture:
        assert picture.size == (256, 64)


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
def test_data_that_do_not_fit(data, tmp_path, change, message):
    with pytest.raises(LungsynthError, match=message):
        train(change(*data), tmp_path)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_missing_gpu(data, tmp_path):
    with pytest.raises(LungsynthError, match="torch finds no GPU"):
        train(data, tmp_path, BRIEF.model_copy(update={"device": "cuda"}))


def test_imports_without_the_pipeline_stack():
    code = """
import sys
for name in ("zenml", "mlflow", "pydicom", "pandas", "torchvision", "sklearn", "scipy"):
    sys.modules[name] = None
import lungsynth.training, lungsynth.generators.package
"""
    subprocess.run([sys.executable, "-c", code], check=True)
