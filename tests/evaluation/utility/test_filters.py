from dataclasses import dataclass

import numpy as np
import pytest
from pydantic import ValidationError

from lungsynth.errors import LungsynthError
from lungsynth.evaluation.utility.filters import FilterConfig, real_enough
from lungsynth.evaluation.utility.measure import UtilityConfig, measure_utility

BASE = "real+classical+synthetic@1"
QUICK = UtilityConfig(
    seeds=2,
    steps=20,
    batch=16,
    ratios=(1.0,),
    baselines=("real+classical",),
    controls=(),
    workers=1,
    filters=FilterConfig(use=("discriminator", "confidence", "novelty"), least_realness=0.2),
)


@dataclass(frozen=True)
class Mixed:
    """A sampler, half of whose slices are of one kind and half of another, and a discriminator that knows which."""

    good: object
    bad: object

    def sample(self, labels, seed):
        bad = np.arange(len(labels)) // 2 % 2 == 0
        return np.where(bad[:, None, None], self.bad(labels, seed), self.good(labels, seed))

    def realness(self, images, labels):
        rough = np.abs(np.diff(images.astype(float), axis=2)).mean(axis=(1, 2)) > 60  # as noise is
        return np.where(rough, -1000, images.mean(axis=(1, 2)))


def copies(toy, labels, seed):
    rows, rng = toy.rows("train"), np.random.default_rng(seed)
    return np.stack([toy.images[rng.choice(rows[toy.labels[rows] == label])] for label in labels])


def test_each_filter_keeps_what_it_is_for_and_has_an_arm(toy, fresh_sampler, noise_sampler):
    generator = Mixed(fresh_sampler, noise_sampler)
    predictions = measure_utility(toy, {"synthetic": generator.sample}, QUICK, realness=generator.realness)
    assert {f"{BASE}+discriminator", f"{BASE}+confidence", f"{BASE}+novelty"} <= set(predictions.arms_of("control"))
    assert predictions.arms_of("candidate") == (BASE,)
    share = {note.split()[1]: float(note.split()[2].rstrip("%")) for note in predictions.notes}
    assert 10 < share["discriminator:"] < 50  # no noise
    assert share["novelty:"] > 95


def test_novelty_leaves_copies_out(toy, fresh_sampler):
    generator = Mixed(fresh_sampler, lambda labels, seed: copies(toy, labels, seed))
    config = QUICK.model_copy(update={"filters": FilterConfig(use=("novelty",)), "steps": 2, "seeds": 1})
    (note,) = measure_utility(toy, {"synthetic": generator.sample}, config).notes
    assert float(note.split()[2].rstrip("%")) == pytest.approx(50, abs=5)


def test_an_arm_for_which_too_few_slices_pass_is_left_out_with_a_note(toy, noise_sampler):
    filters = FilterConfig(use=("discriminator",))
    config = QUICK.model_copy(update={"filters": filters, "steps": 2})
    generator = Mixed(noise_sampler, noise_sampler)
    predictions = measure_utility(toy, {"synthetic": generator.sample}, config, realness=generator.realness)
    assert f"{BASE}+discriminator" not in predictions.arms
    assert "left out" in predictions.notes[0]
    assert BASE in predictions.arms


def test_a_generator_without_discriminator_cannot_be_filtered_by_it(toy, fresh_sampler):
    with pytest.raises(LungsynthError, match="without one"):
        measure_utility(toy, {"synthetic": fresh_sampler}, QUICK, realness=lambda images, labels: None)


def test_what_looks_more_real_than_seven_in_ten_unseen_slices_passes():
    held_out = np.arange(100.0)[::-1]
    assert real_enough(np.array([-5, 69.5, 70.5, 200]), held_out, 0.7).tolist() == [False, True, True, True]
    assert real_enough(held_out, held_out, 0.7).mean() == pytest.approx(0.3)


def test_filters_are_for_classification():
    with pytest.raises(ValidationError, match=r"leave filters\.use out"):
        UtilityConfig(task="segmentation", filters=FilterConfig(use=("novelty",)))
