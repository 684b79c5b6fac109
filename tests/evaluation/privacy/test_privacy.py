import numpy as np
import pytest
from scipy.ndimage import rotate

from lungsynth.dataset.store import SliceDataset
from lungsynth.evaluation.extractor import ExtractorConfig, train_extractor
from lungsynth.evaluation.privacy.audit import audit_privacy
from lungsynth.evaluation.privacy.checks import PrivacyConfig
from lungsynth.evaluation.privacy.closeness import (
    Side,
    authentic,
    distance_ratio,
    membership_auroc,
    nearest,
    nearest_by_patient,
)
from lungsynth.evaluation.privacy.closest_pairs import ClosestPairs
from lungsynth.evaluation.privacy.copies import detail_correlation

CONFIG = PrivacyConfig(synthetic=100, resamples=200, cache=None)


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
    card = audit_privacy(toy, copier(toy, shift, sd), extractor, config=CONFIG).scorecard
    assert card["privacy/breach"].value >= 1
    assert card["privacy/duplicates"].value > 0.9
    assert card["privacy/pixel_ratio"].high < 0.5


def test_a_tenth_of_copies_among_fresh_slices_is_a_breach(toy, extractor, fresh_sampler):
    card = audit_privacy(toy, copier(toy, 0, 3, 0.1, fresh_sampler), extractor, config=CONFIG).scorecard
    assert card["privacy/breach"].value >= 1
    assert card["privacy/duplicates"].value == pytest.approx(0.1, abs=0.06)


def disguise(images, kind):
    """Copies, each in another place or pose."""
    if kind == "shift":
        return np.roll(images, (3, -3), (1, 2))
    if kind == "mirror":
        return images[:, :, ::-1]
    return np.stack([rotate(image, 4, reshape=False, order=1, mode="nearest") for image in images])


@pytest.mark.parametrize("kind", ["shift", "mirror", "turn"])
def test_no_pose_hides_a_copy(toy, kind):
    train = toy.images[toy.rows("train")]
    found = detail_correlation(disguise(train[:40], kind), train)
    assert (found.row == np.arange(40)).mean() > 0.9
    strangers = detail_correlation(toy.images[toy.rows("test")], train).correlation.max()
    assert (found.correlation > strangers).mean() > 0.9


def test_one_verbatim_copy_is_one_too_many(toy, extractor, fresh_sampler):
    original = toy.images[toy.rows("train")[0]]

    def sample(labels, seed):
        return np.concatenate([original[None], fresh_sampler(labels, seed)[1:]])

    config = CONFIG.model_copy(update={"synthetic": 200})
    card = audit_privacy(toy, sample, extractor, config=config).scorecard
    assert card["privacy/duplicates"].low == 0
    assert card["privacy/breach"].value == 1
    assert card["privacy/breach"].computed_with.startswith("verbatim 0.005 (")


def test_a_patient_on_both_sides_is_noted_and_hides_no_copies(toy, extractor, tmp_path):
    images, train, val = np.array(toy.images), toy.rows("train"), toy.rows("val")
    images[val[:8]] = images[train[:8]]
    twice = SliceDataset.write(tmp_path / "slices", images, toy.table, meta=toy.meta)
    card = audit_privacy(twice, copier(toy, 0, 6.5), extractor, config=CONFIG).scorecard
    assert "8 held-out slices, of 1 patients, are copies of training slices" in card.notes[0]
    assert card["privacy/duplicates"].value > 0.9


def test_where_strangers_look_the_same_one_likeness_is_no_copy(toy, extractor, fresh_sampler, tmp_path):
    images, train = np.array(toy.images), toy.rows("train")
    images[toy.rows("test")[::8]] = images[train[:16]]  # a slice of every patient
    alike = SliceDataset.write(tmp_path / "slices", images, toy.table, meta=toy.meta)

    def sample(labels, seed):
        return np.concatenate([images[train[:1]], fresh_sampler(labels, seed)[1:]])

    card = audit_privacy(alike, sample, extractor, config=CONFIG).scorecard
    assert card["privacy/verbatim"].value > 0
    assert card["privacy/breach"].value == 0
    assert card.notes == ()


def test_with_few_patients_only_copies_are_judged(toy, extractor, fresh_sampler, tmp_path):
    kept = np.concatenate([toy.rows("train"), toy.rows("val")[:24], toy.rows("test")[:24]])
    few = SliceDataset.write(tmp_path / "slices", toy.images[kept], toy.table.iloc[kept], meta=toy.meta)
    strict = CONFIG.model_copy(update={"least_distance_ratio": 1.0, "allowed_near": 0.0, "allowed_patients": 0.0})
    card = audit_privacy(few, fresh_sampler, extractor, config=strict).scorecard
    assert card["privacy/breach"].value == 0
    assert card["privacy/unjudged"].value == 4
    assert card["privacy/unjudged"].computed_with == "6 held-out patients, 20 are needed"
    assert audit_privacy(few, copier(toy, 0, 2), extractor, config=strict).scorecard["privacy/breach"].value == 2


