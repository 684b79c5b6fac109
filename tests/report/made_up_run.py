"""What a made-up run hands on to its report."""

import numpy as np
import pandas as pd

from lungsynth.cohort.cohort import COLUMNS, Cohort, funnel, no_slice_labels
from lungsynth.cohort.splits import patient_key
from lungsynth.evaluation.scorecard import Metric, Scorecard
from lungsynth.registry.mlflow_registry import Registration
from lungsynth.verdict.gate import Verdict

PATIENT = "PATIENT-4711"
KEY = patient_key("nlst", PATIENT, "lungsynth")
ARM = "real+classical+synthetic@1"


def metric(name: str, value: float, low: float | None = None, high: float | None = None) -> Metric:
    return Metric(name=name, value=value, low=low, high=high, n={"patients": 20}, computed_with="bootstrap ×2000")


SCORECARD = Scorecard(
    metrics=(
        metric("kid_lung", 0.0213, 0.015, 0.028),
        metric("kid_lung/floor", 0.0031),
        metric("privacy/breach", 0),
        metric("privacy/near", 0.034, 0.02, 0.05),
        metric("auroc/real", 0.791, 0.75, 0.83),
        metric(f"auroc/{ARM}", 0.851, 0.81, 0.89),
    ),
    notes=("Inception metrics were left out.",),
)
PAIRS = np.random.default_rng(0).integers(0, 256, (10, 2, 32, 32), np.uint8)
PROMOTED = Verdict(
    outcome="promote",
    reason="Synthetic slices changed test AUROC by +0.060.",
    rule="gain",
    candidate_arm=ARM,
    baseline_arm="real",
    numbers=(metric("chosen/" + ARM, 5), metric("gain/baseline", 0.06, 0.02, 0.1)),
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
