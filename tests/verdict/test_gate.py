import numpy as np
import pandas as pd
import pytest
from experiments import experiment
from pydantic import ValidationError
from sklearn.metrics import roc_auc_score

from lungsynth.dataset.vocabulary import CLASSES
from lungsynth.evaluation.quantities import BREACH, KID, MODES, MS_SSIM, NEAR, UNJUDGED_CHECKS
from lungsynth.evaluation.scorecard import Metric, Scorecard
from lungsynth.evaluation.utility.predictions import Predictions
from lungsynth.verdict.contest import decide
from lungsynth.verdict.gate import GateConfig

FIDELITY = Scorecard(metrics=(Metric(quantity=KID, extractor="lung", value=0.1, computed_with="test"),))
NO_GROUPS = pd.DataFrame()
CONFIG = GateConfig(resamples=500)
SYNTHETIC, CHAMPION = "real+classical+synthetic@1", "real+classical+champion@1"


def plant(
    separation: dict[str, float],
    patients: int,
    seeds: int = 3,
    spread: float = 0.3,
    classes: tuple[str, str] = CLASSES,
) -> Predictions:
    """Scores of arms whose cancer slices stand so far above the others; arms share most of each slice's error."""
    rng = np.random.default_rng(0)
    parts = []
    for split in ("val", "test"):
        owner = np.repeat(np.arange(patients), 4)
        label = owner % 2
        shared = rng.normal(size=patients)[owner] + rng.normal(size=owner.size)
        for arm, distance in separation.items():
            for seed in range(seeds):
                score = distance * label + shared + spread * rng.normal(size=owner.size)
                role = "champion" if "champion" in arm else "candidate" if "synthetic" in arm else "baseline"
                part = {"arm": arm, "role": role, "seed": seed, "split": split, "row": np.arange(owner.size)}
                part |= {"label": label}
                parts.append(pd.DataFrame({**part, "patient": [f"p{code}" for code in owner], "score": score}))
    return Predictions(pd.concat(parts), classes)


def privacy(breach: bool) -> Scorecard:
    near = Metric(quantity=NEAR, value=0.4, low=0.3, high=0.5, computed_with="test")
    what = "near 0.4 (0.3 to 0.5), allowed 0.1"
    return Scorecard(metrics=(Metric(quantity=BREACH, value=float(breach), computed_with=what), near))


def verdict(separation, patients, breach=False, config=CONFIG, spread=0.3):
    return decide(
        plant(separation, patients, spread=spread),
        FIDELITY,
        privacy(breach),
        groups=NO_GROUPS,
        config=config,
        protocol_sha256="protocol",
    )[1]


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
    card, found = decide(
        plant(arms, 200, seeds), FIDELITY, privacy(False), groups=NO_GROUPS, config=CONFIG, protocol_sha256="protocol"
    )
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
    found = decide(scores, FIDELITY, privacy(False), groups=NO_GROUPS, config=CONFIG, protocol_sha256="protocol")[1]
    assert (found.outcome, found.rule) == ("underpowered", "smallest detectable effect")
    assert found.reason.endswith(f"{remedy}.")


def test_few_patients_are_underpowered_whatever_the_gain():
    found = verdict({"real": 0.0, "real+classical": 0.0, SYNTHETIC: 9.0}, 18)
    assert (found.outcome, found.rule) == ("underpowered", "test patients")
    assert "9 with non-cancer slices and 9 with cancer slices" in found.reason


def test_classes_have_the_names_of_the_dataset():
    arms = plant({"real": 0.0, "real+classical": 0.0, SYNTHETIC: 9.0}, 18, classes=("NORMAL", "PNEUMONIA"))
    found = decide(arms, FIDELITY, privacy(False), groups=NO_GROUPS, config=CONFIG, protocol_sha256="protocol")[1]
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
    found = decide(arms, FIDELITY, card, groups=NO_GROUPS, config=CONFIG, protocol_sha256="")[1]
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
    found = decide(
        arms,
        Scorecard(metrics=(*modes, *likeness)),
        privacy(False),
        groups=NO_GROUPS,
        config=CONFIG,
        protocol_sha256="protocol",
    )[1]
    assert found.outcome == outcome
    assert ("collapsed: its slices hit 10%" in found.reason) is (outcome == "reject")


