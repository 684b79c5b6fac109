"""The names of metrics, which users know from files, MLflow and the report, and the records as JSON."""

import json

import pytest

from lungsynth.evaluation.quantities import (
    CHOSEN_ARM,
    COMPARED,
    FID,
    FID_RATIO,
    GAIN,
    KID,
    MS_SSIM,
    NEAR,
    POWER,
    TEST_PATIENTS,
    UNJUDGED_CHECKS,
    UNJUDGED_GROUP,
    Quantity,
)
from lungsynth.evaluation.scorecard import Measurand, Metric, Scorecard
from lungsynth.verdict.record import Gain, Verdict

ARM = "real+classical+synthetic@1"


@pytest.mark.parametrize(
    ("quantity", "fields", "name"),
    [
        (FID, {"extractor": "lung"}, "fid_lung"),
        (KID, {"extractor": "inception", "class_name": "cancer", "floor": True}, "kid_inception/cancer/floor"),
        (FID, {"extractor": "lung", "normalisation": "min-max", "floor": True}, "fid_lung@min-max/floor"),
        (FID_RATIO, {"extractor": "lung", "class_name": "non-cancer"}, "fid_ratio_lung/non-cancer"),
        (MS_SSIM, {"class_name": "cancer"}, "ms_ssim/cancer"),
        (NEAR, {}, "privacy/near"),
        (UNJUDGED_CHECKS, {}, "privacy/unjudged"),
        (COMPARED["AUROC"], {"arm": ARM}, f"auroc/{ARM}"),
        (TEST_PATIENTS, {"class_name": "cancer"}, "test_patients/cancer"),
        (CHOSEN_ARM, {"arm": ARM}, f"chosen/{ARM}"),
        (GAIN["Dice"], {"rival": "baseline"}, "gain/baseline"),
        (GAIN["AUROC"], {"rival": "champion", "statistic": "smallest_detectable"}, "gain/champion/smallest_detectable"),
        (GAIN["AUROC"], {"rival": "baseline", "subgroup": "sex F"}, "gain/baseline/sex F"),
        (UNJUDGED_GROUP, {"subgroup": "age 70 and over"}, "unjudged/age 70 and over"),
        (POWER, {"patients": 384}, "power/384"),
    ],
)
def test_names_are_those_that_users_know(quantity: Quantity, fields: dict[str, object], name: str):
    assert Measurand(quantity=quantity, **fields).name == name


def metric(quantity: Quantity, value: float = 0.5, **fields: object) -> Metric:
    return Metric(quantity=quantity, value=value, computed_with="test", **fields)


def test_a_scorecard_in_a_file_has_names_and_values_where_they_always_were_and_reads_back():
    card = Scorecard(metrics=(metric(KID, extractor="lung"), metric(KID, 0.1, extractor="lung", floor=True)))
    written = json.loads(card.model_dump_json())["metrics"]
    assert [(one["name"], one["value"]) for one in written] == [("kid_lung", 0.5), ("kid_lung/floor", 0.1)]
    assert (written[0]["low"], "arm" in written[0]) == (None, False)
    assert written[0]["quantity"] == {"name": "kid", "topic": "fidelity", "unit": "distance"}
    assert Scorecard.model_validate_json(card.model_dump_json()) == card
    assert card.floor_of(card["kid_lung"]) == card["kid_lung/floor"]
    assert card.find(Measurand(quantity=FID, extractor="lung")) is None


def test_a_verdict_in_a_file_lists_all_its_numbers_as_it_always_did_and_reads_back():
    gain = metric(GAIN["AUROC"], rival="baseline")
    verdict = Verdict(
        outcome="promote",
        reason="It was.",
        rule="gain",
        measure="AUROC",
        candidate_arm=ARM,
        baseline_arm="real",
        test_patients=(metric(TEST_PATIENTS, class_name="cancer"),),
        score=metric(COMPARED["AUROC"], arm="chosen on val"),
        chosen=(metric(CHOSEN_ARM, arm=ARM),),
        gains=(Gain(gain=gain, delong=gain.model_copy(update={"statistic": "delong"})),),
        unjudged=(metric(UNJUDGED_GROUP, subgroup="sex F"),),
        power=(metric(POWER, patients=24),),
        protocol_sha256="p",
    )
    names = ["test_patients/cancer", "auroc/chosen on val", f"chosen/{ARM}", "gain/baseline", "gain/baseline/delong"]
    names += ["unjudged/sex F", "power/24"]
    assert [one["name"] for one in json.loads(verdict.model_dump_json())["numbers"]] == names
    assert Verdict.model_validate_json(verdict.model_dump_json()) == verdict
