"""Whether the generator gives its training patients away: six checks, and numbers that are reported beside them."""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from lungsynth.dataset.store import SliceDataset
from lungsynth.evaluation.extractor import Extractor
from lungsynth.evaluation.privacy.checks import (
    IN_FEATURES,
    Check,
    Material,
    PrivacyConfig,
    check_copies,
    metric,
)
from lungsynth.evaluation.privacy.closeness import Side, attack_auroc, authentic, proportion
from lungsynth.evaluation.privacy.closest_pairs import ClosestPairs
from lungsynth.evaluation.privacy.copies import detail_correlation
from lungsynth.evaluation.quantities import (
    AUTHENTIC,
    BREACH,
    MEMBERSHIP_DISCRIMINATOR,
    PIXEL_RATIO,
    UNJUDGED_CHECKS,
)
from lungsynth.evaluation.sampler import Realness, Sampler, draw
from lungsynth.evaluation.scorecard import Measurand, Metric, Scorecard
from lungsynth.evaluation.statistics import patient_means, percentile_interval

PAIRS = 10
"""Closest pairs that a report shows."""
IN_PIXELS, PIXEL_RESAMPLES = 500, 500
"""Synthetic slices whose distances are taken in pixels too, and bootstrap resamples of these."""
FEWEST = {"training": 3, "held-out": 20}
"""Patients below which distances in features say nothing. Of 2 training against 2 held-out patients every second
perfect generator was blocked, of 12 against 4 every fourth; of 3 against 20 at most one in thirty, as of more."""


class Audit(NamedTuple):
    """The numbers of an audit, and the pairs of synthetic and training slices that are most alike."""

    scorecard: Scorecard
    closest_pairs: ClosestPairs


def audit_privacy(
    dataset: SliceDataset,
    sampler: Sampler,
    extractor: Extractor,
    *,
    config: PrivacyConfig,
    realness: Realness | None = None,
) -> Audit:
    """Six checks of whether slices give training patients away, each against held-out patients, and the breach.

    Two checks are in pixels, see `check_copies`; the others are in lung features, see `IN_FEATURES`.
    `privacy/breach` counts the checks that failed, where the whole 95 % interval lies beyond what is allowed, and says
    which. With fewer patients than `FEWEST` only the checks in pixels can fail, and `privacy/unjudged` counts the
    others.

    Reported and never blocking: `privacy/authentic`; `privacy/pixel_ratio`, the distance ratio in aligned pixels; and
    `privacy/membership_discriminator`, the attack of someone who has the discriminator, which is never published.

    Args:
        realness: of the generator, where it has a discriminator.
    """
    material = gather(dataset, sampler, extractor, config=config)
    copies = check_copies(material, config)
    in_features = [check(material, config) for check in IN_FEATURES]
    few = _too_few_patients(material)
    metrics = (
        _breach(material, copies.checks, in_features, few=few),
        *([_unjudged(material, in_features, few)] if few else []),
        *(check.metric for check in (*copies.checks, *in_features)),
        *copies.floors.metrics,
        *_authenticity(material, config),
        _pixel_ratio(material, config.seed),
        *_attack_by_discriminator(material, dataset, realness),
    )
    return Audit(Scorecard(metrics=metrics, notes=copies.floors.notes), _closest_pairs(material))


def gather(dataset: SliceDataset, sampler: Sampler, extractor: Extractor, *, config: PrivacyConfig) -> Material:
    """Draw synthetic slices with the class mix of `train`, and take the features of all sides."""
    train, held_out = dataset.rows("train"), dataset.rows("val", "test")
    labels = np.random.default_rng(config.seed).choice(dataset.labels[train], config.synthetic)
    synthetic = draw(sampler, labels, config.seed, size=dataset.meta.size)
    train_images, held_out_images = dataset.images[train], dataset.images[held_out]
    reference = extractor.features(train_images, config.cache)
    spread = reference.std(axis=0) + 1e-6
    return Material(
        synthetic=synthetic,
        features=extractor.features(synthetic) / spread,
        train=Side(reference / spread, _patients(dataset, train)),
        train_images=train_images,
        held_out=Side(extractor.features(held_out_images, config.cache) / spread, _patients(dataset, held_out)),
        held_out_images=held_out_images,
    )


