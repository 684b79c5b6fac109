"""What a run watches: the features, the numbers on them, and what follows from the numbers."""

import json
import math

import numpy as np
import pytest
import torch
from brief_run import BRIEF, SMALL, halves
from torch import nn
from torch_fidelity.metric_kid import kid_features_to_metric

from lungsynth.errors import LungsynthError
from lungsynth.generators.package import GeneratorPackage
from lungsynth.training import Slices, TrainingConfig, TrainingRun, loop, monitor, output, train_generator
from lungsynth.training.monitor import (
    Monitor,
    MonitorConfig,
    SpoiledError,
    best,
    check_diversity,
    diversity,
    out_of_patience,
)
from lungsynth.training.random_features import Scale, features, filters, squared_mmd, vendi

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def slices():
    """400 slices uint8 64×64: an ellipse of changing place and size, a bright one in it in class 1, and some noise."""
    rng = np.random.default_rng(0)
    y, x = np.mgrid[:64, :64]
    images = []
    for number in range(400):
        cx, cy, a, b = rng.uniform([26, 26, 14, 10], [38, 38, 26, 20])
        inside = ((x - cx) / a) ** 2 + ((y - cy) / b) ** 2 < 1
        spot = (x - cx - 4) ** 2 + (y - cy) ** 2 < 16
        images.append(200 - 140 * inside + 100 * (spot & (number % 2 == 1)) + rng.normal(0, 4, (64, 64)))
    return np.clip(images, 0, 255).astype(np.uint8)[:, None]


@pytest.fixture(scope="module")
def scaled(slices):
    """Features of slices, on the scale of the first half of `slices`."""
    network = filters(64, CPU)
    scale = Scale.of(features(slices[:200], network))
    return lambda images: scale(features(images, network))


def box_blur(images):
    return nn.functional.avg_pool2d(torch.from_numpy(images).float(), 3, 1, 1).round().to(torch.uint8).numpy()


def test_features_are_the_same_numbers_every_time(slices):
    torch.manual_seed(1)
    first = features(slices[:40], filters(64, CPU))
    torch.manual_seed(2)
    before = torch.random.get_rng_state()
    assert np.array_equal(first, features(slices[:40], filters(64, CPU)))
    assert torch.equal(before, torch.random.get_rng_state())
    assert first.shape == (40, 512)
    assert first.dtype == np.float32
    # One slice's do not depend on those beside it.
    assert features(slices[39:40], filters(64, CPU)) == pytest.approx(first[39:], abs=1e-4)


@pytest.mark.parametrize("size", [4, 32, 256, 512])
def test_features_of_any_size(size):
    images = np.random.default_rng(0).integers(0, 256, (2, 1, size, size), np.uint8)
    network = filters(size, CPU)
    found = features(images, network)
    assert found.shape == (2, 512)
    assert np.isfinite(found).all()
    assert network[0].shape[-1] == math.ceil(size / 64) + 2


def test_kid_is_the_unbiased_estimate_of_a_loop():
    rng = np.random.default_rng(0)
    one, other = rng.normal(0, 1, (5, 3)), rng.normal(0.5, 1, (4, 3))

    def mean_kernel(a, b, same):
        pairs = [(x @ y / 3 + 1) ** 3 for i, x in enumerate(a) for j, y in enumerate(b) if not (same and i == j)]
        return sum(pairs) / len(pairs)

    expected = mean_kernel(one, one, True) + mean_kernel(other, other, True) - 2 * mean_kernel(one, other, False)
    assert squared_mmd(one, other) == pytest.approx(expected)


def test_kid_is_that_of_torch_fidelity():
    rng = np.random.default_rng(0)
    one, other = rng.normal(0, 1, (60, 8)), rng.normal(0.3, 1, (60, 8))
    tensors = [torch.from_numpy(features) for features in (one, other)]
    theirs = kid_features_to_metric(*tensors, kid_subsets=1, kid_subset_size=60, kid_degree=3, verbose=False)
    assert squared_mmd(one, other) == pytest.approx(theirs["kernel_inception_distance_mean"], rel=1e-6)


