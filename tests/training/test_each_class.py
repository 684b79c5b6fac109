"""A network for each class: each sees its own slices alone, the package draws by label, and a killed run goes on."""

import json

import numpy as np
import pytest
import torch
from PIL import Image

from lungsynth.errors import LungsynthError
from lungsynth.generators.dcgan import DcganConfig
from lungsynth.training import Slices, TrainingConfig, TrainingRun, loop, train_generator

CLASSES = ("dark", "medium", "bright")
SMALL = DcganConfig(size=32, nz=8, ngf=8, ndf=4, classes=CLASSES, per_class=True)
BRIEF = TrainingConfig(kimg=0.3, batch=16, ema_kimg=0.05, snapshot_kimg=0.1, checkpoint_kimg=0.1, device="cpu")


def slices(codes=(0, 1, 2)):
    labels = np.array(codes, np.int64).repeat(40)
    noise = np.random.default_rng(0).normal(0, 8, (len(labels), 32, 32))
    return Slices.all((30 + 95 * labels[:, None, None] + noise).clip(0, 255).astype(np.uint8), labels)


def train(folder, data=None, on_log=None):
    return train_generator(
        TrainingRun(
            data or slices(),
            None,
            window_hu=None,
            data_sha256="0" * 64,
            generator=SMALL,
            training=BRIEF,
            folder=folder / "package",
            checkpoints=folder / "checkpoints",
            on_log=on_log,
        )
    )


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A run that nothing disturbed, and the folder it ran in."""
    folder = tmp_path_factory.mktemp("finished")
    before = torch.random.get_rng_state()
    package = train(folder)
    assert torch.equal(before, torch.random.get_rng_state())
    return package, folder


def test_draws_by_label(finished):
    package, _ = finished
    assert package.classes == CLASSES
    means = package.sample(np.array([2, 0, 1, 0]), seed=1).mean(axis=(1, 2))
    assert means[0] > means[2] > max(means[1], means[3])


def test_package_is_like_any_other(finished):
    package, folder = finished
    assert package.card.data_sha256 == "0" * 64
    assert package.card.generator == SMALL
    with Image.open(package.folder / "samples.png") as picture:
        assert picture.size == (8 * 32, 3 * 2 * 32)
    with Image.open(package.folder / "progress.gif") as film:
        assert film.size == (8 * 32, 3 * 2 * 32)
        assert film.n_frames == 3
    kimg = [json.loads(line)["kimg"] for line in (package.folder / "training_log.jsonl").read_text().splitlines()]
    assert kimg == sorted(kimg)
    assert kimg[-1] == pytest.approx(0.6 + 0.304)
    assert list((folder / "checkpoints").iterdir()) == []


def test_each_network_sees_its_own_class_alone(tmp_path, monkeypatch):
    seen = []
    one = loop.train_network

    def watched(run):
        data = run.train
        seen.append((data.take(np.arange(len(data))).mean(axis=(1, 2, 3)), data.codes))
        return one(run)

    monkeypatch.setattr(loop, "train_network", watched)
    lines = []
    train(tmp_path, on_log=lines.append)
    assert lines == [
        json.loads(line) for line in (tmp_path / "package" / "training_log.jsonl").read_text().splitlines()
    ]
    for code, (means, codes) in enumerate(seen):
        assert len(means) == 40
        assert np.abs(means - (30 + 95 * code)).max() < 20
        assert not codes.any()


def test_a_class_that_is_trained_is_not_trained_again(finished, tmp_path, monkeypatch):
    one, trained = loop.train_network, []

    def killed_in_the_second(run):
        trained.append(run.data_sha256.split()[1])
        if trained == ["dark", "medium"]:
            raise KeyboardInterrupt
        return one(run)

    monkeypatch.setattr(loop, "train_network", killed_in_the_second)
    with pytest.raises(KeyboardInterrupt):
        train(tmp_path)
    resumed = train(tmp_path)
    assert trained == ["dark", "medium", "medium", "bright"]
    assert resumed.sha256 == finished[0].sha256
    for name in ("progress.gif", "samples.png"):
        assert (resumed.folder / name).read_bytes() == (finished[0].folder / name).read_bytes()


def test_a_class_without_slices(tmp_path):
    with pytest.raises(LungsynthError, match="no slice of the class bright"):
        train(tmp_path, slices((0, 1)))