def _patients(dataset: SliceDataset, rows: np.ndarray) -> np.ndarray:
    """The patient code of each row, from 0."""
    return np.unique(dataset.table["patient"].to_numpy(str)[rows], return_inverse=True)[1]


def _too_few_patients(material: Material) -> str:
    """Which side has too few patients for the checks in features, in words; nothing where both have enough."""
    count = {"training": material.train.patient_count, "held-out": material.held_out.patient_count}
    return " and ".join(
        f"{count[side]} {side} patients, {least} are needed" for side, least in FEWEST.items() if count[side] < least
    )


def _breach(material: Material, in_pixels: list[Check], in_features: list[Check], *, few: str) -> Metric:
    checks = in_pixels + in_features
    failed = [check for check in (in_pixels if few else checks) if check.failed]
    allowed = "; ".join(check.limit for check in checks)
    return Metric(
        quantity=BREACH,
        value=len(failed),
        n=material.n,
        computed_with="; ".join(check.failure for check in failed) or f"allowed: {allowed}",
    )


def _unjudged(material: Material, in_features: list[Check], few: str) -> Metric:
    return Metric(quantity=UNJUDGED_CHECKS, value=len(in_features), n=material.n, computed_with=few)


def _authenticity(material: Material, config: PrivacyConfig) -> Iterator[Metric]:
    """Share of slices that are no noised copies of a training slice, of synthetic and of held-out ones."""
    for floor, what, found in ((False, "synthetic", material.nearest), (True, "held-out", material.held_out_nearest)):
        share = proportion(authentic(found, material.train), config.resamples, config.seed)
        how = f"share of authentic {what} slices (Alaa 2022), against slices of other patients, bootstrap of slices "
        measurand = Measurand(quantity=AUTHENTIC, floor=floor)
        yield Metric.of(measurand, share, f"{how}×{config.resamples}", n=material.n)


def _pixel_ratio(material: Material, seed: int) -> Metric:
    """How unlike their nearest training slice synthetic slices are, over how unlike their nearest held-out slice.

    Both sides get as many patients, since among more of them one is nearer by chance alone. They are drawn once, and
    the interval leaves that choice out; so this number blocks nothing.
    """
    rng = np.random.default_rng(seed)
    count = min(material.train.patient_count, material.held_out.patient_count)
    apart = []
    for side, images in ((material.train, material.train_images), (material.held_out, material.held_out_images)):
        chosen = rng.choice(side.patient_count, count, replace=False)
        target = images[np.isin(side.patients, chosen)]
        apart.append(1 - detail_correlation(material.synthetic[:IN_PIXELS], target).correlation)
    picks = rng.integers(len(apart[0]), size=(PIXEL_RESAMPLES, len(apart[0])))
    draws = apart[0][picks].mean(axis=1) / apart[1][picks].mean(axis=1)
    return Metric.of(
        Measurand(quantity=PIXEL_RATIO),
        percentile_interval(float(apart[0].mean() / apart[1].mean()), draws),
        "1 minus detail correlation, to train over to as many held-out patients, bootstrap of synthetic slices "
        f"×{PIXEL_RESAMPLES}; never blocks",
        n={"synthetic": len(apart[0]), "patients": count},
    )


def _attack_by_discriminator(material: Material, dataset: SliceDataset, realness: Realness | None) -> Iterator[Metric]:
    """The attack of Hayes 2019 (arXiv 1705.07663): patients whose slices look more real were trained on."""
    scores = []
    for side, rows in ((material.train, dataset.rows("train")), (material.held_out, dataset.rows("val", "test"))):
        found = realness(dataset.images[rows], dataset.labels[rows]) if realness else None
        if found is None:
            return
        scores.append(patient_means(found[None], side.patients).means[0])
    how = "AUROC of patients by the discriminator's mean score, DeLong; never blocks, since it is not published"
    yield metric(material, MEMBERSHIP_DISCRIMINATOR, attack_auroc(*scores), computed_with=how)


def _closest_pairs(material: Material) -> ClosestPairs:
    order = np.argsort(-material.likeness.correlation, kind="stable")[:PAIRS]
    return ClosestPairs(material.synthetic[order], material.train_images[material.likeness.row[order]])
