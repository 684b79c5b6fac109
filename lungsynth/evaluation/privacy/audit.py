"""Whether the generator gives its training patients away: what it draws must not lie nearer to them than to others."""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from pydantic import Field

from lungsynth.config import Seed
from lungsynth.dataset.store import SliceDataset
from lungsynth.evaluation.extractor import Extractor
from lungsynth.evaluation.features import FeaturesConfig
from lungsynth.evaluation.privacy.closeness import (
    Side,
    attack_auroc,
    authentic,
    distance_ratio,
    membership_auroc,
    near_share,
    nearest,
    nearest_by_patient,
    patients_near,
    share_of,
)
from lungsynth.evaluation.privacy.copies import Likeness, detail_correlation
from lungsynth.evaluation.sampler import Realness, Sampler, draw
from lungsynth.evaluation.scorecard import Metric, Scorecard
from lungsynth.evaluation.statistics import Estimate, patient_means, percentile_interval

PAIRS = 10
"""Closest pairs that a report shows."""
IN_PIXELS, PIXEL_RESAMPLES = 500, 500
"""Synthetic slices whose distances are taken in pixels too, and resamples of these."""
MOST_HELD_OUT = 2000
"""Held-out slices, drawn at random where there are more, that copies are told apart by."""
MOST_TWICE = 0.05
"""Greatest share of held-out patients who can be training patients under another name; more only look like these."""
FEWEST = {"training": 3, "held-out": 20}
"""Patients without whom distances in features say nothing: of 2 against 2, perfect generators were blocked each second
time, of 12 against 4 each fourth; of 3 against 20 at most one in thirty, as of more."""


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


class Audit(NamedTuple):
    """Its numbers, and the pairs uint8 K×2×H×W (synthetic, training slice) that are most alike, closest first."""

    scorecard: Scorecard
    closest: np.ndarray


class Check(NamedTuple):
    """A number that may block, whether it does, and what is allowed."""

    metric: Metric
    failed: bool
    allowed: str

    @property
    def name(self) -> str:
        """Of the metric, without its topic."""
        return self.metric.name.removeprefix("privacy/")

    @property
    def failure(self) -> str:
        """What failed, in words."""
        found = self.metric
        bounds = f"95 % interval {found.low:.3g} to {found.high:.3g}"
        return f"{self.name} {found.value:.3g} ({bounds}; allowed: {self.allowed})"