def test_fresh_slices_are_none(toy, extractor, fresh_sampler):
    card = audit_privacy(toy, fresh_sampler, extractor, config=CONFIG).scorecard
    assert card["privacy/breach"].value == 0
    assert card["privacy/duplicates"].value == card["privacy/duplicates/floor"].value == 0
    assert card["privacy/near"].low <= card["privacy/near"].value <= card["privacy/near"].high
    assert card["privacy/pixel_ratio"].value == pytest.approx(1, abs=0.1)


def test_the_closest_pairs_are_copies_beside_their_originals(toy, extractor, fresh_sampler, tmp_path):
    closest = audit_privacy(toy, copier(toy, 0, 2, 0.1, fresh_sampler), extractor, config=CONFIG).closest_pairs
    assert closest.synthetic.shape == closest.train.shape == (10, 32, 32)
    assert np.abs(closest.synthetic.astype(int) - closest.train).max() < 12
    closest.save(tmp_path / "pairs.safetensors")
    assert ClosestPairs.load(tmp_path / "pairs.safetensors").sha256 == closest.sha256


def test_the_attack_by_the_discriminator_is_reported_and_blocks_nothing(toy, extractor, fresh_sampler):
    train = {image.tobytes() for image in toy.images[toy.rows("train")]}

    def knows_who_was_trained_on(images, labels):
        return np.array([float(image.tobytes() in train) for image in images])

    config = CONFIG.model_copy(update={"synthetic": 40})
    card = audit_privacy(toy, fresh_sampler, extractor, config=config, realness=knows_who_was_trained_on).scorecard
    assert card["privacy/membership_discriminator"].value == 1
    assert card["privacy/breach"].value == 0
    without = audit_privacy(
        toy, fresh_sampler, extractor, config=config, realness=lambda images, labels: None
    ).scorecard
    assert "privacy/membership_discriminator" not in [metric.name for metric in without.metrics]


def test_distances_of_each_patient_are_those_of_its_nearest_slice():
    rng = np.random.default_rng(0)
    features, real = rng.normal(size=(300, 4)).astype(np.float32), rng.normal(size=(50, 4)).astype(np.float32)
    patients = rng.permutation(np.arange(50) % 7)
    found = nearest_by_patient(features, Side(real, patients))
    apart = np.linalg.norm(features[:, None] - real, axis=2)
    expected = np.stack([apart[:, patients == code].min(axis=1) for code in range(7)], axis=1)
    np.testing.assert_allclose(found, expected, atol=1e-4)


def points(count: int, slices: int, rng: np.random.Generator) -> Side:
    """Patients far apart, their slices near one another."""
    centres = rng.normal(size=(count, 1, 6))
    features = centres + 0.05 * rng.normal(size=(count, slices, 6))
    return Side(features.reshape(-1, 6).astype(np.float32), np.repeat(np.arange(count), slices))


def test_fresh_points_are_as_near_to_either_side_and_copies_are_not():
    rng = np.random.default_rng(1)
    train, others = points(120, 4, rng), points(60, 4, rng)
    fresh = points(300, 1, rng).features
    copies = train.features[rng.integers(len(train.features), size=300)] + np.float32(0.02)
    for drawn, near in ((fresh, False), (copies, True)):
        distances = [nearest_by_patient(drawn, side) for side in (train, others)]
        ratio, membership = distance_ratio(*distances, resamples=200, seed=0), membership_auroc(*distances)
        assert ratio.low <= ratio.value <= ratio.high
        assert (ratio.high < 0.75) is near
        assert (ratio.low <= 1 <= ratio.high) is not near
        assert (membership.low > 0.9) is near
        assert (membership.low <= 0.5 <= membership.high) is not near


def test_a_copy_is_not_authentic_though_its_neighbours_are_nearer_to_one_another():
    rng = np.random.default_rng(2)
    train = points(50, 6, rng)
    assert not authentic(nearest(train.features + np.float32(0.1), train), train).any()
    assert authentic(nearest(points(200, 1, rng).features, train), train).mean() > 0.3


def test_detail_correlation_finds_the_shifted_original(toy):
    train = toy.images[toy.rows("train")]
    moved = np.roll(train[:20], (1, 1), (1, 2))
    found = detail_correlation(moved, train)
    assert found.correlation.min() > 0.85
    assert (found.row == np.arange(20)).all()
    assert detail_correlation(toy.images[toy.rows("test")], train).correlation.max() < 0.8
