"""What is measured: every quantity that more than one file speaks of, with its topic and its unit."""

from dataclasses import dataclass
from typing import Literal

from lungsynth.evaluation.statistics import Measure

Topic = Literal["fidelity", "privacy", "utility", "gate"]
"""The part of a report that shows a quantity; `gate`: what the verdict rests on."""
Unit = Literal[
    "distance",  # squared, in the feature space of one extractor: reported under every normalisation, and in history
    "ratio",
    "share",  # 0 to 1
    "similarity",  # 0 to 1: the same
    "AUROC",
    "Dice",
    "squared error",
    "probability",
    "patients",
    "seeds",
    "checks",
]
LUNG = "lung"
"""The feature extractor that every run has."""


@dataclass(frozen=True)
class Quantity:
    """What is measured. `name` is the word for it in the names of metrics."""

    name: str
    topic: Topic
    unit: Unit


FID = Quantity("fid", "fidelity", "distance")
FID_RATIO = Quantity("fid_ratio", "fidelity", "ratio")
KID = Quantity("kid", "fidelity", "distance")
PRECISION = Quantity("precision", "fidelity", "share")
RECALL = Quantity("recall", "fidelity", "share")
DENSITY = Quantity("density", "fidelity", "ratio")
COVERAGE = Quantity("coverage", "fidelity", "share")
MODES = Quantity("modes", "fidelity", "share")
MS_SSIM = Quantity("ms_ssim", "fidelity", "similarity")

BREACH = Quantity("breach", "privacy", "checks")
UNJUDGED_CHECKS = Quantity("unjudged", "privacy", "checks")
DUPLICATES = Quantity("duplicates", "privacy", "share")
VERBATIM = Quantity("verbatim", "privacy", "share")
NEAR = Quantity("near", "privacy", "share")
DISTANCE_RATIO = Quantity("distance_ratio", "privacy", "ratio")
MEMBERSHIP = Quantity("membership", "privacy", "AUROC")
PATIENTS_NEAR = Quantity("patients_near", "privacy", "share")
AUTHENTIC = Quantity("authentic", "privacy", "share")
PIXEL_RATIO = Quantity("pixel_ratio", "privacy", "ratio")
MEMBERSHIP_DISCRIMINATOR = Quantity("membership_discriminator", "privacy", "AUROC")

COMPARED: dict[Measure, Quantity] = {
    "AUROC": Quantity("auroc", "utility", "AUROC"),
    "Dice": Quantity("dice", "utility", "Dice"),
}
"""What arms are compared by; see `verdict.arms` for what else is measured of an arm."""

TEST_PATIENTS = Quantity("test_patients", "gate", "patients")
CHOSEN_ARM = Quantity("chosen", "gate", "seeds")
GAIN: dict[Measure, Quantity] = {
    "AUROC": Quantity("gain", "gate", "AUROC"),
    "Dice": Quantity("gain", "gate", "Dice"),
}
UNJUDGED_GROUP = Quantity("unjudged", "gate", "patients")
POWER = Quantity("power", "gate", "probability")