def test_kid_sees_what_goes_wrong(slices, scaled):
    rng = np.random.default_rng(0)
    held_out, real = scaled(slices[200:]), slices[:200]
    wrong = {
        "blurred": box_blur(real),
        "noisier": np.clip(real + rng.normal(0, 10, real.shape), 0, 255).astype(np.uint8),
        "brighter": real // 2 + 90,
        "one class": real[::2].repeat(2, axis=0),
        "five slices": real[:5].repeat(40, axis=0),
        "checkerboard": np.clip(real + 8 * (np.indices((64, 64)).sum(0) % 2), 0, 255).astype(np.uint8),
        "noise": rng.integers(0, 256, real.shape, np.uint8),
    }
    floor = abs(squared_mmd(scaled(real), held_out))
    numbers = {name: squared_mmd(scaled(images), held_out) for name, images in wrong.items()}
    assert min(numbers.values()) > 5 * floor, (floor, numbers)
    assert max(numbers, key=numbers.get) == "noise"


def test_scale_draws_in_what_lies_far_outside():
    real = np.array([[1.0, 5.0], [3.0, 5.0]])
    scale = Scale.of(real)
    assert scale(real) == pytest.approx(np.array([[-1, 0], [1, 0]]) * 3 / math.sqrt(10))
    assert scale(np.array([[1e9, 5.0]]))[0, 0] == pytest.approx(3)


def test_vendi_counts_different_slices():
    apart = np.eye(4) * 100
    assert vendi(apart, 1) == pytest.approx(4)
    assert vendi(apart.repeat(25, axis=0), 1) == pytest.approx(4)
    assert vendi(np.zeros((10, 4)), 1) == pytest.approx(1)
    # Two slices of which similarity is 1/2 have the eigenvalues 3/4 and 1/4.
    pair = np.array([[0.0], [math.sqrt(2 * math.log(2))]])
    assert vendi(pair, 1) == pytest.approx(math.exp(-(0.75 * math.log(0.75) + 0.25 * math.log(0.25))))


def test_diversity_is_that_of_the_poorest_class(slices, scaled):
    codes = np.arange(200) % 2
    real, other = scaled(slices[:200]), scaled(slices[200:])
    assert diversity(other, codes, real, real_codes=codes) == pytest.approx(1, abs=0.2)
    collapsed = other.copy()
    collapsed[1::2] = other[1]
    assert diversity(collapsed, codes, real, real_codes=codes) == pytest.approx(0, abs=1e-6)
    few = np.where(np.arange(200) < 5, 1, 0)  # too few of class 1 to say anything
    assert diversity(other, few, real, real_codes=few) == pytest.approx(1, abs=0.2)
    assert diversity(other, codes, np.zeros_like(real), real_codes=codes) == 1


def test_look_has_the_class_mix_of_val(slices, monkeypatch):
    labels = np.arange(400) % 2
    val = Slices(slices[:, 0], labels, np.flatnonzero((labels == 0) | (np.arange(400) % 20 == 1))[:110])
    asked = []

    def generated(network, latents, codes):
        asked.append((latents.clone(), codes.clone()))
        return slices[:100, 0]

    monkeypatch.setattr(monitor, "generate", generated)
    config = SMALL.model_copy(update={"size": 64})
    train = Slices(slices[:, 0], labels, np.arange(300))
    watch = Monitor(train, val, MonitorConfig(images=100), average=loop_average(config), seed=0)
    first, second = watch.look(6), watch.look(6)
    assert first == second
    assert set(first) == {"diversity", "kid_val"}
    assert torch.equal(asked[0][0], asked[1][0])
    share = val.codes.mean()
    assert asked[0][1].float().mean() == pytest.approx(share, abs=0.01)
    assert set(watch.look(5)) == {"diversity"}, "a generator that still grows cannot be the best"


