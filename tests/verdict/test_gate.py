"""The rules of the gate, on scores of arms whose separation is planted."""

import numpy as np
import pytest
from experiments import experiment
from planted_scores import CHAMPION, CONFIG, SYNTHETIC, decided, plant, privacy
from pydantic import ValidationError

from lungsynth.dataset.vocabulary import CLASSES
from lungsynth.evaluation.quantities import MODES, MS_SSIM, UNJUDGED_CHECKS
from lungsynth.evaluation.scorecard import Metric, Scorecard
from lungsynth.evaluation.utility.predictions import Predictions
from lungsynth.verdict.gate import GateConfig


def verdict(separation, patients, breach=False, config=CONFIG, spread=0.3):
    return decided(plant(separation, patients, spread=spread), audit=privacy(breach), config=config)[1]


def test_a_clear_gain_is_promoted():
    found = verdict({"real": 1.0, "real+classical": 1.2, SYNTHETIC: 2.0}, 200)
    assert (found.outcome, found.rule) == ("promote", "gain")
    assert (found.candidate_arm, found.baseline_arm) == (SYNTHETIC, "real+classical")
    assert "against real+classical" in found.reason
    numbers = {metric.name: metric for metric in found.numbers}
    gain, check = numbers["gain/baseline"], numbers["gain/baseline/delong"]
    assert 0 < gain.low < gain.value < gain.high
    assert check.value == pytest.approx(gain.value)
    assert found.protocol_sha256 == "protocol"


@pytest.mark.parametrize("seeds", [1, 2])
def test_a_gain_of_one_or_two_training_seeds_is_luck(seeds):
    arms = {"real": 1.0, "real+classical": 1.2, SYNTHETIC: 2.0}
    card, found = decided(plant(arms, 200, seeds))
    assert (found.outcome, found.rule) == ("underpowered", "training seeds")
    assert found.reason.startswith(f"Each arm has {seeds} training seed")
    assert "raise utility.seeds" in found.reason
    numbers = {metric.name: metric for metric in found.numbers}
    assert ("gain/baseline/seed_sd" in numbers) is (seeds > 1)  # of one seed there is none
    assert not found.power
    for metric in (numbers["gain/baseline"], card["auroc/real"]):
        assert ("patients alone" in metric.computed_with) is (seeds == 1)


def test_the_same_is_rejected_where_a_worthwhile_gain_would_show():
    found = verdict({"real": 1.0, "real+classical": 1.2, SYNTHETIC: 1.2}, 600)
    assert (found.outcome, found.rule) == ("reject", "worthwhile gain excluded")


def test_a_harm_is_rejected():
    assert verdict({"real": 1.0, "real+classical": 1.2, SYNTHETIC: 0.5}, 200).outcome == "reject"


@pytest.mark.parametrize(("seed_sd", "remedy"), [(0.5, "train more classifiers in each arm"), (0, "add test patients")])
def test_the_same_is_underpowered_where_the_test_is_coarse(seed_sd, remedy):
    arms = {"real": 0.7, "real+classical": 0.75, SYNTHETIC: 0.76}
    scores = experiment(np.random.default_rng(0), arms, {"val": 20, "test": 40}, seed_sd)
    found = decided(scores)[1]
    assert (found.outcome, found.rule) == ("underpowered", "smallest detectable effect")
    assert found.reason.endswith(f"{remedy}.")


def test_few_patients_are_underpowered_whatever_the_gain():
    found = verdict({"real": 0.0, "real+classical": 0.0, SYNTHETIC: 9.0}, 18)
    assert (found.outcome, found.rule) == ("underpowered", "test patients")
    assert "9 with non-cancer slices and 9 with cancer slices" in found.reason


def test_classes_have_the_names_of_the_dataset():
    arms = plant({"real": 0.0, "real+classical": 0.0, SYNTHETIC: 9.0}, 18, classes=("NORMAL", "PNEUMONIA"))
    found = decided(arms)[1]
    assert "9 with NORMAL slices and 9 with PNEUMONIA slices" in found.reason
    assert [metric.name for metric in found.numbers[:2]] == ["test_patients/NORMAL", "test_patients/PNEUMONIA"]


