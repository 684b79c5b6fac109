"""Experiments whose truth is known, as scores: what the gate makes of them, many times over."""

from collections import Counter
from statistics import NormalDist

import numpy as np
import pandas as pd

from lungsynth.dataset.vocabulary import CLASSES
from lungsynth.evaluation.quantities import BREACH
from lungsynth.evaluation.scorecard import Metric, Scorecard
from lungsynth.evaluation.utility.predictions import Predictions
from lungsynth.verdict.contest import decide
from lungsynth.verdict.gate import GateConfig

SLICES = 4
SEEDS = 5
PATIENT_SD, SLICE_SD = 1.0, 1.0
"""Of what all classifiers see alike in a patient and in a slice."""
OWN_PATIENT_SD = 0.4
"""Of what the classifiers of one arm see in a patient: what ties an arm's seeds together."""
SEED_SLICE_SD = 0.4
TOTAL_SD = np.sqrt(PATIENT_SD**2 + SLICE_SD**2 + OWN_PATIENT_SD**2 + SEED_SLICE_SD**2)
NO_GROUPS = pd.DataFrame()
SAFE = Scorecard(metrics=(Metric(quantity=BREACH, value=0, computed_with="planted"),))
SYNTHETIC = ("real+classical+synthetic@0.5", "real+classical+synthetic@1", "real+classical+synthetic@2")


def distance(auroc: float) -> float:
    """Between the means of two classes that give this AUROC where all seeds are alike."""
    return float(np.sqrt(2) * TOTAL_SD * NormalDist().inv_cdf(auroc))


def experiment(
    rng: np.random.Generator, aurocs: dict[str, float], patients: dict[str, int], seed_sd: float
) -> Predictions:
    """Scores of arms with these true AUROCs, on so many patients of each split, half of them of the positive class.

    `seed_sd` is that of a classifier's own distance between the classes: 0.1 gives AUROC an SD over seeds of 0.02.
    """
    parts = []
    slopes = {arm: distance(auroc) + seed_sd * rng.normal(size=SEEDS) for arm, auroc in aurocs.items()}
    for split, count in patients.items():
        owner = np.repeat(np.arange(count), SLICES)
        label = owner % 2
        shared = PATIENT_SD * rng.normal(size=count)[owner] + SLICE_SD * rng.normal(size=owner.size)
        for arm in aurocs:
            own = OWN_PATIENT_SD * rng.normal(size=count)[owner]
            for seed in range(SEEDS):
                score = slopes[arm][seed] * label + shared + own + SEED_SLICE_SD * rng.normal(size=owner.size)
                role = "candidate" if "@" in arm else "baseline"
                part = {
                    "arm": arm,
                    "role": role,
                    "seed": seed,
                    "split": split,
                    "row": np.arange(owner.size),
                    "label": label,
                }
                parts.append(pd.DataFrame({**part, "patient": owner.astype(str), "score": score}))
    return Predictions(pd.concat(parts), CLASSES)


def outcomes(
    experiments: int, gain: float, patients: dict[str, int], config: GateConfig, seed_sd: float
) -> Counter[str]:
    """How often each verdict comes, where synthetic slices at every ratio truly add `gain` to an AUROC of 0.75."""
    aurocs = {"real": 0.72, "real+classical": 0.75} | dict.fromkeys(SYNTHETIC, 0.75 + gain)
    truth = (experiment(np.random.default_rng(number), aurocs, patients, seed_sd) for number in range(experiments))
    return Counter(
        decide(scores, SAFE, SAFE, groups=NO_GROUPS, config=config, protocol_sha256="")[1].outcome for scores in truth
    )
