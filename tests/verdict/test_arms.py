"""What the scorecard says of every arm."""

import numpy as np
import pytest
from planted_scores import SYNTHETIC, decided, plant
from sklearn.metrics import roc_auc_score

from lungsynth.dataset.vocabulary import CLASSES
from lungsynth.evaluation.utility.predictions import Predictions


def test_the_scorecard_holds_fidelity_privacy_and_every_arm():
    card, _ = decided(plant({"real": 1.0, "real+classical": 1.2, SYNTHETIC: 1.3}, 40))
    assert [metric.name for metric in card.metrics[:3]] == ["kid_lung", "privacy/breach", "privacy/near"]
    for name in ("auroc", "average_precision", "sensitivity", "specificity"):
        for arm in ("real", "real+classical", SYNTHETIC):
            metric = card[f"{name}/{arm}"]
            assert metric.low <= metric.value <= metric.high
            assert metric.n == {"slices": 160, "patients": 40, "seeds": 3}


def test_a_patient_is_scored_by_the_mean_of_its_slices():
    scores = plant({"real": 1.0, SYNTHETIC: 2.0}, 40)
    card, _ = decided(scores)
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
    card, _ = decided(Predictions(mixed, CLASSES))
    names = {metric.name for metric in card.metrics}
    assert {"auroc/real", f"auroc/{SYNTHETIC}"} <= names
    assert not any(name.startswith("auroc_patient") for name in names)


def test_one_patient_of_each_class_gives_no_interval():
    card, _ = decided(plant({"real": 1.0, "real+classical": 1.2, SYNTHETIC: 2.0}, 2))
    assert (card["auroc/real"].low, card["auroc/real"].high) == (None, None)