def loop_average(config):
    from lungsynth.generators.dcgan import Generator

    return Generator(config).eval()


def test_few_slices_of_val_choose_nothing(slices, caplog):
    labels = np.arange(400) % 2
    train = Slices(slices[:, 0], labels, np.arange(300))
    average = loop_average(SMALL.model_copy(update={"size": 64}))
    for val in (None, Slices(slices[:, 0], labels, np.arange(300, 309))):
        caplog.clear()
        look = Monitor(train, val, MonitorConfig(images=20), average=average, seed=0).look(6)
        assert set(look) == {"diversity"}
        assert f"{len(val or ())} slices to choose weights by" in caplog.text


def rows(*numbers):
    return [{"kimg": float(kimg), "kid_val": kid_val, "diversity": seen} for kimg, kid_val, seen in numbers]


def test_the_first_of_equals_is_the_best():
    looks = rows((1, 5.0, 1.0), (2, 3.0, 1.0), (3, 3.0, 1.0), (4, 4.0, 1.0))
    assert best([{"kimg": 0.5}, *looks, {"kimg": 4.5}]) is looks[1]
    assert best([{"kimg": 0.5}, {"kimg": 1.0, "diversity": 1.0}]) is None


@pytest.mark.parametrize(("patience", "ends"), [(None, False), (2.5, False), (2.0, True), (0.5, True)])
def test_patience_counts_from_the_best_look_to_the_last(patience, ends):
    looks = rows((1, 5.0, 1.0), (2, 3.0, 1.0), (4, 3.5, 1.0))
    assert out_of_patience([*looks, {"kimg": 9.0}], MonitorConfig(patience_kimg=patience)) is ends
    assert not out_of_patience([{"kimg": 9.0}], MonitorConfig(patience_kimg=patience))


@pytest.mark.parametrize(
    ("seen", "spoiled"),
    [((1, 0.05, 0.04), True), ((0.05, 0.04, 1), False), ((1, 1, 0.05), False), ((0.05, 1, 0.05), False)],
)
def test_two_looks_in_a_row_tell_a_collapse(seen, spoiled):
    looks = rows(*((10 + i, 1.0, number) for i, number in enumerate(seen)))
    check_diversity(looks, MonitorConfig(grace_kimg=11))  # of the three, one is later
    if spoiled:
        with pytest.raises(SpoiledError, match=r"collapsed before 12\.00 kimg: diversity 0\.040"):
            check_diversity(looks, MonitorConfig(grace_kimg=5))
    else:
        check_diversity(looks, MonitorConfig(grace_kimg=5))


def with_monitor(**changes):
    """A run with looks at 0.16, 0.304, 0.464 and 0.608 kimg."""
    settings = {"every_kimg": 0.15, "images": 20, "grace_kimg": 0} | changes
    brief = {"kimg": 0.6, "snapshot_kimg": 0.3, "checkpoint_kimg": 0.2, "monitor": settings}
    return TrainingConfig.model_validate(BRIEF.model_dump() | brief)


@pytest.fixture
def kid_by_moment(monkeypatch):
    """Lets the look number i (from 0) find the i-th of the given values of KID, and of diversity."""

    def script(kids, diversities=None):
        seen = iter(zip(kids, diversities or [1.0] * len(kids), strict=True))
        monkeypatch.setattr(
            Monitor, "look", lambda self, level: dict(zip(("kid_val", "diversity"), next(seen), strict=True))
        )

    return script


def test_the_best_weights_are_packaged(tmp_path, kid_by_moment, monkeypatch):
    averages, save = {}, loop.save_frame

    def seen(state, *rest):
        averages[state.kimg] = weights(state.average)
        save(state, *rest)

    monkeypatch.setattr(loop, "save_frame", seen)
    kid_by_moment([3.0, 1.0, 2.0, 1.0])
    lines = []
    package = train_with(tmp_path, with_monitor(), lines.append)
    assert (package.card.kimg, package.card.kid_val) == (0.304, 1.0)
    assert package.card.training["kimg"] == 0.6
    assert torch.equal(weights(package.load()), averages[0.304])
    assert not torch.equal(weights(package.load()), averages[0.608])
    log = [json.loads(line) for line in (package.folder / "training_log.jsonl").read_text().splitlines()]
    assert log == lines
    assert [row["kimg"] for row in log if "kid_val" in row] == [0.16, 0.304, 0.464, 0.608]


