"""Whether a generator covers what is real: manifolds of neighbours, modes, and how alike slices of a class are."""

from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from sklearn.cluster import KMeans
from torch import Tensor

PRC_NEIGHBOURS = 3  # as in torch-fidelity and in Kynkäänniemi (arXiv 1904.06991)
COVERAGE_NEIGHBOURS = 5  # Naeem (arXiv 2002.09797)
SLICES_PER_MODE = 10
"""That many synthetic slices fall into a mode on average, so that a faithful generator hardly misses one by chance."""
WINDOW, WINDOW_SD = 11, 1.5  # pixels; SSIM's Gaussian (Wang 2004, doi:10.1109/TIP.2003.819861)
SCALE_WEIGHTS = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)  # Wang 2003, doi:10.1109/ACSSC.2003.1292216
SSIM_CONSTANTS = ((0.01 * 255) ** 2, (0.03 * 255) ** 2)


class Manifold(NamedTuple):
    """What each sample says; the measures are the means. Of N real and M synthetic slices."""

    precision: np.ndarray
    """M of 0 and 1: within the reach of a real slice."""
    recall: np.ndarray
    """N of 0 and 1: within the reach of a synthetic slice."""
    density: np.ndarray
    """M ≥ 0: of how many real slices it is within reach, over `COVERAGE_NEIGHBOURS`."""
    coverage: np.ndarray
    """N of 0 and 1: has a synthetic slice within its reach."""


def manifold(real: np.ndarray, synthetic: np.ndarray) -> Manifold:
    """Precision and recall (Kynkäänniemi 2019), density and coverage (Naeem 2020) of features N×D and M×D.

    A slice reaches as far as its third nearest neighbour among its like; for density and coverage, the fifth.
    """
    r, s = torch.from_numpy(real), torch.from_numpy(synthetic)
    between = torch.cdist(r, s)
    reach = _reach(r, COVERAGE_NEIGHBOURS)[:, None]
    return Manifold(
        precision=(between <= _reach(r, PRC_NEIGHBOURS)[:, None]).any(dim=0).numpy(),
        recall=(between <= _reach(s, PRC_NEIGHBOURS)).any(dim=1).numpy(),
        density=((between < reach).sum(dim=0) / COVERAGE_NEIGHBOURS).numpy(),
        coverage=(between.amin(dim=1) < reach[:, 0]).numpy(),
    )


def modes_of(real: np.ndarray, synthetic: np.ndarray, seed: int) -> tuple[np.ndarray, int]:
    """The mode of each synthetic slice, M, and how many there are: k-means cells of the features of real slices."""
    count = max(2, min(len(synthetic) // SLICES_PER_MODE, len(real) // 2))
    cells = KMeans(count, n_init=1, random_state=seed).fit(real)
    return cells.predict(synthetic), count


def share_hit(modes: np.ndarray, count: int) -> float:
    """Share of `count` modes that occur."""
    return len(np.unique(modes)) / count


def ms_ssim(images: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Multi-scale structural similarity, N, of uint8 slices N×H×W and others: 1 where they are the same.

    Of the five published scales those are used that SSIM's window fits into, with their weights scaled up to 1.
    """
    x, y = (torch.from_numpy(np.ascontiguousarray(side))[:, None].float() for side in (images, others))
    scales = min(len(SCALE_WEIGHTS), int(np.log2(x.shape[-1] / WINDOW)) + 1)
    weights = np.array(SCALE_WEIGHTS[:scales]) / sum(SCALE_WEIGHTS[:scales])
    product = torch.ones(len(x))
    for scale, weight in enumerate(weights):
        luminance, contrast = _ssim_parts(x, y)
        last = scale == scales - 1
        value = (luminance * contrast if last else contrast).mean(dim=(1, 2, 3))
        product = product * value.clamp(min=0) ** weight
        x, y = F.avg_pool2d(x, 2), F.avg_pool2d(y, 2)
    return product.numpy()


def _ssim_parts(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """Luminance, and contrast times structure, of N×1×H×W at every place that the window fits."""
    places = torch.arange(WINDOW, dtype=x.dtype) - WINDOW // 2
    window = torch.exp(-places.square() / (2 * WINDOW_SD**2))
    column = (window / window.sum())[None, None, :, None]
    sides = torch.cat([x, y, x * x, y * y, x * y])
    mean_x, mean_y, xx, yy, xy = F.conv2d(F.conv2d(sides, column), column.mT).chunk(5)
    first, second = SSIM_CONSTANTS
    luminance = (2 * mean_x * mean_y + first) / (mean_x.square() + mean_y.square() + first)
    spread = xx - mean_x.square() + yy - mean_y.square()
    return luminance, (2 * (xy - mean_x * mean_y) + second) / (spread + second)


def _reach(features: Tensor, neighbours: int) -> Tensor:
    """Distance of each of N to its nearest neighbour of this order, itself not counted."""
    return torch.cdist(features, features).kthvalue(min(neighbours + 1, len(features))).values
