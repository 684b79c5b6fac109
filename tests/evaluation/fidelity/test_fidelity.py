import urllib.error

import numpy as np
import pytest
import torch

from lungsynth.dataset.store import SliceDataset
from lungsynth.errors import LungsynthError
from lungsynth.evaluation.extractor import ExtractorConfig, train_extractor
from lungsynth.evaluation.fidelity.formulas import FORMULAS
from lungsynth.evaluation.fidelity.measure import FidelityConfig, measure_fidelity
from lungsynth.evaluation.privacy.audit import audit_privacy
from lungsynth.evaluation.privacy.checks import PrivacyConfig
from lungsynth.evaluation.quantities import MS_SSIM
from lungsynth.evaluation.sampler import draw

CONFIG = FidelityConfig(extractors=(), normalisations=(), cache=None, resamples=30)


@pytest.fixture(scope="module")
def extractor(toy, tmp_path_factory):
    return train_extractor(toy, ExtractorConfig(steps=60), tmp_path_factory.mktemp("extractor"))


def test_fresh_slices_score_near_the_floor_and_noise_far_above(toy, extractor, fresh_sampler, noise_sampler):
    fresh, noise = (
        measure_fidelity(toy, sampler, extractor, config=CONFIG) for sampler in (fresh_sampler, noise_sampler)
    )
    assert fresh["kid_lung"].value < 0.2 * noise["kid_lung"].value
    assert noise["fid_lung"].low > noise["fid_lung/floor"].high
    assert noise["fid_lung"].n == {"synthetic": 224, "real": 192, "patients": 24}
    assert "lung extractor" in noise["fid_lung"].computed_with


def test_every_class_has_its_number_and_floor_or_a_note(toy, extractor, fresh_sampler):
    card = measure_fidelity(toy, fresh_sampler, extractor, config=CONFIG)
    names = [metric.name for metric in card.metrics]
    assert {"kid_lung/cancer", "kid_lung/cancer/floor", "fid_lung/non-cancer", "fid_lung/non-cancer/floor"} <= set(
        names
    )
    assert "fid_lung/cancer" not in names  # 48 slices for 64 features
    assert any(note.startswith("fid_lung/cancer was left out") for note in card.notes)
    for metric in card.metrics:
        assert metric.low <= metric.value <= metric.high
    assert {metric.quantity for metric in card.metrics} == {q for one in FORMULAS for q in one.quantities} | {MS_SSIM}


@pytest.mark.parametrize("without", [("train",), ("val", "test")])
def test_a_class_that_a_side_lacks_has_no_number_and_no_traceback(without, toy, extractor, fresh_sampler, monkeypatch):
    rows = SliceDataset.rows

    def some(dataset, *splits):
        found = rows(dataset, *splits)
        return found[dataset.labels[found] == 0] if splits == without else found

    monkeypatch.setattr(SliceDataset, "rows", some)
    card = measure_fidelity(toy, fresh_sampler, extractor, config=CONFIG)
    names = {metric.name for metric in card.metrics}
    assert {"ms_ssim/non-cancer", "kid_lung/non-cancer"} <= names
    assert ("ms_ssim/cancer" in names) == (without == ("train",))
    assert "lung/cancer: 0 images are too few for any fidelity measure" in card.notes


def test_classes_have_the_names_of_the_dataset(radiographs, fresh_sampler, tmp_path):
    extractor = train_extractor(radiographs, ExtractorConfig(steps=5), tmp_path)
    names = [metric.name for metric in measure_fidelity(radiographs, fresh_sampler, extractor, config=CONFIG).metrics]
    assert {"kid_lung/NORMAL", "kid_lung/PNEUMONIA/floor"} <= set(names)


def test_the_same_seed_gives_the_same_card(toy, extractor, fresh_sampler):
    cards = [measure_fidelity(toy, fresh_sampler, extractor, config=CONFIG) for _ in range(2)]
    assert cards[0] == cards[1]


def test_an_extractor_without_weights_is_left_out_with_a_note(toy, extractor, fresh_sampler, tmp_path, monkeypatch):
    def unreachable(*_, **__):
        raise urllib.error.URLError("no route to host")

    monkeypatch.setattr(torch.hub, "download_url_to_file", unreachable)
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    config = CONFIG.model_copy(update={"extractors": ("inception", "radimagenet")})
    card = measure_fidelity(toy, fresh_sampler, extractor, config=config)
    assert sum("no route to host" in note for note in card.notes) == 1
    assert sum("fidelity.weights.radimagenet" in note for note in card.notes) == 1
    assert "kid_lung" in [metric.name for metric in card.metrics]


def test_a_weight_file_that_is_not_there_is_an_error(toy, extractor, fresh_sampler, tmp_path):
    config = CONFIG.model_copy(
        update={"extractors": ("radimagenet",), "weights": {"radimagenet": tmp_path / "none.pt"}}
    )
    with pytest.raises(LungsynthError, match=r"fidelity\.weights\.radimagenet: .*none\.pt"):
        measure_fidelity(toy, fresh_sampler, extractor, config=config)


def test_distances_under_other_normalisations_have_floors(toy, extractor, fresh_sampler):
    config = CONFIG.model_copy(update={"normalisations": ("min-max", "matched")})
    card = measure_fidelity(toy, fresh_sampler, extractor, config=config)
    for name in ("fid_lung", "fid_lung@min-max", "kid_lung@matched"):
        assert card[f"{name}/floor"].n["held-out"] == card[name].n["synthetic"]
    assert card["fid_lung@min-max"].value != card["fid_lung"].value
    assert "precision_lung@matched" not in [metric.name for metric in card.metrics]


def test_the_ratio_is_near_one_for_fresh_slices_and_near_nothing_for_noise(
    toy, extractor, fresh_sampler, noise_sampler
):
    fresh, noise = (
        measure_fidelity(toy, sampler, extractor, config=CONFIG) for sampler in (fresh_sampler, noise_sampler)
    )
    ratio = fresh["fid_ratio_lung"]
    assert ratio.value == pytest.approx(fresh["fid_lung/floor"].value / fresh["fid_lung"].value)
    assert ratio.low < ratio.value < ratio.high
    assert noise["fid_ratio_lung"].high < 0.1 < ratio.low


def test_real_slices_are_measured_once_and_synthetic_ones_each_time(toy, extractor, fresh_sampler, tmp_path):
    config = CONFIG.model_copy(update={"cache": tmp_path})
    first = measure_fidelity(toy, fresh_sampler, extractor, config=config)
    files = {path: path.stat().st_mtime_ns for path in tmp_path.iterdir()}
    assert len(files) == 2  # train, and what was held out
    assert measure_fidelity(toy, fresh_sampler, extractor, config=config) == first
    audit_privacy(toy, fresh_sampler, extractor, config=PrivacyConfig(synthetic=40, resamples=100, cache=tmp_path))
    assert {path: path.stat().st_mtime_ns for path in tmp_path.iterdir()} == files


def test_a_sampler_of_another_size_is_an_error():
    with pytest.raises(LungsynthError, match="same size"):
        draw(lambda labels, seed: np.zeros((len(labels), 16, 16), np.uint8), np.zeros(3, int), 0, size=32)
