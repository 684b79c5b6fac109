import numpy as np
import pytest
import torch
from torch import nn

from lungsynth.evaluation.features import FeatureExtractor


class Means(nn.Module):
    """Mean of each channel times a weight; counts how many slices it saw."""

    def __init__(self, weight: float = 1.0) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.tensor(weight))
        self.seen = 0

    def forward(self, images):
        self.seen += len(images)
        return (self.weight * images.float().mean(dim=(2, 3)),)


@pytest.fixture
def images():
    return np.random.default_rng(0).integers(0, 256, (5, 8, 8), dtype=np.uint8)


def test_features_are_computed_once_for_each_pixels_and_weights(images, tmp_path):
    extractor = FeatureExtractor("means", Means())
    first = extractor.features(images, tmp_path)
    assert (extractor.features(images.copy(), tmp_path) == first).all()
    assert extractor.module.seen == 5
    changed = images.copy()
    changed[0, 0, 0] ^= 1
    assert (extractor.features(changed, tmp_path)[0] != first[0]).all()
    other = FeatureExtractor("means", Means(2.0))
    assert other.features(images, tmp_path) == pytest.approx(2 * first)


def test_a_torn_file_is_computed_again(images, tmp_path, caplog):
    extractor = FeatureExtractor("means", Means())
    first = extractor.features(images, tmp_path)
    (file,) = tmp_path.iterdir()
    file.write_bytes(file.read_bytes()[:20])
    assert (extractor.features(images, tmp_path) == first).all()
    assert "computed again" in caplog.text
    assert (extractor.features(images, tmp_path) == first).all()
    assert extractor.module.seen == 10


def test_a_cache_that_cannot_be_written_costs_nothing_but_a_warning(images, tmp_path, caplog):
    (tmp_path / "file").touch()
    found = FeatureExtractor("means", Means()).features(images, tmp_path / "file" / "cache")
    assert found.shape == (5, 3)
    assert "cannot be written" in caplog.text