def audit_privacy(
    dataset: SliceDataset,
    sampler: Sampler,
    extractor: Extractor,
    config: PrivacyConfig,
    realness: Realness | None = None,
) -> Audit:
    """Six ways in which slices can give training patients away, each against held-out patients, and the breach.

    In pixels: `privacy/duplicates`, the share of copies, and `privacy/verbatim`, of those that are beyond doubt. In
    lung features (each scaled by its spread over `train`): `privacy/near`, the share of synthetic slices nearer to a
    training slice than held-out slices are, of fresh slices about `near_percentile` %; `privacy/distance_ratio` and
    `privacy/membership`, see `closeness`; `privacy/patients_near`, the share of training patients who have an unusually
    near slice. `privacy/breach` is how many of the six lie wholly beyond what is allowed, and says which. With fewer
    patients than `FEWEST` only those in pixels can fail, and `privacy/unjudged` counts the others.

    Reported and never blocking: `privacy/authentic`; `privacy/pixel_ratio`, the distance ratio in aligned pixels; and
    `privacy/membership_discriminator`, the attack of whoever has the discriminator, which is never published.

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
    count = {"training": int(sides["train"].patients.max()) + 1, "held-out": int(sides["held-out"].patients.max()) + 1}
    n = {"synthetic": len(synthetic), "real": len(train), "held-out": len(held_out), "patients": count["held-out"]}

    likeness = detail_correlation(synthetic, images["train"])
    in_pixels, facts = _copies(likeness, images, sides["held-out"].patients, config, n)
    close = {
        name: nearest(features, sides["train"])
        for name, features in (("synthetic", drawn), ("held-out", sides["held-out"].features))
    }
    in_features = _distances(
        {name: nearest_by_patient(drawn, side) for name, side in sides.items()},
        near_share(
            close["synthetic"].distance,
            close["held-out"].distance,
            sides["held-out"].patients,
            config.near_percentile,
            config.resamples,
            config.seed,
        ),
        config,
        n,
    )
    few = " and ".join(
        f"{count[side]} {side} patients, {least} are needed" for side, least in FEWEST.items() if count[side] < least
    )
    checks = in_pixels + in_features
    failed = [check for check in (in_pixels if few else checks) if check.failed]
    allowed = "; ".join(f"{check.name} {check.allowed}" for check in checks)
    breach = Metric(
        name="privacy/breach",
        value=len(failed),
        n=n,
        computed_with="; ".join(check.failure for check in failed) or f"allowed: {allowed}",
    )
    unjudged = Metric(name="privacy/unjudged", value=len(in_features), n=n, computed_with=few)
    own = [
        Metric.of(
            f"privacy/authentic{suffix}",
            share_of(authentic(close[what], sides["train"]), config.resamples, config.seed),
            f"share of authentic {what} slices (Alaa 2022), against slices of other patients, bootstrap of slices "
            f"×{config.resamples}",
            n,
        )
        for suffix, what in (("", "synthetic"), ("/floor", "held-out"))
    ]
    own.append(_in_pixels(synthetic, images, sides, config.seed))
    metrics = (breach, *([unjudged] if few else []), *(check.metric for check in checks), *facts.metrics, *own)
    card = Scorecard(metrics=(*metrics, *_by_discriminator(dataset, realness, n)), notes=facts.notes)
    return Audit(card, _closest(synthetic, images["train"], likeness))


def _copies(
    likeness: Likeness, images: dict[str, np.ndarray], patients: np.ndarray, config: PrivacyConfig, n: dict[str, int]
) -> tuple[list[Check], Scorecard]:
    """The checks in pixels, and what real slices of other patients score; `patients`: of the held-out slices."""
    least, most = config.duplicate_correlation
    rows = np.random.default_rng(config.seed).permutation(len(patients))[:MOST_HELD_OUT]
    unseen = detail_correlation(images["held-out"][rows], images["train"]).correlation
    known = np.unique(patients[rows][unseen > most])
    notes: tuple[str, ...] = ()
    if 0 < len(known) <= max(1, MOST_TWICE * n["patients"]):
        notes = (
            f"{(unseen > most).sum()} held-out slices, of {len(known)} patients, are copies of training slices: "
            "perhaps the same person under two identifiers. What counts as a copy was set without these patients.",
        )
        unseen = unseen[~np.isin(patients[rows], known)]
    limit = min(max(float(unseen.max(initial=least)), least), most)
    how = f"bootstrap of synthetic slices ×{config.resamples}"
    duplicates, verbatim = (
        share_of(likeness.correlation > bound, config.resamples, config.seed) for bound in (limit, most)
    )
    checks = [
        Check(
            Metric.of("privacy/duplicates", duplicates, f"detail correlation above {limit:.3f}, {how}", n),
            duplicates.low > config.allowed_duplicates,
            f"up to {config.allowed_duplicates:g}",
        ),
        Check(
            Metric.of("privacy/verbatim", verbatim, f"detail correlation above {most:g}, {how}", n),
            verbatim.value > 0 and limit < most,
            "none" if limit < most else "any, since real slices of other patients come as near",
        ),
    ]
    floors = [
        Metric(
            name=f"privacy/{name}/floor",
            value=float((unseen > bound).mean()) if len(unseen) else 0.0,
            n=n,
            computed_with=f"detail correlation above {bound:.3f} of held-out slices",
        )
        for name, bound in (("duplicates", limit), ("verbatim", most))
    ]
    return checks, Scorecard(metrics=tuple(floors), notes=notes)


def _distances(apart: dict[str, np.ndarray], near: Estimate, config: PrivacyConfig, n: dict[str, int]) -> list[Check]:
    """The checks in lung features.

    Args:
        apart: distances N×P of synthetic slices to the nearest slice of each patient, of both sides.
        near: share of near slices.
    """
    ratio = distance_ratio(apart["train"], apart["held-out"], config.resamples, config.seed)
    membership = membership_auroc(apart["train"], apart["held-out"])
    members, others = (apart[side].min(axis=0) for side in ("train", "held-out"))
    unusual = patients_near(members, others, config.near_patients, config.resamples, config.seed)
    return [
        Check(
            Metric.of(
                "privacy/near",
                near,
                "nearest neighbours in lung features, percentile bootstrap of synthetic slices and held-out patients "
                f"×{config.resamples}",
                n,
            ),
            near.low > config.allowed_near,
            f"up to {config.allowed_near:g}",
        ),
        Check(
            Metric.of(
                "privacy/distance_ratio",
                ratio,
                "mean distance in lung features to train over that to as many held-out patients, percentile bootstrap "
                f"of synthetic slices and patients ×{config.resamples}",
                n,
            ),
            ratio.high < config.least_distance_ratio,
            f"from {config.least_distance_ratio:g} on",
        ),
        Check(
            Metric.of(
                "privacy/membership", membership, "AUROC of patients by their nearest synthetic slice, DeLong", n
            ),
            membership.low > config.allowed_membership,
            f"up to {config.allowed_membership:g}",
        ),
        Check(
            Metric.of(
                "privacy/patients_near",
                unusual,
                f"training patients nearer than {config.near_patients:g} % of held-out ones, percentile bootstrap of "
                f"patients ×{config.resamples}",
                n,
            ),
            unusual.low > config.allowed_patients,
            f"up to {config.allowed_patients:g}",
        ),
    ]


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


def _closest(synthetic: np.ndarray, train: np.ndarray, likeness: Likeness) -> np.ndarray:
    order = np.argsort(-likeness.correlation, kind="stable")[:PAIRS]
    return np.stack([synthetic[order], train[likeness.row[order]]], axis=1)