def test_a_killed_run_still_finds_its_best(tmp_path, kid_by_moment, monkeypatch):
    kid_by_moment([1.0, 2.0, 3.0, 4.0])
    whole = train_with(tmp_path / "whole", with_monitor())

    def killed(*arguments):
        raise KeyboardInterrupt

    monkeypatch.setattr(output, "snapshot", killed)
    kid_by_moment([1.0, 2.0])
    with pytest.raises(KeyboardInterrupt):
        train_with(tmp_path / "killed", with_monitor())
    monkeypatch.undo()
    kid_by_moment([2.0, 3.0, 4.0])  # from the checkpoint at 0.208 kimg
    resumed = train_with(tmp_path / "killed", with_monitor())
    assert resumed.card.kimg == 0.16
    assert resumed.sha256 == whole.sha256


def test_patience_ends_a_run_early(tmp_path, kid_by_moment):
    kid_by_moment([1.0, 2.0, 3.0])
    package = train_with(tmp_path, with_monitor(patience_kimg=0.3))
    assert package.card.kimg == 0.16
    last = (package.folder / "training_log.jsonl").read_text().splitlines()[-1]
    assert json.loads(last)["kimg"] == 0.464
    assert list((tmp_path / "checkpoints").iterdir()) == []


def test_a_collapsed_run_stops_and_keeps_its_best(tmp_path, kid_by_moment):
    kid_by_moment([1.0, 3.0, 4.0], [1.0, 0.05, 0.01])
    message = r"collapsed before 0\.46 kimg.*of 0\.16 kimg with KID 1\.000, are kept in"
    with pytest.raises(LungsynthError, match=message) as caught:
        train_with(tmp_path, with_monitor())
    kept = GeneratorPackage(next((tmp_path / "checkpoints").iterdir()) / "best")
    assert str(kept.folder) in str(caught.value)
    assert (kept.card.kimg, kept.card.kid_val) == (0.16, 1.0)
    assert kept.sample(np.array([0, 1]), seed=0).shape == (2, 32, 32)


def test_a_diverged_run_keeps_its_best(tmp_path, kid_by_moment, monkeypatch):
    kid_by_moment([2.0])
    finite = iter([1.0, math.nan])
    summary = loop._summary
    monkeypatch.setattr(
        loop, "_summary", lambda statistics, *rest, **mark: summary(statistics * next(finite), *rest, **mark)
    )
    with pytest.raises(SpoiledError, match=r"diverged before 0\.30 kimg.*of 0\.16 kimg with KID 2\.000, are kept in"):
        train_with(tmp_path, with_monitor())


def test_a_run_that_diverges_at_once_says_that_nothing_is_kept(tmp_path):
    with pytest.raises(SpoiledError, match="no weights were compared with val before"):
        train_with(tmp_path, with_monitor().model_copy(update={"generator_lr": 1e38}))
    assert not list(tmp_path.rglob("generator.json"))


def train_with(folder, training, on_log=None):
    images, labels = halves()
    places = np.arange(len(labels)) % 5 == 4
    return train_generator(
        TrainingRun(
            Slices(images, labels, np.flatnonzero(~places)),
            Slices(images, labels, np.flatnonzero(places)),
            window_hu=None,
            data_sha256="0" * 64,
            generator=SMALL,
            training=training,
            folder=folder / "package",
            checkpoints=folder / "checkpoints",
            on_log=on_log,
        )
    )


def weights(network):
    return torch.cat([tensor.flatten().float() for tensor in network.state_dict().values()])
