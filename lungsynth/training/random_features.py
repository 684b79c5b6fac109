"""Features of slices from a network with random weights, and scores of them, to monitor a run.

Naeem et al., arXiv 2002.09797, advise random networks for images far from ImageNet; they need no download and no
training. The scores compare moments of one run only: the fidelity step has extractors of its own.
"""

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lungsynth.intensity import to_network

WIDTHS = (16, 32, 48, 64, 96)
"""Channels of each scale: full resolution, a half, a quarter and so on."""
SIDE = 64
"""Pixels a side after the first layer, at most, so that the cost does not grow with the slices."""
BATCH = 32
"""Slices in one pass; more no longer fit a CPU's cache."""
LIMIT = 3.0
"""Standard deviations of real slices that a scaled feature approaches, and does not exceed."""


def filters(size: int, device: torch.device) -> list[Tensor]:
    """The network for slices of `size` pixels a side: a layer for each scale; its weights are always the same.

    The first layer has a stride where slices are larger than `SIDE`. Three in four of its filters sum to zero: without
    these, brightness would dominate features, and noise, blur and checkerboards would hardly change them.
    """
    rng = torch.Generator().manual_seed(0)
    stride = math.ceil(size / SIDE)
    sides = (stride + 2, *[3] * (len(WIDTHS) - 1))
    layers = []
    for before, width, side in zip((1, *WIDTHS), WIDTHS, sides, strict=False):
        layers.append(nn.init.orthogonal_(torch.empty(width, before, side, side), math.sqrt(2), rng))
    layers[0][WIDTHS[0] // 4 :] -= layers[0][WIDTHS[0] // 4 :].mean(dim=(1, 2, 3), keepdim=True)
    return [layer.to(device, memory_format=torch.channels_last) for layer in layers]


@torch.inference_mode()
def features(images: np.ndarray, network: list[Tensor]) -> np.ndarray:
    """Features float32 N×2·ΣWIDTHS of slices uint8 N×1×H×W: mean and standard deviation of each channel of `filters`.

    Means alone do not see texture; features with a position would change with each shift of the body.
    """
    parts = [_statistics(batch, network).cpu() for batch in torch.from_numpy(images).split(BATCH)]
    return torch.cat(parts).numpy()


def _statistics(images: Tensor, network: list[Tensor]) -> Tensor:
    x = to_network(images.to(network[0].device, memory_format=torch.channels_last))
    stride = network[0].shape[-1] - 2
    moments = []
    for number, layer in enumerate(network):
        if number and min(x.shape[2:]) > 1:
            x = F.avg_pool2d(x, 2)
        x = F.leaky_relu(F.conv2d(x, layer, stride=1 if number else stride, padding=1), 0.2)
        mean = x.mean(dim=(2, 3))
        moments += [mean, (x.square().mean(dim=(2, 3)) - mean.square()).clamp_min(0).sqrt()]
    return torch.cat(moments, dim=1)


@dataclass(frozen=True)
class Scale:
    """Scales features of a random network so that real slices have mean 0 and standard deviation 1 in each.

    Values far outside are compressed smoothly to `LIMIT` deviations at most. Otherwise the kernel's third power would
    let the worst features of an untrained generator outweigh all others.
    """

    mean: np.ndarray
    deviation: np.ndarray

    @classmethod
    def of(cls, real: np.ndarray) -> "Scale":
        """That of features N×D."""
        return cls(real.mean(axis=0), real.std(axis=0) + 1e-6)

    def __call__(self, features: np.ndarray) -> np.ndarray:
        """Features N×D on this scale."""
        scaled = (features - self.mean) / self.deviation
        result: np.ndarray = scaled / np.sqrt(1 + np.square(scaled / LIMIT))
        return result


def squared_mmd(one: np.ndarray, other: np.ndarray) -> float:
    """The squared maximum mean discrepancy between features N×D and M×D, without bias: about 0 for the same source.

    The kernel is that of KID, (x·y/D + 1)³ (Bińkowski et al., arXiv 1801.01401, section 4).
    """
    one, other = one.astype(np.float64), other.astype(np.float64)
    within = sum(_without_diagonal(_kernel(x, x)) for x in (one, other))
    return float(within - 2 * _kernel(one, other).mean())


def _kernel(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    result: np.ndarray = (x @ y.T / x.shape[1] + 1) ** 3
    return result


def _without_diagonal(matrix: np.ndarray) -> float:
    """Mean of a square matrix, its diagonal left out."""
    count = len(matrix)
    return float((matrix.sum() - np.trace(matrix)) / (count * (count - 1)))


def vendi(features: np.ndarray, width: float) -> float:
    """The effective number of different slices among N×D, from 1 to N (Vendi score, arXiv 2210.02410).

    `width` is that of the Gaussian kernel: slices much closer to each other than that count as one.
    """
    similarity = np.exp(-squared_distances(features) / (2 * width**2))
    eigenvalues = np.linalg.eigvalsh(similarity / len(features))
    eigenvalues = eigenvalues[eigenvalues > 0]
    return float(np.exp(-(eigenvalues * np.log(eigenvalues)).sum()))


def squared_distances(features: np.ndarray) -> np.ndarray:
    """Float64 N×N, between each two of `features` N×D."""
    x = features.astype(np.float64)
    squares = np.square(x).sum(axis=1)
    result: np.ndarray = (squares[:, None] + squares - 2 * x @ x.T).clip(min=0)
    return result