@pytest.mark.parametrize(("loss", "outcome"), [(2.2, "blocked"), (0.0, "promote")])
def test_what_harms_a_subgroup_is_blocked(loss, outcome):
    scores = plant({"real": 1.0, "real+classical": 1.2, SYNTHETIC: 2.8}, 300)
    keys = scores.patients("test")
    sex = pd.Series(np.where(np.char.str_len(keys) < 3, "F", "M"), keys)  # p0 to p9, and all others
    sex[np.isin(keys, [f"p{code}" for code in range(10, 40)])] = "F"
    table = scores.table.copy()
    women = table["patient"].map(sex).eq("F") & table["arm"].eq(SYNTHETIC)
    table.loc[women, "score"] -= loss * table.loc[women, "label"]
    groups = pd.DataFrame({"maker": pd.Series(pd.NA, keys, dtype="string"), "sex": sex})
    found = decide(
        Predictions(table, CLASSES), FIDELITY, privacy(False), groups=groups, config=CONFIG, protocol_sha256=""
    )[1]
    numbers = {metric.name: metric for metric in found.numbers}
    assert numbers["gain/baseline"].low > 0
    assert numbers["gain/baseline/sex M"].value > 0
    assert (found.outcome, "patients with sex F" in found.reason) == (outcome, outcome == "blocked")


def test_the_gain_is_that_of_what_each_seed_chose_and_not_of_the_arm_that_is_named():
    other = "real+classical+synthetic@2"
    table = plant({"real": 1.0, SYNTHETIC: 1.4, other: 1.4}, 100, seeds=3).table.copy()
    on_val = (table["split"] == "val") & (table["label"] == 1)
    for arm, seed in ((SYNTHETIC, 0), (other, 1)):  # of which the other seeds see nothing
        table.loc[on_val & (table["arm"] == arm) & (table["seed"] == seed), "score"] += 3
    table.loc[(table["split"] == "test") & (table["label"] == 1) & (table["arm"] == SYNTHETIC), "score"] += 1
    card, found = decide(
        Predictions(table, CLASSES), FIDELITY, privacy(False), groups=NO_GROUPS, config=CONFIG, protocol_sha256=""
    )
    numbers = {metric.name: metric for metric in found.numbers}
    counts = {metric.arm: metric.value for metric in found.chosen}
    assert set(counts) == {SYNTHETIC, other}
    assert sum(counts.values()) == 3
    own, gain = numbers["auroc/chosen on val"], numbers["gain/baseline"]
    assert own.low < own.value < own.high
    assert own.value - card["auroc/real"].value == pytest.approx(gain.value)
    assert card[f"auroc/{found.candidate_arm}"].value - card["auroc/real"].value != pytest.approx(gain.value, abs=0.01)


def test_groups_too_small_to_be_judged_are_among_the_numbers():
    scores = plant({"real": 1.0, SYNTHETIC: 2.0}, 60)
    keys = scores.patients("test")  # of whom every second one has cancer
    sex = pd.Series(np.where(np.isin(keys, [f"p{code}" for code in range(7)]), "F", "M"), keys)
    found = decide(scores, FIDELITY, privacy(False), groups=sex.to_frame("sex"), config=CONFIG, protocol_sha256="")[1]
    numbers = {metric.name: metric for metric in found.numbers}
    assert ("gain/baseline/sex M" in numbers, "gain/baseline/sex F" in numbers) == (True, False)
    assert [metric.name for metric in found.unjudged] == ["unjudged/sex F"]
    small = numbers["unjudged/sex F"]
    assert small.value == 3
    assert "4 with non-cancer slices and 3 with cancer slices; 10 of each are" in small.computed_with


def test_power_counts_a_patient_with_slices_of_both_classes_once():
    table = plant({"real": 1.0, SYNTHETIC: 2.0}, 30).table
    mixed = Predictions(table.assign(label=table["row"] % 2), CLASSES)
    found = decide(mixed, FIDELITY, privacy(False), groups=NO_GROUPS, config=CONFIG, protocol_sha256="")[1]
    assert [metric.name for metric in found.power][:2] == ["power/30", "power/60"]


