"""How close synthetic slices lie to the patients whom the generator saw, against patients whom it did not see."""

from typing import NamedTuple

import numpy as np
import torch

from lungsynth.evaluation.statistics import Estimate, delong, percentile_interval

PIECE = 256
"""Slices whose distances are held in memory at once."""


class Side(NamedTuple):
    """Features N×D of slices, and the patient codes N that they belong to, from 0 to P-1."""

    features: np.ndarray
    patients: np.ndarray

    @property
    def patient_count(self) -> int:
        """P."""
        return int(self.patients.max()) + 1


def nearest_by_patient(features: np.ndarray, real: Side) -> np.ndarray:
    """Distance float32 N×P of each of the N features to the nearest slice of each patient, in the order of codes."""
    order = np.argsort(real.patients, kind="stable")
    starts = np.unique(real.patients[order], return_index=True)[1]
    target = torch.from_numpy(real.features[order])
    pieces = [torch.cdist(piece, target).numpy() for piece in torch.from_numpy(features).split(PIECE)]
    return np.concatenate([np.minimum.reduceat(piece, starts, axis=1) for piece in pieces])


def distance_ratio(members: np.ndarray, others: np.ndarray, *, resamples: int, seed: int) -> Estimate:
    """Mean distance to the nearest training slice over that to the nearest held-out one; about 1 where nobody is near.

    Each draw takes as many patients of either side, with replacement, since among more patients one is nearer by chance
    alone. The value is the median of the draws.

    Args:
        members: N×P distances of synthetic slices to the nearest slice of each patient of `train`.
        others: N×Q, the same of held-out patients.
    """
    rng = np.random.default_rng(seed)
    count = min(members.shape[1], others.shape[1])
    draws = np.empty(resamples)
    for b in range(resamples):
        rows = rng.integers(len(members), size=len(members))
        near = [side[:, rng.integers(side.shape[1], size=count)].min(axis=1)[rows].mean() for side in (members, others)]
        draws[b] = near[0] / near[1]
    return percentile_interval(float(np.median(draws)), draws)


def membership_auroc(members: np.ndarray, others: np.ndarray) -> Estimate:
    """AUROC, with DeLong's interval, of an attacker who tells training patients by their nearest synthetic slice.

    Arguments as in `distance_ratio`; the attack is that of Chen et al. (arXiv 1909.03935).
    """
    return attack_auroc(-members.min(axis=0), -others.min(axis=0))


def attack_auroc(members: np.ndarray, others: np.ndarray) -> Estimate:
    """AUROC, with DeLong's interval, of an attacker who takes patients with high scores for training patients.

    Args:
        members: scores P of training patients; `others`: Q of held-out ones.
    """
    scores = np.concatenate([members, others])
    trained = np.arange(len(scores)) < len(members)
    beyond = delong(scores[None], np.zeros((1, len(scores))), trained.astype(int), patients=np.arange(len(scores)))
    return Estimate(0.5 + beyond.value, max(0.0, 0.5 + beyond.low), min(1.0, 0.5 + beyond.high), beyond.se)


class Nearest(NamedTuple):
    """Of each slice the distance to the nearest training slice, float32 N, and which one it is."""

    distance: np.ndarray
    row: np.ndarray


def nearest(features: np.ndarray, train: Side) -> Nearest:
    """The training slice nearest to each of N features."""
    target = torch.from_numpy(train.features)
    found = [torch.cdist(piece, target).min(dim=1) for piece in torch.from_numpy(features).split(PIECE)]
    return Nearest(*(torch.cat(part).numpy() for part in zip(*found, strict=True)))


def near_share(
    synthetic: np.ndarray, held_out: np.ndarray, patients: np.ndarray, *, percentile: float, resamples: int, seed: int
) -> Estimate:
    """Share of synthetic slices nearer to a training slice than all but `percentile` % of held-out slices are.

    Args:
        synthetic: distances N to the nearest training slice; `held_out`: the same M, of `patients` M.
    """
    rng = np.random.default_rng(seed)
    count = patients.max() + 1
    draws = np.empty(resamples)
    for b in range(resamples):
        times = rng.multinomial(count, np.full(count, 1 / count))[patients]
        threshold = np.percentile(np.repeat(held_out, times), percentile)
        draws[b] = np.mean(synthetic[rng.integers(len(synthetic), size=len(synthetic))] < threshold)
    return percentile_interval(float(np.mean(synthetic < np.percentile(held_out, percentile))), draws)


def proportion(hits: np.ndarray, resamples: int, seed: int) -> Estimate:
    """Share of true values among `hits`, bool N, one for each slice. The bootstrap resamples slices, not patients."""
    picks = np.random.default_rng(seed).integers(len(hits), size=(resamples, len(hits)))
    return percentile_interval(float(hits.mean()), hits[picks].mean(axis=1))


def patients_near(members: np.ndarray, others: np.ndarray, percentile: float, *, resamples: int, seed: int) -> Estimate:
    """Share of training patients whose nearest synthetic slice is nearer than that of `percentile` % of held-out ones.

    Args:
        members: distances P of training patients to their nearest synthetic slice; `others`: Q of held-out ones.
    """
    rng = np.random.default_rng(seed)

    def share(trained: np.ndarray, unseen: np.ndarray) -> float:
        return float(np.mean(trained < np.percentile(unseen, percentile)))

    draws = [share(rng.choice(members, len(members)), rng.choice(others, len(others))) for _ in range(resamples)]
    return percentile_interval(share(members, others), np.array(draws))


def authentic(found: Nearest, train: Side) -> np.ndarray:
    """Which slices, bool N, are authentic (Alaa et al., arXiv 2102.08921): no noised copies of a training slice.

    A slice is authentic if its nearest training slice lies nearer to a training slice of another patient than to it.
    Alaa compares with the nearest training slice of all. But neighbouring slices of one scan are so alike that every
    copy would count as authentic.

    Args:
        found: the nearest training slice of each.
    """
    target = torch.from_numpy(train.features)
    unique, places = np.unique(found.row, return_inverse=True)
    apart = np.empty(len(unique), np.float32)
    for start in range(0, len(unique), PIECE):
        piece = unique[start : start + PIECE]
        between = torch.cdist(target[piece], target).numpy()
        between[train.patients[piece][:, None] == train.patients] = np.inf
        apart[start : start + PIECE] = between.min(axis=1)
    return found.distance > apart[places]