def test_a_breach_blocks_whatever_the_gain():
    found = verdict({"real": 1.0, "real+classical": 1.2, SYNTHETIC: 2.0}, 200, breach=True)
    assert (found.outcome, found.rule) == ("blocked", "privacy")
    assert found.reason == "Synthetic slices give training patients away: near 0.4 (0.3 to 0.5), allowed 0.1."


@pytest.mark.parametrize(("after", "outcome"), [(2.0, "underpowered"), (0.5, "reject")])
def test_what_would_be_promoted_is_not_where_privacy_could_not_be_judged(after, outcome):
    why = "membership needs 20 held-out patients, there are 8"
    card = privacy(False) + Scorecard(metrics=(Metric(quantity=UNJUDGED_CHECKS, value=1, computed_with=why),))
    arms = plant({"real": 1.0, "real+classical": 1.2, SYNTHETIC: after}, 200)
    found = decided(arms, audit=card)[1]
    assert found.outcome == outcome
    assert (found.rule == "privacy patients", found.reason.endswith(f": {why}.")) == (after > 1, after > 1)


@pytest.mark.parametrize(
    ("hit", "alike", "outcome"),
    [(0.1, 0.9, "reject"), (0.8, 0.9, "promote"), (0.1, 0.01, "promote")],
    ids=["collapsed", "alike, but of all modes", "noise"],
)
def test_a_collapse_is_named_whatever_the_gain(hit, alike, outcome):
    likeness = [
        Metric(
            quantity=MS_SSIM,
            class_name="cancer",
            floor=floor,
            value=value,
            low=value - 0.01,
            high=value + 0.01,
            computed_with="test",
        )
        for floor, value in ((False, alike), (True, 0.3))
    ]
    modes = [
        Metric(quantity=MODES, extractor="lung", value=hit, low=hit - 0.1, high=hit + 0.1, computed_with="test"),
        Metric(quantity=MODES, extractor="lung", floor=True, value=0.9, computed_with="test"),
    ]
    arms = plant({"real": 1.0, "real+classical": 1.2, SYNTHETIC: 2.0}, 200)
    found = decided(arms, fidelity=Scorecard(metrics=(*modes, *likeness)))[1]
    assert found.outcome == outcome
    assert ("collapsed: its slices hit 10%" in found.reason) is (outcome == "reject")


def test_the_gain_is_that_of_what_each_seed_chose_and_not_of_the_arm_that_is_named():
    other = "real+classical+synthetic@2"
    table = plant({"real": 1.0, SYNTHETIC: 1.4, other: 1.4}, 100, seeds=3).table.copy()
    on_val = (table["split"] == "val") & (table["label"] == 1)
    for arm, seed in ((SYNTHETIC, 0), (other, 1)):  # of which the other seeds see nothing
        table.loc[on_val & (table["arm"] == arm) & (table["seed"] == seed), "score"] += 3
    table.loc[(table["split"] == "test") & (table["label"] == 1) & (table["arm"] == SYNTHETIC), "score"] += 1
    card, found = decided(Predictions(table, CLASSES))
    numbers = {metric.name: metric for metric in found.numbers}
    counts = {metric.arm: metric.value for metric in found.chosen}
    assert set(counts) == {SYNTHETIC, other}
    assert sum(counts.values()) == 3
    own, gain = numbers["auroc/chosen on val"], numbers["gain/baseline"]
    assert own.low < own.value < own.high
    assert own.value - card["auroc/real"].value == pytest.approx(gain.value)
    assert card[f"auroc/{found.candidate_arm}"].value - card["auroc/real"].value != pytest.approx(gain.value, abs=0.01)


def test_power_counts_a_patient_with_slices_of_both_classes_once():
    table = plant({"real": 1.0, SYNTHETIC: 2.0}, 30).table
    mixed = Predictions(table.assign(label=table["row"] % 2), CLASSES)
    found = decided(mixed)[1]
    assert [metric.name for metric in found.power][:2] == ["power/30", "power/60"]


