import urllib.error

import numpy as np
import pytest
import torch
from torch_fidelity import feature_extractor_inceptionv3
from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3

from lungsynth.errors import LungsynthError
from lungsynth.evaluation.extractor import ExtractorConfig, extract, train_extractor
from lungsynth.evaluation.fidelity import FidelityConfig, load_inception, measure_fidelity
from lungsynth.evaluation.sampler import draw

CONFIG = FidelityConfig(inception="off", resamples=30)


@pytest.fixture(scope="module")
def extractor(toy, tmp_path_factory):
    return train_extractor(toy, ExtractorConfig(steps=60), tmp_path_factory.mktemp("extractor"))


def test_fresh_slices_score_near_the_floor_and_noise_far_above(toy, extractor, fresh_sampler, noise_sampler):
    fresh, noise = (measure_fidelity(toy, sampler, extractor, CONFIG) for sampler in (fresh_sampler, noise_sampler))
    assert fresh["kid_lung"].value < 0.2 * noise["kid_lung"].value
    assert noise["fid_lung"].low > noise["fid_lung/floor"].high
    assert noise["fid_lung"].n == {"synthetic": 224, "real": 192, "patients": 24}
    assert "lung extractor" in noise["fid_lung"].computed_with


def test_every_class_has_its_number_and_floor_or_a_note(toy, extractor, fresh_sampler):
    card = measure_fidelity(toy, fresh_sampler, extractor, CONFIG)
    names = [metric.name for metric in card.metrics]
    assert {"kid_lung/cancer", "kid_lung/cancer/floor", "fid_lung/non-cancer", "fid_lung/non-cancer/floor"} <= set(
        names
    )
    assert "fid_lung/cancer" not in names  # 48 slices for 64 features
    assert any(note.startswith("fid_lung/cancer was left out") for note in card.notes)
    for metric in card.metrics:
        assert metric.low <= metric.value <= metric.high


def test_classes_have_the_names_of_the_dataset(radiographs, fresh_sampler, tmp_path):
    extractor = train_extractor(radiographs, ExtractorConfig(steps=5), tmp_path)
    names = [metric.name for metric in measure_fidelity(radiographs, fresh_sampler, extractor, CONFIG).metrics]
    assert {"kid_lung/NORMAL", "kid_lung/PNEUMONIA/floor"} <= set(names)


def test_the_same_seed_gives_the_same_card(toy, extractor, fresh_sampler):
    cards = [measure_fidelity(toy, fresh_sampler, extractor, CONFIG) for _ in range(2)]
    assert cards[0] == cards[1]


def test_without_inception_weights_one_note_says_so(toy, extractor, fresh_sampler, tmp_path, monkeypatch):
    def unreachable(*_, **__):
        raise urllib.error.URLError("no route to host")

    monkeypatch.setattr(torch.hub, "download_url_to_file", unreachable)
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    card = measure_fidelity(toy, fresh_sampler, extractor, CONFIG.model_copy(update={"inception": "auto"}))
    assert sum("no route to host" in note for note in card.notes) == 1
    assert "kid_lung" in [metric.name for metric in card.metrics]


def test_a_weight_file_that_is_none_is_named(tmp_path):
    path = tmp_path / "weights.pth"
    torch.save({"x": torch.zeros(1)}, path)
    with pytest.raises(LungsynthError, match=r"weights\.pth"):
        load_inception(path)


@pytest.fixture
def inception_in_hub_cache(tmp_path, monkeypatch):
    """A weight file of the right architecture, but random weights: what is tested is the way there, not the numbers."""
    with monkeypatch.context() as patch:
        patch.setattr(feature_extractor_inceptionv3, "load_state_dict_from_url", lambda *_, **__: {})
        patch.setattr(FeatureExtractorInceptionV3, "load_state_dict", lambda *_: None)
        state = FeatureExtractorInceptionV3("inception-v3-compat", ["2048"]).state_dict()
    path = tmp_path / "hub" / "checkpoints" / "weights-inception-2015-12-05-6726825d.pth"
    path.parent.mkdir(parents=True)
    torch.save(state, path)
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    return path


def test_inception_is_loaded_from_the_hub_cache_or_a_path(inception_in_hub_cache, toy):
    features = [extract(load_inception(path), toy.images[:1]) for path in (None, inception_in_hub_cache)]
    assert features[0].shape == (1, 2048)
    assert (features[0] == features[1]).all()


@pytest.mark.slow
def test_inception_measures_beside_lung(inception_in_hub_cache, toy, extractor, fresh_sampler):
    card = measure_fidelity(toy, fresh_sampler, extractor, FidelityConfig(max_images=20, resamples=20))
    names = [metric.name for metric in card.metrics]
    assert {"kid_lung", "kid_inception", "kid_inception/floor"} <= set(names)
    assert any(note.startswith("fid_inception was left out") for note in card.notes)


def test_a_sampler_of_another_size_is_an_error():
    with pytest.raises(LungsynthError, match="same size"):
        draw(lambda labels, seed: np.zeros((len(labels), 16, 16), np.uint8), np.zeros(3, int), 0, 32)
