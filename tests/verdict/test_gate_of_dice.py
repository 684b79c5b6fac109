"""The gate where arms are compared by Dice: the same rules, on the mean over patients of their mean Dice."""

import re

import numpy as np
import pandas as pd
import pytest

from lungsynth.evaluation.quantities import BREACH
from lungsynth.evaluation.scorecard import Metric, Scorecard
from lungsynth.evaluation.utility.predictions import Predictions
from lungsynth.verdict.contest import decide
from lungsynth.verdict.gate import GateConfig

SAFE = Scorecard(metrics=(Metric(quantity=BREACH, value=0, computed_with="planted"),))
NOTHING = Scorecard(metrics=())
CONFIG = GateConfig(resamples=500)
SYNTHETIC, CHAMPION = "real+classical+synthetic@1", "real+classical+champion@1"


def plant(dice: dict[str, float], patients: int, seed_sd: float = 0.002, notes: tuple[str, ...] = ()) -> Predictions:
    """Dice of arms with these means; a patient has 1 to 4 slices, and those of one are alike in every arm.

    `seed_sd` is that of an arm's models, whose better ones have other seeds in the candidate than elsewhere.
    """
    rng = np.random.default_rng(0)
    parts = []
    for split in ("val", "test"):
        owner = np.repeat(np.arange(patients), np.arange(patients) % 4 + 1)
        shared = 0.05 * rng.normal(size=patients)[owner] + 0.02 * rng.normal(size=owner.size)
        for arm, mean in dice.items():
            role = "champion" if "champion" in arm else "candidate" if "synthetic" in arm else "baseline"
            for seed in range(3):
                luck = seed_sd * (seed - 1) * (1 if role == "candidate" else -1)
                score = mean + shared + luck + 0.01 * rng.normal(size=owner.size)
                facts = {"arm": arm, "role": role, "seed": seed, "split": split, "row": np.arange(owner.size)}
                facts |= {"patient": [f"p{code}" for code in owner], "label": owner % 3, "score": score.clip(0, 1)}
                parts.append(pd.DataFrame(facts))
    return Predictions(pd.concat(parts), ("a", "b", "c"), "Dice", notes)


def judge(dice, patients, **more):
    return decide(
        plant(dice, patients, **more), NOTHING, SAFE, groups=pd.DataFrame(), config=CONFIG, protocol_sha256=""
    )


BASE = {"real": 0.78, "real+classical": 0.80}


@pytest.mark.parametrize(
    ("dice", "patients", "more", "outcome", "rule"),
    [
        (BASE | {SYNTHETIC: 0.84}, 60, {}, "promote", "gain"),
        (BASE | {SYNTHETIC: 0.80}, 60, {}, "reject", "worthwhile gain excluded"),
        (BASE | {SYNTHETIC: 0.80}, 12, {"seed_sd": 0.1}, "underpowered", "smallest detectable effect"),
        (BASE | {SYNTHETIC: 0.95}, 9, {}, "underpowered", "test patients"),
        (BASE | {SYNTHETIC: 0.84, CHAMPION: 0.88}, 60, {}, "reject", "worthwhile gain excluded"),
        (BASE | {SYNTHETIC: 0.84, CHAMPION: 0.81}, 60, {}, "promote", "gain"),
    ],
)
def test_verdicts(dice, patients, more, outcome, rule):
    found = judge(dice, patients, **more)[1]
    assert (found.outcome, found.rule) == (outcome, rule), found.reason
    assert (found.candidate_arm, found.baseline_arm) == (SYNTHETIC, "real+classical")
    assert "AUROC" not in found.reason + "".join(number.name + number.computed_with for number in found.numbers)
    assert "DeLong" not in "".join(number.computed_with for number in found.numbers)


