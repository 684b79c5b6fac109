"""What may block a generator for privacy: its slices must not lie nearer to training patients than to others."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np
from pydantic import Field

from lungsynth.config import Seed
from lungsynth.evaluation.features import FeaturesConfig
from lungsynth.evaluation.privacy.closeness import (
    Nearest,
    Side,
    distance_ratio,
    membership_auroc,
    near_share,
    nearest,
    nearest_by_patient,
    patients_near,
    proportion,
)
from lungsynth.evaluation.privacy.copies import Likeness, detail_correlation
from lungsynth.evaluation.quantities import (
    DISTANCE_RATIO,
    DUPLICATES,
    MEMBERSHIP,
    NEAR,
    PATIENTS_NEAR,
    VERBATIM,
    Quantity,
)
from lungsynth.evaluation.scorecard import Measurand, Metric, Scorecard
from lungsynth.evaluation.statistics import Estimate

MOST_HELD_OUT = 2000
"""Held-out slices, drawn at random where there are more, whose likeness to training slices sets what a copy is."""
MOST_TWICE = 0.05
"""Greatest share of held-out patients who are taken for training patients under another name. Where more look like a
training slice, they are taken for other people, whose slices look alike."""


class PrivacyConfig(FeaturesConfig):
    """What counts as too near, and how much of it blocks: where the whole 95 % interval lies beyond what is allowed."""

    synthetic: int = Field(
        1000, ge=20, description="synthetic slices to audit [chosen here: shows shares down to a few in a thousand]"
    )
    near_percentile: float = Field(
        1.0, gt=0, le=50, description="percentile of held-out distances that counts as near [chosen here: 1 of 100]"
    )
    allowed_near: float = Field(
        0.1, ge=0, lt=1, description="share of near slices [chosen here: ten times that of held-out slices]"
    )
    duplicate_correlation: tuple[float, float] = Field(
        (0.85, 0.95),
        description="correlation of details, least and greatest, above which a slice is a copy; in between, the "
        "greatest of held-out slices decides; one slice above the greatest blocks by itself, unless real "
        "ones of other patients come as near [chosen here: held-out phantoms reach 0.89]",
    )
    allowed_duplicates: float = Field(
        0.003, ge=0, lt=1, description="share of copies [chosen here: of 1000 fresh phantom slices, up to two count]"
    )
    least_distance_ratio: float = Field(
        0.8,
        gt=0,
        le=1,
        description="ratio of the distance to the nearest training slice to that to the nearest held-out slice "
        "[chosen here: fresh slices have about 1]",
    )
    allowed_membership: float = Field(
        0.65,
        ge=0.5,
        lt=1,
        description="AUROC of an attacker who tells training patients by the nearest slice [chosen here: luck is 0.5]",
    )
    allowed_patients: float = Field(
        0.2,
        ge=0,
        lt=1,
        description="share of training patients nearer than `near_patients` percent of held-out ones [chosen here: "
        "four times the 5 % to expect]",
    )
    near_patients: float = Field(
        5.0, gt=0, le=50, description="percentile of held-out patients that counts as near [chosen here: the usual 5 %]"
    )
    resamples: int = Field(
        500, ge=100, description="resamples of the bootstrap [chosen here: chance moves a bound by 3 % of the interval]"
    )
    seed: Seed = Field(0, description="seed of samples and resamples")


@dataclass(frozen=True)
class Material:
    """What is audited: N synthetic slices, and the real ones of both sides. What checks share is computed once."""

    synthetic: np.ndarray
    """uint8 N×H×W."""
    features: np.ndarray
    """float32 N×D of the synthetic slices; like those of both sides, each is divided by its spread over `train`."""
    train: Side
    train_images: np.ndarray
    """uint8 M×H×W, and so are the held-out ones."""
    held_out: Side
    held_out_images: np.ndarray

    @property
    def n(self) -> dict[str, int]:
        """Sample sizes."""
        sizes = {"synthetic": len(self.synthetic), "real": len(self.train_images)}
        return sizes | {"held-out": len(self.held_out_images), "patients": self.held_out.patient_count}

    @cached_property
    def likeness(self) -> Likeness:
        """How like a training slice each synthetic one is, in pixels."""
        return detail_correlation(self.synthetic, self.train_images)

    @cached_property
    def nearest(self) -> Nearest:
        """The nearest training slice of each synthetic one, in features."""
        return nearest(self.features, self.train)

    @cached_property
    def held_out_nearest(self) -> Nearest:
        """The same of each held-out slice."""
        return nearest(self.held_out.features, self.train)

    @cached_property
    def to_train(self) -> np.ndarray:
        """Distance float32 N×P of synthetic slices to the nearest slice of each training patient, in features."""
        return nearest_by_patient(self.features, self.train)

    @cached_property
    def to_held_out(self) -> np.ndarray:
        """The same of held-out patients, N×Q."""
        return nearest_by_patient(self.features, self.held_out)


class Check(NamedTuple):
    """A number that may block, whether it does, and what is allowed."""

    metric: Metric
    failed: bool
    allowed: str

    @property
    def limit(self) -> str:
        """What is allowed, in words."""
        return f"{self.metric.quantity.name} {self.allowed}"

    @property
    def failure(self) -> str:
        """What failed, in words."""
        found = self.metric
        bounds = f"95 % interval {found.low:.3g} to {found.high:.3g}"
        return f"{found.quantity.name} {found.value:.3g} ({bounds}; allowed: {self.allowed})"


def metric(material: Material, quantity: Quantity, estimate: Estimate, *, computed_with: str) -> Metric:
    """A number of the audit, with its sample sizes."""
    return Metric.of(Measurand(quantity=quantity), estimate, computed_with, n=material.n)


class Copies(NamedTuple):
    """The checks in pixels, with what held-out slices score, and notes."""

    checks: list[Check]
    floors: Scorecard


def check_copies(material: Material, config: PrivacyConfig) -> Copies:
    """`duplicates`, the share of copies, and `verbatim`, the share of those that are beyond doubt."""
    least, most = config.duplicate_correlation
    unseen, notes = _likeness_of_others(material, config)
    limit = min(max(float(unseen.max(initial=least)), least), most)
    how = f"bootstrap of synthetic slices ×{config.resamples}"
    duplicates, verbatim = (
        proportion(material.likeness.correlation > bound, config.resamples, config.seed) for bound in (limit, most)
    )
    checks = [
        Check(
            metric(material, DUPLICATES, duplicates, computed_with=f"detail correlation above {limit:.3f}, {how}"),
            duplicates.low > config.allowed_duplicates,
            f"up to {config.allowed_duplicates:g}",
        ),
        Check(
            metric(material, VERBATIM, verbatim, computed_with=f"detail correlation above {most:g}, {how}"),
            verbatim.value > 0 and limit < most,
            "none" if limit < most else "any, since real slices of other patients come as near",
        ),
    ]
    floors = tuple(
        Metric(
            quantity=quantity,
            floor=True,
            value=float((unseen > bound).mean()) if len(unseen) else 0.0,
            n=material.n,
            computed_with=f"detail correlation above {bound:.3f} of held-out slices",
        )
        for quantity, bound in ((DUPLICATES, limit), (VERBATIM, most))
    )
    return Copies(checks, Scorecard(metrics=floors, notes=notes))


def _likeness_of_others(material: Material, config: PrivacyConfig) -> tuple[np.ndarray, tuple[str, ...]]:
    """How like a training slice held-out ones are, without patients who seem to be on both sides, and a note on these.

    Such a patient's slices would raise the limit above which a slice counts as a copy, and so hide copies.
    """
    _, most = config.duplicate_correlation
    patients = material.held_out.patients
    rows = np.random.default_rng(config.seed).permutation(len(patients))[:MOST_HELD_OUT]
    unseen = detail_correlation(material.held_out_images[rows], material.train_images).correlation
    known = np.unique(patients[rows][unseen > most])
    if not 0 < len(known) <= max(1, MOST_TWICE * material.held_out.patient_count):
        return unseen, ()
    note = (
        f"{(unseen > most).sum()} held-out slices, of {len(known)} patients, are copies of training slices: "
        "perhaps the same person under two identifiers. What counts as a copy was set without these patients."
    )
    return unseen[~np.isin(patients[rows], known)], (note,)


def check_near(material: Material, config: PrivacyConfig) -> Check:
    """Share of synthetic slices nearer to a training slice than held-out ones are; `near_percentile` % is expected."""
    near = near_share(
        material.nearest.distance,
        material.held_out_nearest.distance,
        material.held_out.patients,
        percentile=config.near_percentile,
        resamples=config.resamples,
        seed=config.seed,
    )
    how = "nearest neighbours in lung features, percentile bootstrap of synthetic slices and held-out patients"
    found = metric(material, NEAR, near, computed_with=f"{how} ×{config.resamples}")
    return Check(found, near.low > config.allowed_near, f"up to {config.allowed_near:g}")


def check_distance_ratio(material: Material, config: PrivacyConfig) -> Check:
    """Distance to training patients over that to held-out ones."""
    ratio = distance_ratio(material.to_train, material.to_held_out, resamples=config.resamples, seed=config.seed)
    how = (
        "mean distance in lung features to train over that to as many held-out patients, percentile bootstrap "
        f"of synthetic slices and patients ×{config.resamples}"
    )
    found = metric(material, DISTANCE_RATIO, ratio, computed_with=how)
    return Check(found, ratio.high < config.least_distance_ratio, f"from {config.least_distance_ratio:g} on")


def check_membership(material: Material, config: PrivacyConfig) -> Check:
    """AUROC of an attacker who tells training from held-out patients by their nearest synthetic slice."""
    membership = membership_auroc(material.to_train, material.to_held_out)
    found = metric(
        material, MEMBERSHIP, membership, computed_with="AUROC of patients by their nearest synthetic slice, DeLong"
    )
    return Check(found, membership.low > config.allowed_membership, f"up to {config.allowed_membership:g}")


def check_patients_near(material: Material, config: PrivacyConfig) -> Check:
    """Share of training patients who have an unusually near synthetic slice."""
    members, others = (apart.min(axis=0) for apart in (material.to_train, material.to_held_out))
    unusual = patients_near(members, others, config.near_patients, resamples=config.resamples, seed=config.seed)
    how = (
        f"training patients nearer than {config.near_patients:g} % of held-out ones, percentile bootstrap of "
        f"patients ×{config.resamples}"
    )
    found = metric(material, PATIENTS_NEAR, unusual, computed_with=how)
    return Check(found, unusual.low > config.allowed_patients, f"up to {config.allowed_patients:g}")


IN_FEATURES: tuple[Callable[[Material, PrivacyConfig], Check], ...] = (
    check_near,
    check_distance_ratio,
    check_membership,
    check_patients_near,
)
"""The checks in lung features, in the order of the scorecard. A row here takes a new one into audit and report."""
