"""A package reads back what was written, samples the same for the same seed, and names what is wrong with it."""

import json

import numpy as np
import pytest
import torch

from lungsynth.dataset.vocabulary import CLASSES
from lungsynth.errors import LungsynthError
from lungsynth.generators.dcgan import DcganConfig, Discriminator, Generator
from lungsynth.generators.package import GeneratorCard, GeneratorPackage, to_uint8

LABELS = np.array([0, 1] * 40)


def write(folder, classes=CLASSES):
    config = DcganConfig(size=32, nz=16, ngf=4, classes=classes)
    card = GeneratorCard(generator=config, window_hu=(-1350, 150), data_sha256="d" * 64, kimg=3, training={"batch": 32})
    with torch.random.fork_rng():
        torch.manual_seed(0)
        generator = Generator(config)
    with torch.no_grad():  # the initial weights are so small that every slice would be grey
        for parameter in generator.parameters():
            parameter.mul_(5)
    return GeneratorPackage.write(folder, generator, card), generator


def test_round_trip(tmp_path):
    package, generator = write(tmp_path)
    again = GeneratorPackage(tmp_path)
    assert again.classes == CLASSES
    assert again.window_hu == (-1350, 150)
    assert again.card == package.card
    assert again.sha256 == package.sha256
    for key, tensor in again.load().state_dict().items():
        assert torch.equal(tensor, generator.state_dict()[key])


def test_a_card_that_states_its_channels_is_read_where_there_is_one(tmp_path):
    package, _ = write(tmp_path)
    path = tmp_path / "generator.json"
    card = json.loads(path.read_text())
    for channels in (1, 3):
        card["generator"]["channels"] = channels  # as older versions wrote it
        path.write_text(json.dumps(card))
        old = GeneratorPackage(tmp_path)
        if channels == 1:
            assert old.card == package.card
        else:
            with pytest.raises(LungsynthError, match=r"generator\.json: .*channels is 3, but slices have one") as error:
                old.load()
            assert "\n" not in str(error.value)


def test_the_discriminator_goes_with_the_package_where_there_is_one(tmp_path):
    package, generator = write(tmp_path / "without")
    images = np.random.default_rng(0).integers(0, 256, (80, 32, 32), dtype=np.uint8)
    assert package.realness(images, LABELS) is None
    discriminator = Discriminator(generator.config).eval()
    package = GeneratorPackage.write(tmp_path / "with", generator, package.card, discriminator=discriminator)
    scores = package.realness(images, LABELS)
    assert scores.shape == (80,)
    same = np.repeat(images[:1], 80, axis=0)  # whatever the order, its neighbours are like it
    with torch.inference_mode():
        expected = discriminator(torch.from_numpy(same[:4])[:, None] / 127.5 - 1, torch.zeros(4, dtype=torch.int64))
    assert package.realness(same[:5], np.zeros(5, int)) == pytest.approx(np.repeat(expected.numpy()[:1], 5), abs=1e-5)
    assert package.sha256 == GeneratorPackage(tmp_path / "without").sha256


def test_samples_follow_the_seed_alone(tmp_path):
    package, _ = write(tmp_path)
    before = torch.random.get_rng_state()
    first = package.sample(LABELS, seed=3)
    assert first.shape == (80, 32, 32)
    assert first.dtype == np.uint8
    assert np.array_equal(first, package.sample(LABELS, seed=3))
    assert not np.array_equal(first, package.sample(LABELS, seed=4))
    assert torch.equal(before, torch.random.get_rng_state())
    assert first.std() > 10


def test_a_slice_does_not_depend_on_how_many_are_drawn_with_it(tmp_path):
    package, _ = write(tmp_path)
    few, many = package.sample(LABELS[:5], seed=3), package.sample(LABELS, seed=3)
    assert np.abs(few.astype(int) - many[:5]).max() <= 1  # convolutions of another batch size may round otherwise


def test_the_label_decides_the_class(tmp_path):
    package, _ = write(tmp_path)
    first, second = package.sample(LABELS, seed=3), package.sample(1 - LABELS, seed=3)
    assert (first != second).any(axis=(1, 2)).all()


def test_no_slices(tmp_path):
    assert write(tmp_path)[0].sample(np.array([], np.int64), seed=0).shape == (0, 32, 32)


def test_unconditional_samples_ignore_labels(tmp_path):
    package, _ = write(tmp_path, classes=())
    assert package.classes == ()
    assert np.array_equal(package.sample(LABELS, seed=1), package.sample(1 - LABELS, seed=1))


def test_unknown_class(tmp_path):
    with pytest.raises(LungsynthError, match="class codes 0 to 1"):
        write(tmp_path)[0].sample(np.array([0, 2]), seed=1)


def test_hash_covers_weights_and_card(tmp_path):
    package, _ = write(tmp_path)
    first = package.sha256
    path = tmp_path / "generator.json"
    path.write_text(path.read_text().replace("-1350", "-1000"))
    second = package.sha256
    data = bytearray((tmp_path / "weights.safetensors").read_bytes())
    data[-1] ^= 1
    (tmp_path / "weights.safetensors").write_bytes(data)
    assert len({first, second, package.sha256}) == 3


@pytest.mark.parametrize("text", ["", "{", "[]", '{"generator": {"size": 48}}', "\udcff"])
def test_corrupt_card(tmp_path, text):
    write(tmp_path)
    (tmp_path / "generator.json").write_bytes(text.encode(errors="surrogateescape"))
    with pytest.raises(LungsynthError, match=r"generator\.json") as caught:
        GeneratorPackage(tmp_path).load()
    assert "\n" not in str(caught.value)


def test_card_of_other_weights(tmp_path):
    write(tmp_path)
    card = json.loads((tmp_path / "generator.json").read_text())
    card["generator"]["ngf"] = 8
    (tmp_path / "generator.json").write_text(json.dumps(card))
    with pytest.raises(LungsynthError, match=r"main\.0\.weight is 18×16×4×4, not 18×32×4×4"):
        GeneratorPackage(tmp_path).sample(LABELS, seed=0)


def test_no_package(tmp_path):
    with pytest.raises(LungsynthError, match="no generator package"):
        GeneratorPackage(tmp_path / "absent").sample(LABELS, seed=0)


def test_grey_values_span_the_window():
    images = torch.tensor([-1.0, -0.001, 0.0, 0.5, 1.0]).reshape(5, 1, 1, 1)
    assert to_uint8(images).flatten().tolist() == [0, 127, 128, 191, 255]
