"""How close synthetic slices lie to the patients whom the generator saw, against patients whom it did not see."""

from typing import NamedTuple

import numpy as np
import torch

from lungsynth.evaluation.statistics import Estimate, delong, percentile_interval

PIECE = 256
"""Slices whose distances are held in memory at once."""


class Side(NamedTuple):
    """Features N×D of slices, and the patient codes N that they belong to."""

    features: np.ndarray
    patients: np.ndarray


def nearest_by_patient(features: np.ndarray, real: Side) -> np.ndarray:
    """Distance float32 N×P of each of the N features to the nearest slice of each patient, in the order of codes."""
    order = np.argsort(real.patients, kind="stable")
    starts = np.unique(real.patients[order], return_index=True)[1]
    target = torch.from_numpy(real.features[order])
    pieces = [torch.cdist(piece, target).numpy() for piece in torch.from_numpy(features).split(PIECE)]
    return np.concatenate([np.minimum.reduceat(piece, starts, axis=1) for piece in pieces])


def distance_ratio(members: np.ndarray, others: np.ndarray, resamples: int, seed: int) -> Estimate:
    """Mean distance to the nearest training slice over that to the nearest held-out one; about 1 where nobody is near.

    Of both sides as many patients are drawn, with replacement, for among more patients one is nearer by chance alone;
    the value is the median of the draws.

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
    """How well an attacker tells who was trained on: AUROC of patients by the distance of the nearest synthetic slice.

    The interval is DeLong's. Arguments as in `distance_ratio`; the attack is that of Chen et al. (arXiv 1909.03935).
    """
    return attack_auroc(-members.min(axis=0), -others.min(axis=0))


def attack_auroc(members: np.ndarray, others: np.ndarray) -> Estimate:
    """AUROC, with DeLong's interval, of an attacker who takes patients of high scores for trained on (P, Q scores)."""
    scores = np.concatenate([members, others])
    trained = np.arange(len(scores)) < len(members)
    beyond = delong(scores[None], np.zeros((1, len(scores))), trained.astype(int), np.arange(len(scores)))
    return Estimate(0.5 + beyond.value, max(0.0, 0.5 + beyond.low), min(1.0, 0.5 + beyond.high), beyond.se)


def authentic(features: np.ndarray, train: Side) -> np.ndarray:
    """Which of these slices, N, are authentic (Alaa et al., arXiv 2102.08921): no noised copies of a training slice.

    One is, if its nearest training slice lies nearer to a slice of some other patient than to it. Alaa compares with
    the nearest of all; neighbouring slices of one scan would make every copy authentic.
    """
    target = torch.from_numpy(train.features)
    found = [torch.cdist(piece, target).min(dim=1) for piece in torch.from_numpy(features).split(PIECE)]
    distance = np.concatenate([piece.values.numpy() for piece in found])
    rows = np.concatenate([piece.indices.numpy() for piece in found])
    unique, places = np.unique(rows, return_inverse=True)
    apart = np.empty(len(unique), np.float32)
    for start in range(0, len(unique), PIECE):
        piece = unique[start : start + PIECE]
        between = torch.cdist(target[piece], target).numpy()
        between[train.patients[piece][:, None] == train.patients] = np.inf
        apart[start : start + PIECE] = between.min(axis=1)
    return distance > apart[places]
