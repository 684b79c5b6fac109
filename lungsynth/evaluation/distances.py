"""Distances between two sides of slices in feature space: FID and KID, with the resamples behind their intervals."""

import numpy as np
import torch
from pydantic import Field
from torch_fidelity.metric_fid import KEY_METRIC_FID, fid_features_to_statistics, fid_statistics_to_metric
from torch_fidelity.metric_kid import KEY_METRIC_KID_MEAN, kernel_poly, kid_features_to_metric

from lungsynth.evaluation.features import FeaturesConfig
from lungsynth.evaluation.sides import Images


class DistancesConfig(FeaturesConfig):
    """Subsets and resamples."""

    resamples: int = Field(100, ge=20, description="bootstrap resamples behind each interval")
    kid_subsets: int = Field(100, ge=1, description="random subsets that KID averages over; 100 as in torch-fidelity")
    kid_subset_size: int = Field(
        1000, ge=2, description="images in a subset, or all where there are fewer; 1000 as in torch-fidelity"
    )
    seed: int = Field(0, ge=0, description="of samples, subsets and resamples")


def fid(real: np.ndarray, other: np.ndarray) -> float:
    """Fréchet distance of features N×D (Heusel 2017), by torch-fidelity."""
    statistics = [fid_features_to_statistics(torch.from_numpy(side)) for side in (real, other)]
    return float(fid_statistics_to_metric(*statistics, verbose=False)[KEY_METRIC_FID])


def kid(real: np.ndarray, other: np.ndarray, config: DistancesConfig) -> float:
    """Kernel distance of features N×D (Bińkowski 2018), unbiased at any size, by torch-fidelity."""
    sides = [torch.from_numpy(side) for side in (other, real)]
    size = min(config.kid_subset_size, len(real), len(other))
    found = kid_features_to_metric(
        *sides, kid_subsets=config.kid_subsets, kid_subset_size=size, rng_seed=config.seed, verbose=False
    )
    return float(found[KEY_METRIC_KID_MEAN])


def fid_draws(real: Images, other: Images, config: DistancesConfig) -> np.ndarray:
    """FID of each of `config.resamples` bootstrap resamples of the clusters of both sides; take their spread alone.

    The trace of √(Σ₁Σ₂) is taken from the symmetric √Σ₁Σ₂√Σ₁, which is quicker than torch-fidelity's general matrix.
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


def kid_draws(real: Images, other: Images, config: DistancesConfig) -> np.ndarray:
    """KID of each of `config.resamples` bootstrap resamples of the clusters of both sides; take their spread alone."""
    kernels = [kernel_poly(a.values, b.values) for a, b in ((real, real), (other, other), (real, other))]
    for kernel in kernels[:2]:
        np.fill_diagonal(kernel, 0)  # a slice drawn twice must not meet itself
    w, v = (weights.astype(kernels[0].dtype) for weights in draw_weights(real, other, config))
    within = sum(
        ((u @ k) * u).sum(axis=1) / (u.sum(axis=1) ** 2 - (u * u).sum(axis=1))
        for u, k in zip((w, v), kernels, strict=False)
    )
    return within - 2 * ((w @ kernels[2]) * v).sum(axis=1) / (w.sum(axis=1) * v.sum(axis=1))


def draw_weights(real: Images, other: Images, config: DistancesConfig) -> tuple[np.ndarray, np.ndarray]:
    """How often each slice of either side comes in each resample, B×N and B×M.

    The real side's follow from the seed alone: two others are compared with the same resamples of it.
    """
    return real.weights(config.resamples, (config.seed, 0)), other.weights(config.resamples, (config.seed, 1))


def _moments(features: torch.Tensor, weights: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Mean D and covariance D×D of features N×D that come so often."""
    mean = weights @ features / weights.sum()
    apart = features - mean
    return mean, (apart * weights[:, None]).T @ apart / (weights.sum() - 1)
