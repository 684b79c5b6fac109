"""Distances between two sides of slices in feature space: FID and KID, with the resamples behind their intervals."""

from typing import NamedTuple

import numpy as np
import torch
from pydantic import Field
from torch_fidelity.metric_fid import KEY_METRIC_FID, fid_features_to_statistics, fid_statistics_to_metric
from torch_fidelity.metric_kid import kernel_poly

from lungsynth.config import Seed
from lungsynth.evaluation.features import FeaturesConfig
from lungsynth.evaluation.fidelity.sides import Images


class DistancesConfig(FeaturesConfig):
    """Subsets and resamples."""

    resamples: int = Field(
        100,
        ge=20,
        description="resamples of the bootstrap behind each interval [chosen here: each computes the distances anew]",
    )
    kid_subsets: int = Field(100, ge=1, description="subsets, random, that KID averages over [torch-fidelity]")
    kid_subset_size: int = Field(
        1000, ge=2, description="images in a subset, or all where there are fewer [torch-fidelity]"
    )
    seed: Seed = Field(0, description="seed of samples, subsets and resamples")


def fid(real: np.ndarray, other: np.ndarray) -> float:
    """Fréchet distance of features N×D (Heusel 2017), by torch-fidelity."""
    statistics = [fid_features_to_statistics(torch.from_numpy(side)) for side in (real, other)]
    return float(fid_statistics_to_metric(*statistics, verbose=False)[KEY_METRIC_FID])


class Kernels(NamedTuple):
    """KID's kernel between slices: within the real side N×N and the other M×M, 0 on the diagonals, and across N×M."""

    real: np.ndarray
    other: np.ndarray
    across: np.ndarray

    def distances(self, real: np.ndarray, other: np.ndarray) -> np.ndarray:
        """The unbiased squared distance of each of B resamples, B; no slice is compared with itself.

        Args:
            real: how often each real slice occurs in each resample, B×N.
            other: the same of the other side, B×M.
        """
        w, v = real.astype(float), other.astype(float)
        within = sum(
            ((u @ kernel) * u).sum(axis=1) / (u.sum(axis=1) ** 2 - (u * u).sum(axis=1))
            for u, kernel in ((w, self.real), (v, self.other))
        )
        result: np.ndarray = within - 2 * ((w @ self.across) * v).sum(axis=1) / (w.sum(axis=1) * v.sum(axis=1))
        return result


def kernels(real: np.ndarray, other: np.ndarray) -> Kernels:
    """The cubic kernel of features N×D and M×D (Bińkowski 2018, arXiv 1801.01401), by torch-fidelity."""
    x, y = real.astype(float), other.astype(float)
    found = Kernels(kernel_poly(x, x), kernel_poly(y, y), kernel_poly(x, y))
    for kernel in (found.real, found.other):
        np.fill_diagonal(kernel, 0)
    return found


def kid(found: Kernels, config: DistancesConfig) -> float:
    """KID: the mean over the random subsets of either side that torch-fidelity draws.

    The kernel is computed once; torch-fidelity computes it for each subset, which takes ten times as long.
    """
    counts = found.across.shape
    size = min(config.kid_subset_size, *counts)
    rng = np.random.RandomState(config.seed)
    chosen = np.zeros((config.kid_subsets, counts[0])), np.zeros((config.kid_subsets, counts[1]))
    for subset in range(config.kid_subsets):
        for side in (1, 0):  # torch-fidelity's first side is the synthetic one
            chosen[side][subset, rng.choice(counts[side], size, replace=False)] = 1
    return float(found.distances(*chosen).mean())


def fid_draws(real: Images, other: Images, config: DistancesConfig) -> np.ndarray:
    """FID of `config.resamples` bootstrap resamples of the clusters of both sides; only their spread means something.

    The trace of √(Σ₁Σ₂) comes from the symmetric √Σ₁Σ₂√Σ₁, which is quicker than torch-fidelity's general matrix.
    """
    sides = [torch.from_numpy(side.values).double() for side in (real, other)]
    times = [torch.from_numpy(weights).double() for weights in draw_weights(real, other, config)]
    draws = np.empty(config.resamples)
    for b in range(config.resamples):
        (mean, spread), (their_mean, theirs) = (_moments(x, w[b]) for x, w in zip(sides, times, strict=True))
        values, vectors = torch.linalg.eigh(spread)
        root = vectors * values.clamp(min=0).sqrt() @ vectors.T
        shared = torch.linalg.eigvalsh(root @ theirs @ root).clamp(min=0).sqrt().sum()
        draws[b] = (mean - their_mean).square().sum() + spread.trace() + theirs.trace() - 2 * shared
    return draws


def kid_draws(found: Kernels, real: Images, other: Images, *, config: DistancesConfig) -> np.ndarray:
    """KID of as many bootstrap resamples as in `fid_draws`; only their spread means something."""
    return found.distances(*draw_weights(real, other, config))


def draw_weights(real: Images, other: Images, config: DistancesConfig) -> tuple[np.ndarray, np.ndarray]:
    """How often each slice of either side occurs in each resample, B×N and B×M.

    The real side's resamples follow from the seed alone: synthetic and held-out slices are compared with the same ones.
    """
    return real.weights(config.resamples, (config.seed, 0)), other.weights(config.resamples, (config.seed, 1))


def _moments(features: torch.Tensor, weights: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Mean D and covariance D×D of features N×D, where each row occurs as often as `weights` N says."""
    mean = weights @ features / weights.sum()
    apart = features - mean
    return mean, (apart * weights[:, None]).T @ apart / (weights.sum() - 1)