def test_a_test_that_sees_no_gain_worth_having_above_the_least_is_underpowered():
    scores = plant({"real": 1.2, SYNTHETIC: 1.32}, 100)
    numbers = {m.name: m for m in decided(scores)[1].numbers}
    sees = numbers["gain/baseline/smallest_detectable"].value
    config = CONFIG.model_copy(update={"min_gain": sees / 2, "worthwhile_gain": 1.05 * sees})
    assert numbers["gain/baseline"].low < config.min_gain
    assert numbers["gain/baseline"].high > config.worthwhile_gain
    found = decided(scores, config=config)[1]
    assert (found.outcome, found.rule) == ("underpowered", "smallest detectable effect")
    assert f"gains of {1.5 * sees:.3f} or more" in found.reason


@pytest.mark.parametrize("least", [0.02, 0.03])
def test_a_gain_worth_having_has_to_be_above_the_least(least):
    with pytest.raises(ValidationError, match=rf"worthwhile_gain 0.02 has to be above min_gain {least}"):
        GateConfig(min_gain=least)


def test_delong_says_that_it_knows_nothing_of_other_seeds():
    found = verdict({"real": 1.0, SYNTHETIC: 2.0}, 40)
    check = found.gains[0].delong
    assert check.computed_with.endswith("for these classifiers alone")


def test_a_better_champion_stays():
    found = verdict({"real": 1.0, "real+classical": 1.2, SYNTHETIC: 2.0, CHAMPION: 2.6}, 200)
    assert found.outcome == "reject"
    assert CHAMPION in found.reason


def test_a_worse_champion_is_replaced():
    found = verdict({"real": 1.0, "real+classical": 1.2, SYNTHETIC: 2.0, CHAMPION: 1.3}, 200)
    assert found.outcome == "promote"
    assert {"gain/baseline", "gain/champion"} <= {metric.name for metric in found.numbers}


def test_the_minimum_gain_is_asked_for():
    arms = {"real": 1.0, "real+classical": 1.2, SYNTHETIC: 2.0}
    assert verdict(arms, 200, config=GateConfig(resamples=500, min_gain=0.3, worthwhile_gain=0.4)).outcome == "reject"


def test_val_chooses_the_candidate_and_test_the_baseline():
    scores = plant({"real": 1.5, "real+classical": 1.0, SYNTHETIC: 1.0, "real+classical+synthetic@2": 2.0}, 100)
    table = scores.table.copy()
    test = table["split"] == "test"
    table.loc[test, "score"] = -table.loc[test, "score"]  # on test all is reversed
    found = decided(Predictions(table, CLASSES))[1]
    assert (found.candidate_arm, found.baseline_arm) == ("real+classical+synthetic@2", "real+classical")


def test_every_arm_without_synthetic_slices_has_to_be_beaten():
    arms = {"real": 1.0, "real+classical": 2.0, "real+classical+mix": 1.2, SYNTHETIC: 2.0}
    found = verdict(arms, 200)
    assert found.outcome != "promote"
    numbers = {metric.name: metric.value for metric in found.numbers}
    assert found.baseline_arm == "real+classical"
    assert numbers["gain/baseline"] < numbers["gain/real+classical+mix"] < numbers["gain/real"]


def test_a_lucky_classifier_does_not_vote_for_its_own_arm():
    arms = {"real": 1.0, SYNTHETIC: 1.0, "real+classical+synthetic@2": 1.0}
    table = plant(arms, 200, seeds=3).table.copy()
    lucky = (table["arm"] == SYNTHETIC) & (table["seed"] == 0)
    table.loc[lucky, "score"] += 9 * table.loc[lucky, "label"]
    table.loc[(table["arm"] == SYNTHETIC) & (table["seed"] != 0), "score"] *= -1
    found = decided(Predictions(table, CLASSES))[1]
    assert {metric.name: metric.value for metric in found.numbers}["gain/baseline"] == pytest.approx(0, abs=0.02)
