"""Scores of arms with a planted separation of the classes, and what the gate makes of them."""

import numpy as np
import pandas as pd

from lungsynth.dataset.vocabulary import CLASSES
from lungsynth.evaluation.quantities import BREACH, KID, NEAR
from lungsynth.evaluation.scorecard import Metric, Scorecard
from lungsynth.evaluation.utility.predictions import Predictions
from lungsynth.verdict.contest import decide
from lungsynth.verdict.gate import GateConfig
from lungsynth.verdict.record import Verdict

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


def decided(
    scores: Predictions,
    *,
    fidelity: Scorecard = FIDELITY,
    audit: Scorecard | None = None,
    groups: pd.DataFrame = NO_GROUPS,
    config: GateConfig = CONFIG,
) -> tuple[Scorecard, Verdict]:
    """The scorecard and the verdict; unless said otherwise of a generator that gives nobody away."""
    return decide(scores, fidelity, audit or privacy(False), groups=groups, config=config, protocol_sha256="protocol")