def test_a_test_that_sees_no_gain_worth_having_above_the_least_is_underpowered():
    scores = plant({"real": 1.2, SYNTHETIC: 1.32}, 100)
    numbers = {
        m.name: m
        for m in decide(scores, FIDELITY, privacy(False), groups=NO_GROUPS, config=CONFIG, protocol_sha256="")[
            1
        ].numbers
    }
    sees = numbers["gain/baseline/smallest_detectable"].value
    config = CONFIG.model_copy(update={"min_gain": sees / 2, "worthwhile_gain": 1.05 * sees})
    assert numbers["gain/baseline"].low < config.min_gain
    assert numbers["gain/baseline"].high > config.worthwhile_gain
    found = decide(scores, FIDELITY, privacy(False), groups=NO_GROUPS, config=config, protocol_sha256="")[1]
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
    found = decide(
        Predictions(table, CLASSES), FIDELITY, privacy(False), groups=NO_GROUPS, config=CONFIG, protocol_sha256=""
    )[1]
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
    found = decide(
        Predictions(table, CLASSES), FIDELITY, privacy(False), groups=NO_GROUPS, config=CONFIG, protocol_sha256=""
    )[1]
    assert {metric.name: metric.value for metric in found.numbers}["gain/baseline"] == pytest.approx(0, abs=0.02)


def test_the_scorecard_holds_fidelity_privacy_and_every_arm():
    card, _ = decide(
        plant({"real": 1.0, "real+classical": 1.2, SYNTHETIC: 1.3}, 40),
        FIDELITY,
        privacy(False),
        groups=NO_GROUPS,
        config=CONFIG,
        protocol_sha256="",
    )
    assert [metric.name for metric in card.metrics[:3]] == ["kid_lung", "privacy/breach", "privacy/near"]
    for name in ("auroc", "average_precision", "sensitivity", "specificity"):
        for arm in ("real", "real+classical", SYNTHETIC):
            metric = card[f"{name}/{arm}"]
            assert metric.low <= metric.value <= metric.high
            assert metric.n == {"slices": 160, "patients": 40, "seeds": 3}


def test_a_patient_is_scored_by_the_mean_of_its_slices():
    scores = plant({"real": 1.0, SYNTHETIC: 2.0}, 40)
    card, _ = decide(scores, FIDELITY, privacy(False), groups=NO_GROUPS, config=CONFIG, protocol_sha256="")
    test = scores.table[scores.table["split"] == "test"]
    for arm in ("real", SYNTHETIC):
        by_seed = []
        for _, rows in test[test["arm"] == arm].groupby("seed"):
            patients = rows.groupby("patient").agg(score=("score", "mean"), label=("label", "max"))
            by_seed.append(roc_auc_score(patients["label"], patients["score"]))
        metric = card[f"auroc_patient/{arm}"]
        assert metric.value == pytest.approx(np.mean(by_seed))
        assert metric.low < metric.value <= metric.high
        assert metric.value > card[f"auroc/{arm}"].value  # the mean of several slices errs less


def test_where_every_patient_has_a_positive_slice_none_is_told_from_another():
    table = plant({"real": 1.0, SYNTHETIC: 2.0}, 30).table
    mixed = table.assign(label=table["row"] % 2)
    card, _ = decide(
        Predictions(mixed, CLASSES), FIDELITY, privacy(False), groups=NO_GROUPS, config=CONFIG, protocol_sha256=""
    )
    names = {metric.name for metric in card.metrics}
    assert {"auroc/real", f"auroc/{SYNTHETIC}"} <= names
    assert not any(name.startswith("auroc_patient") for name in names)


def test_a_generator_that_harms_those_with_small_lesions_is_blocked():
    scores = plant({"real": 1.0, "real+classical": 1.2, SYNTHETIC: 2.8}, 300)
    ill = scores.table.loc[scores.table["label"] == 1, "patient"].unique()
    size = pd.Series("15 mm and over", ill, dtype="string")
    size[ill[:30]] = "under 6 mm"
    table = scores.table.copy()
    harmed = table["patient"].isin(ill[:30]) & table["arm"].eq(SYNTHETIC)
    table.loc[harmed, "score"] -= 2.2
    found = decide(
        Predictions(table, CLASSES),
        FIDELITY,
        privacy(False),
        groups=size.to_frame("lesion"),
        config=CONFIG,
        protocol_sha256="",
    )[1]
    numbers = {metric.name: metric for metric in found.numbers}
    assert numbers["gain/baseline/lesion 15 mm and over"].low > 0
    assert (found.outcome, found.rule) == ("blocked", "subgroup")
    assert "patients with lesion under 6 mm" in found.reason


def test_one_patient_of_each_class_gives_no_interval():
    card, _ = decide(
        plant({"real": 1.0, "real+classical": 1.2, SYNTHETIC: 2.0}, 2),
        FIDELITY,
        privacy(False),
        groups=NO_GROUPS,
        config=CONFIG,
        protocol_sha256="p",
    )
    assert (card["auroc/real"].low, card["auroc/real"].high) == (None, None)