def test_sentences_speak_of_dice_and_of_patients():
    assert judge(BASE | {SYNTHETIC: 0.84}, 60)[1].reason.startswith("Synthetic slices changed test Dice by +0.04")
    few = judge(BASE | {SYNTHETIC: 0.84}, 9)[1]
    assert few.reason == "The test split has 9 patients; 10 are needed for an interval to mean anything."
    assert [(number.name, number.value) for number in few.numbers[:1]] == [("test_patients/all", 9)]
    assert {number.name for number in few.numbers[1:]} == {"dice/chosen on val", f"chosen/{SYNTHETIC}"}
    coarse = judge(BASE | {SYNTHETIC: 0.80}, 12, seed_sd=0.1)[1]
    assert coarse.reason.endswith("train more segmenters in each arm.")


def test_the_gain_is_the_mean_over_patients_of_their_means():
    predictions = plant(BASE | {SYNTHETIC: 0.84}, 40)
    card, verdict = decide(predictions, NOTHING, SAFE, groups=pd.DataFrame(), config=CONFIG, protocol_sha256="")
    test = predictions.table[predictions.table["split"] == "test"]
    means = test.groupby(["arm", "patient"])["score"].mean().groupby("arm").mean()
    gain = {number.name: number for number in verdict.numbers}["gain/baseline"]
    assert gain.value == pytest.approx(means[SYNTHETIC] - means["real+classical"])
    assert gain.low < gain.value < gain.high
    metric = card[f"dice/{SYNTHETIC}"]
    assert metric.value == pytest.approx(means[SYNTHETIC])
    assert metric.low < metric.value < metric.high
    assert metric.n == {"slices": 100, "patients": 40, "seeds": 3}
    assert verdict.measure == "Dice"
    assert not [metric.name for metric in card.metrics if re.match("auroc|brier|sensitivity", metric.name)]


def test_intervals_are_wide_enough_for_the_patients_that_might_have_come():
    true, covered = 0.02, 0
    for number in range(60):
        rng = np.random.default_rng(number)
        predictions = plant(BASE | {SYNTHETIC: 0.82}, 30)
        table = predictions.table.copy()
        own = pd.Series(0.04 * rng.normal(size=30), [f"p{code}" for code in range(30)])
        table.loc[table["arm"] == SYNTHETIC, "score"] += table["patient"].map(own)
        found = decide(
            Predictions(table, predictions.classes, "Dice"),
            NOTHING,
            SAFE,
            groups=pd.DataFrame(),
            config=CONFIG,
            protocol_sha256="",
        )[1]
        gain = {metric.name: metric for metric in found.numbers}["gain/baseline"]
        covered += gain.low < true < gain.high
    assert 53 <= covered <= 60


def test_what_harms_a_subgroup_is_blocked():
    predictions = plant(BASE | {SYNTHETIC: 0.90}, 60)
    women = [f"p{code}" for code in range(15)]
    table = predictions.table.copy()
    table.loc[(table["arm"] == SYNTHETIC) & table["patient"].isin(women), "score"] -= 0.2
    groups = pd.DataFrame({"sex": pd.Series("F", women)})
    found = decide(
        Predictions(table, predictions.classes, "Dice"), NOTHING, SAFE, groups=groups, config=CONFIG, protocol_sha256=""
    )[1]
    assert (found.outcome, found.rule) == ("blocked", "subgroup")
    assert "changed the test Dice of patients with sex F by -0.1" in found.reason


def test_a_group_too_small_to_be_judged_is_among_the_numbers():
    groups = pd.DataFrame({"sex": pd.Series("F", ["p1", "p2", "p3"])})
    found = decide(
        plant(BASE | {SYNTHETIC: 0.84}, 60), NOTHING, SAFE, groups=groups, config=CONFIG, protocol_sha256=""
    )[1]
    small = {number.name: number for number in found.numbers}["unjudged/sex F"]
    assert (small.value, "3 patients; 10 are needed" in small.computed_with) == (3, True)


def test_notes_of_the_predictions_reach_the_scorecard():
    card = judge(BASE | {SYNTHETIC: 0.84}, 60, notes=("The champion draws no masks.",))[0]
    assert card.notes == ("The champion draws no masks.",)
