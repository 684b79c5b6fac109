"""Whether the generator gives its training patients away: what it draws must not lie nearer to them than to others."""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from pydantic import Field

from lungsynth.evaluation.closeness import (
    Side,
    attack_auroc,
    authentic,
    distance_ratio,
    membership_auroc,
    nearest_by_patient,
)
from lungsynth.evaluation.copies import Likeness, detail_correlation
from lungsynth.evaluation.extractor import Extractor
from lungsynth.evaluation.features import FeaturesConfig
from lungsynth.evaluation.sampler import Realness, Sampler, draw
from lungsynth.evaluation.scorecard import Metric, Scorecard
from lungsynth.evaluation.statistics import Estimate, patient_means, percentile_interval
from lungsynth.imaging.store import SliceDataset

PAIRS = 10
"""Closest pairs that a report shows."""
IN_PIXELS, PIXEL_RESAMPLES = 500, 500
"""Synthetic slices whose distances are taken in pixels too, and resamples of these."""


class PrivacyConfig(FeaturesConfig):
    """What counts as too near, and how much of it blocks: where the whole 95 % interval lies beyond what is allowed."""

    synthetic: int = Field(1000, ge=20, description="synthetic slices to audit")
    near_percentile: float = Field(
        1.0, gt=0, le=50, description="percentile of held-out to train distances that counts as near"
    )
    allowed_near: float = Field(0.1, ge=0, lt=1, description="share of near slices")
    duplicate_correlation: tuple[float, float] = Field(
        (0.85, 0.95),
        description="least and greatest detail correlation above which a slice is a copy; in between, the greatest of "
        "held-out slices decides: 0.56 in four IDC patients, 0.84 in phantoms; noisy, shifted copies mostly keep 0.96",
    )
    allowed_duplicates: float = Field(
        0.003, ge=0, lt=1, description="share of copies; of 1000 fresh phantom slices up to two count as such"
    )
    least_distance_ratio: float = Field(
        0.8, gt=0, le=1, description="distance to the nearest training slice over that to the nearest held-out slice"
    )
    allowed_membership: float = Field(
        0.65,
        ge=0.5,
        lt=1,
        description="AUROC of an attacker who tells training patients by their nearest slice",
    )
    allowed_patients: float = Field(
        0.2, ge=0, lt=1, description="share of training patients nearer than `near_patients` percent of held-out ones"
    )
    near_patients: float = Field(5.0, gt=0, le=50, description="percentile of held-out patients that counts as near")
    resamples: int = Field(500, ge=100, description="bootstrap resamples")
    seed: int = Field(0, ge=0, description="of samples and resamples")


class Audit(NamedTuple):
    """Its numbers, and the pairs uint8 K×2×H×W (synthetic, training slice) that are most alike, closest first."""

    scorecard: Scorecard
    closest: np.ndarray


