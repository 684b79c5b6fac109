"""What a made-up run hands on to its report."""

import numpy as np
import pandas as pd

from lungsynth.cohort.cohort import COLUMNS, Cohort, funnel, no_slice_labels
from lungsynth.cohort.splits import patient_key
from lungsynth.evaluation.privacy.closest_pairs import ClosestPairs
from lungsynth.evaluation.quantities import (
    BREACH,
    CHOSEN_ARM,
    COMPARED,
    GAIN,
    KID,
    NEAR,
    TEST_PATIENTS,
    Quantity,
)
from lungsynth.evaluation.scorecard import Measurand, Metric, Scorecard
from lungsynth.registry.mlflow_registry import Registration
from lungsynth.verdict.comparison import CHOSEN
from lungsynth.verdict.record import Gain, Verdict

PATIENT = "PATIENT-4711"
KEY = patient_key("nlst", PATIENT, "lungsynth")
ARM = "real+classical+synthetic@1"


def metric(measurand: Measurand, value: float, low: float | None = None, high: float | None = None) -> Metric:
    found = {"value": value, "low": low, "high": high, "n": {"patients": 20}, "computed_with": "bootstrap ×2000"}
    return Metric(**dict(measurand), **found)


def distance(quantity: Quantity, **more: object) -> Measurand:
    return Measurand(quantity=quantity, extractor="lung", **more)


def auroc(arm: str) -> Measurand:
    return Measurand(quantity=COMPARED["AUROC"], arm=arm)


def chosen(arm: str) -> Measurand:
    return Measurand(quantity=CHOSEN_ARM, arm=arm)


SCORECARD = Scorecard(
    metrics=(
        metric(distance(KID), 0.0213, 0.015, high=0.028),
        metric(distance(KID, floor=True), 0.0031),
        metric(Measurand(quantity=BREACH), 0),
        metric(Measurand(quantity=NEAR), 0.034, 0.02, high=0.05),
        metric(auroc("real"), 0.791, 0.75, high=0.83),
        metric(auroc(ARM), 0.851, 0.81, high=0.89),
    ),
    notes=("Inception metrics were left out.",),
)
PAIRS = ClosestPairs(*np.random.default_rng(0).integers(0, 256, (2, 10, 32, 32), np.uint8))
PROMOTED = Verdict(
    outcome="promote",
    reason="Synthetic slices changed test AUROC by +0.060.",
    rule="gain",
    measure="AUROC",
    candidate_arm=ARM,
    baseline_arm="real",
    test_patients=(metric(Measurand(quantity=TEST_PATIENTS, class_name="cancer"), 20),),
    score=metric(auroc(CHOSEN), 0.851, 0.81, high=0.89),
    chosen=(metric(chosen(ARM), 5),),
    gains=(Gain(gain=metric(Measurand(quantity=GAIN["AUROC"], rival="baseline"), 0.06, 0.02, high=0.1)),),
    protocol_sha256="ab" * 32,
)
RUN_CONFIG = {
    "title": "<script>",
    "select_cohort": {"split": {"test": 0.2, "salt": "pepper"}},
    "registry": {"tracking_uri": "postgresql://ann:hunter2@db/mlflow", "mirrors": ["s3://key:hunter2@store/nlst"]},
}
REFUSED = PROMOTED.model_copy(update={"outcome": "reject", "rule": "no gain", "reason": "No gain <was> shown."})


def cohort_of(rows: list[dict[str, object]]) -> Cohort:
    table = pd.DataFrame(rows).reindex(columns=list(COLUMNS))
    return Cohort(table, no_slice_labels(), funnel(("all", table)))


def make_registration(version: int | None) -> Registration:
    return Registration(
        tracking_uri="sqlite:////somewhere/mlflow.db",
        run_id="4fe1",
        model_name="lung-ct-generator",
        version=version,
        alias="champion" if version else None,
        message="version 4 is now champion" if version else "no version was registered",
    )
