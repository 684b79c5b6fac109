import numpy as np
import pytest

from lungsynth.evaluation.extractor import ExtractorConfig, train_extractor
from lungsynth.evaluation.privacy import PrivacyConfig, audit_privacy, detail_correlation

CONFIG = PrivacyConfig(synthetic=200, resamples=200)


@pytest.fixture(scope="module")
def extractor(toy, tmp_path_factory):
    return train_extractor(toy, ExtractorConfig(steps=60), tmp_path_factory.mktemp("extractor"))


def copier(dataset, shift: int, sd: float, share: float = 1.0, fresh=None):
    """Returns training slices, shifted and noised; the rest is fresh."""

    def sample(labels, seed):
        rng = np.random.default_rng(seed)
        rows = dataset.rows("train")
        copies = np.stack([dataset.images[rng.choice(rows[dataset.labels[rows] == label])] for label in labels])
        copies = np.roll(copies, (shift, -shift), (1, 2)) + rng.normal(0, sd, copies.shape)
        copies = np.clip(copies, 0, 255).astype(np.uint8)
        return (
            copies
            if fresh is None
            else np.where(rng.random(len(labels))[:, None, None] < share, copies, fresh(labels, seed))
        )

    return sample


@pytest.mark.parametrize(("shift", "sd"), [(0, 0), (0, 5), (1, 2)])
def test_copies_of_training_slices_are_a_breach(toy, extractor, shift, sd):
    card = audit_privacy(toy, copier(toy, shift, sd), extractor, CONFIG)
    assert card["privacy/breach"].value == 1
    assert card["privacy/duplicates"].value > 0.9


def test_a_tenth_of_copies_among_fresh_slices_is_a_breach(toy, extractor, fresh_sampler):
    card = audit_privacy(toy, copier(toy, 0, 3, 0.1, fresh_sampler), extractor, CONFIG)
    assert card["privacy/breach"].value == 1
    assert card["privacy/duplicates"].value == pytest.approx(0.1, abs=0.06)


def test_fresh_slices_are_none(toy, extractor, fresh_sampler):
    card = audit_privacy(toy, fresh_sampler, extractor, CONFIG)
    assert card["privacy/breach"].value == 0
    assert card["privacy/duplicates"].value == card["privacy/duplicates/floor"].value == 0
    assert card["privacy/near"].low <= card["privacy/near"].value <= card["privacy/near"].high


def test_detail_correlation_finds_the_shifted_original(toy):
    train = toy.images[toy.rows("train")]
    moved = np.roll(train[:20], (1, 1), (1, 2))
    assert detail_correlation(moved, train).min() > 0.85
    assert detail_correlation(toy.images[toy.rows("test")], train).max() < 0.8
