import numpy as np
import pytest
import torch
import torch_fidelity
from torch.utils.data import Dataset
from torch_fidelity.feature_extractor_base import FeatureExtractorBase
from torch_fidelity.registry import register_feature_extractor

from lungsynth.errors import LungsynthError
from lungsynth.evaluation.extractor import ExtractorConfig, relative_level, train_extractor
from lungsynth.evaluation.fidelity.distances import DistancesConfig, fid, kernels, kid

QUICK = ExtractorConfig(steps=30)


@pytest.fixture(scope="module")
def extractor(toy, tmp_path_factory):
    return train_extractor(toy, QUICK, tmp_path_factory.mktemp("extractor"))


def test_same_seed_gives_the_same_bytes(toy, extractor, tmp_path):
    assert train_extractor(toy, QUICK, tmp_path).sha256 == extractor.sha256


def test_other_seed_gives_another_extractor(toy, extractor, tmp_path):
    assert train_extractor(toy, QUICK.model_copy(update={"seed": 1}), tmp_path).sha256 != extractor.sha256


def test_features_do_not_depend_on_the_batch(toy, extractor):
    together = extractor.features(toy.images[:200])
    assert together.dtype == np.float32
    assert together.shape == (200, 64)
    np.testing.assert_allclose(extractor.features(toy.images[150:151]), together[150:151], rtol=1e-4, atol=1e-5)


def test_features_tell_classes_apart(toy, tmp_path):
    extractor = train_extractor(toy, ExtractorConfig(steps=200), tmp_path)
    train, test = toy.rows("train"), toy.rows("test")
    features, labels = extractor.features(toy.images), toy.labels
    axis = features[train][labels[train] == 1].mean(0) - features[train][labels[train] == 0].mean(0)
    projected = features[test] @ axis
    wins = projected[labels[test] == 1][:, None] > projected[labels[test] == 0]
    assert wins.mean() > 0.65


def test_level_runs_from_0_to_1_within_each_series(toy):
    level = relative_level(toy.table)
    assert level[:8] == pytest.approx(np.arange(8) / 7)
    assert relative_level(toy.table.iloc[:1])[0] == 0.5


def test_torch_fidelity_computes_the_same_from_these_features(toy, extractor):
    class Slices(Dataset):
        def __init__(self, images):
            self.images = images

        def __len__(self):
            return len(self.images)

        def __getitem__(self, index):
            return torch.from_numpy(np.array(self.images[index])).expand(3, -1, -1)

    class Lung(FeatureExtractorBase):
        """The extractor under torch-fidelity's interface."""

        get_provided_features_list = staticmethod(lambda: ("64",))
        get_default_feature_layer_for_metric = staticmethod(lambda metric: "64")

        def __init__(self, name, features_list, **options):
            super().__init__(name, features_list)

        def forward(self, input):
            return extractor.network.module(input)

    register_feature_extractor("lung", Lung)
    sides = toy.images[toy.rows("train")], toy.images[toy.rows("test")]
    theirs = torch_fidelity.calculate_metrics(
        input1=Slices(sides[1]), input2=Slices(sides[0]), feature_extractor="lung", cuda=False, fid=True, kid=True,
        kid_subset_size=100, rng_seed=0, verbose=False,
        save_cpu_ram=True,
    )  # fmt: skip
    real, other = (extractor.features(side) for side in sides)
    assert fid(real, other) == pytest.approx(theirs["frechet_inception_distance"], rel=1e-4)
    config = DistancesConfig(kid_subset_size=100)
    assert kid(kernels(real, other), config) == pytest.approx(theirs["kernel_inception_distance_mean"], rel=1e-4)


def test_a_training_that_diverged_is_named(toy, tmp_path):
    with pytest.raises(LungsynthError, match=r"its weights are not finite: lower extractor\.lr"):
        train_extractor(toy, ExtractorConfig(steps=20, lr=1e25), tmp_path)