def audit_privacy(
    dataset: SliceDataset,
    sampler: Sampler,
    extractor: Extractor,
    config: PrivacyConfig,
    realness: Realness | None = None,
) -> Audit:
    """Five ways in which slices can give training patients away, each against held-out patients, and the breach.

    `privacy/near`: share of synthetic slices nearer to a training slice than held-out slices are, in lung features
    (each scaled by its spread over `train`); of fresh slices about `near_percentile` % are. `privacy/duplicates`: share
    of copies, in pixels. `privacy/distance_ratio` and `privacy/membership`: see `closeness`. `privacy/patients_near`:
    share of training patients who have an unusually near slice.

    Reported and never blocking: `privacy/authentic`; `privacy/pixel_ratio`, the distance ratio in aligned pixels; and
    `privacy/membership_discriminator`, the attack of whoever has the discriminator, which is never published.
    `privacy/breach` is how many of the five lie wholly beyond what is allowed.

    Args:
        realness: of the generator, where it has a discriminator.
    """
    train, held_out = dataset.rows("train"), dataset.rows("val", "test")
    labels = np.random.default_rng(config.seed).choice(dataset.labels[train], config.synthetic)
    synthetic = draw(sampler, labels, config.seed, dataset.meta.size)
    patients = dataset.table["patient"].to_numpy(str)
    images = {"train": dataset.images[train], "held-out": dataset.images[held_out]}

    reference = extractor.features(images["train"], config.cache)
    spread = reference.std(axis=0) + 1e-6
    sides = {
        "train": Side(reference / spread, np.unique(patients[train], return_inverse=True)[1]),
        "held-out": Side(
            extractor.features(images["held-out"], config.cache) / spread,
            np.unique(patients[held_out], return_inverse=True)[1],
        ),
    }
    drawn = extractor.features(synthetic) / spread
    nearest = {name: nearest_by_patient(drawn, side) for name, side in sides.items()}
    n = {
        "synthetic": len(synthetic),
        "real": len(train),
        "held-out": len(held_out),
        "patients": nearest["held-out"].shape[1],
    }

    copies = {"synthetic": detail_correlation(synthetic, images["train"])}
    copies["held-out"] = detail_correlation(images["held-out"], images["train"])
    limit = float(np.clip(copies["held-out"].correlation.max(), *config.duplicate_correlation))
    resampled = f"percentile bootstrap of synthetic slices and held-out patients ×{config.resamples}"
    near, duplicates = _shares(
        nearest["train"].min(axis=1),
        nearest_by_patient(sides["held-out"].features, sides["train"]).min(axis=1),
        copies["synthetic"].correlation > limit,
        sides["held-out"].patients,
        config,
    )
    ratio = distance_ratio(nearest["train"], nearest["held-out"], config.resamples, config.seed)
    membership = membership_auroc(nearest["train"], nearest["held-out"])
    attack = "AUROC of patients by their nearest synthetic slice, DeLong"
    patients_near = _patients_near(nearest, config)
    checks = (
        (
            Metric.of("privacy/near", near, f"nearest neighbours in lung features, {resampled}", n),
            near.low > config.allowed_near,
            f"near {config.allowed_near:g}",
        ),
        (
            Metric.of("privacy/duplicates", duplicates, f"detail correlation above {limit:.3f}, {resampled}", n),
            duplicates.low > config.allowed_duplicates,
            f"duplicates {config.allowed_duplicates:g}",
        ),
        (
            Metric.of(
                "privacy/distance_ratio",
                ratio,
                "mean distance in lung features to train over that to as many held-out patients, percentile bootstrap "
                f"of synthetic slices and patients ×{config.resamples}",
                n,
            ),
            ratio.high < config.least_distance_ratio,
            f"distance ratio from {config.least_distance_ratio:g} on",
        ),
        (
            Metric.of("privacy/membership", membership, attack, n),
            membership.low > config.allowed_membership,
            f"membership {config.allowed_membership:g}",
        ),
        (
            Metric.of(
                "privacy/patients_near",
                patients_near,
                f"training patients nearer than {config.near_patients:g} % of held-out ones, percentile bootstrap of "
                f"patients ×{config.resamples}",
                n,
            ),
            patients_near.low > config.allowed_patients,
            f"patients near {config.allowed_patients:g}",
        ),
    )
    breach = Metric(
        name="privacy/breach",
        value=sum(breached for _, breached, _ in checks),
        n=n,
        computed_with=f"allowed: {', '.join(allowed for *_, allowed in checks)}",
    )
    floor = Metric(
        name="privacy/duplicates/floor",
        value=float((copies["held-out"].correlation > limit).mean()),
        n=n,
        computed_with=f"detail correlation above {limit:.3f} of held-out slices",
    )
    own = [
        Metric(
            name=f"privacy/authentic{suffix}",
            value=float(authentic(features, sides["train"]).mean()),
            n=n,
            computed_with=f"share of authentic {what} (Alaa 2022), against slices of other patients",
        )
        for suffix, what, features in (
            ("", "synthetic slices", drawn),
            ("/floor", "held-out slices", sides["held-out"].features),
        )
    ]
    own.append(_in_pixels(synthetic, images, sides, config.seed))
    metrics = (breach, *(metric for metric, *_ in checks), floor, *own, *_by_discriminator(dataset, realness, n))
    return Audit(Scorecard(metrics=metrics), _closest(synthetic, images["train"], copies["synthetic"]))


def _in_pixels(synthetic: np.ndarray, images: dict[str, np.ndarray], sides: dict[str, Side], seed: int) -> Metric:
    """How unlike their nearest training slice synthetic slices are, over how unlike their nearest held-out slice.

    Of both sides as many patients, for among more of them one is nearer by chance alone. They are drawn once: which
    ones is not in the interval, and so this blocks nothing.
    """
    rng = np.random.default_rng(seed)
    count = min(side.patients.max() + 1 for side in sides.values())
    apart = []
    for name, side in sides.items():
        chosen = rng.choice(side.patients.max() + 1, count, replace=False)
        target = images[name][np.isin(side.patients, chosen)]
        apart.append(1 - detail_correlation(synthetic[:IN_PIXELS], target).correlation)
    picks = rng.integers(len(apart[0]), size=(PIXEL_RESAMPLES, len(apart[0])))
    draws = apart[0][picks].mean(axis=1) / apart[1][picks].mean(axis=1)
    return Metric.of(
        "privacy/pixel_ratio",
        percentile_interval(float(apart[0].mean() / apart[1].mean()), draws),
        f"1 minus detail correlation, to train over to as many held-out patients, bootstrap of synthetic slices "
        f"×{PIXEL_RESAMPLES}; never blocks",
        {"synthetic": len(apart[0]), "patients": int(count)},
    )


def _by_discriminator(dataset: SliceDataset, realness: Realness | None, n: dict[str, int]) -> Iterator[Metric]:
    """The attack of Hayes 2019 (arXiv 1705.07663): patients whose slices look more real were trained on."""
    scores = []
    for splits in (("train",), ("val", "test")):
        rows = dataset.rows(*splits)
        found = realness(dataset.images[rows], dataset.labels[rows]) if realness else None
        if found is None:
            return
        patients = np.unique(dataset.table["patient"].to_numpy(str)[rows], return_inverse=True)[1]
        scores.append(patient_means(found[None], patients).means[0])
    how = "AUROC of patients by the discriminator's mean score, DeLong; never blocks, since it is not published"
    yield Metric.of("privacy/membership_discriminator", attack_auroc(*scores), how, n)


def _shares(
    synthetic: np.ndarray, held_out: np.ndarray, duplicate: np.ndarray, patients: np.ndarray, config: PrivacyConfig
) -> tuple[Estimate, Estimate]:
    """The near share and the duplicate share.

    `synthetic`, `held_out`: distances of each to the nearest training slice; `patients`: of the held-out slices.
    """
    rng = np.random.default_rng(config.seed)
    count = patients.max() + 1
    draws = np.empty((2, config.resamples))
    for b in range(config.resamples):
        times = rng.multinomial(count, np.full(count, 1 / count))[patients]
        threshold = np.percentile(np.repeat(held_out, times), config.near_percentile)
        rows = rng.integers(len(duplicate), size=len(duplicate))
        draws[:, b] = np.mean(synthetic[rows] < threshold), np.mean(duplicate[rows])
    near = np.mean(synthetic < np.percentile(held_out, config.near_percentile))
    return percentile_interval(float(near), draws[0]), percentile_interval(float(duplicate.mean()), draws[1])


def _patients_near(nearest: dict[str, np.ndarray], config: PrivacyConfig) -> Estimate:
    """Share of training patients whose nearest synthetic slice is nearer than that of hardly any held-out patient."""
    rng = np.random.default_rng(config.seed)
    members, others = (nearest[side].min(axis=0) for side in ("train", "held-out"))

    def share(trained: np.ndarray, unseen: np.ndarray) -> float:
        return float(np.mean(trained < np.percentile(unseen, config.near_patients)))

    draws = np.array([share(rng.choice(members, len(members)), rng.choice(others, len(others)))
                      for _ in range(config.resamples)])  # fmt: skip
    return percentile_interval(share(members, others), draws)


def _closest(synthetic: np.ndarray, train: np.ndarray, likeness: Likeness) -> np.ndarray:
    order = np.argsort(-likeness.correlation, kind="stable")[:PAIRS]
    return np.stack([synthetic[order], train[likeness.row[order]]], axis=1)
