"""Near-duplicates, found in pixels: shifts of a few pixels, noise and changes of brightness do not hide a copy."""

from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

SEARCH_SIZE = 16  # pixels; slices this small still tell anatomy apart and forgive noise and small shifts
CANDIDATES = 16  # nearest training slices at the search size, which are then compared in full
COMPARE_SIZE = 64  # pixels; finer detail is mostly scanner noise
KNEE = 8.0  # grey levels, of 255: detail much above it counts as little more than this
SHIFT = 2  # pixels at the compare size, in each direction


class Likeness(NamedTuple):
    """Of each slice the greatest detail correlation with a training slice, float32 N, -1 to 1, and which one it is."""

    correlation: np.ndarray
    row: np.ndarray


def detail_correlation(images: np.ndarray, train: np.ndarray) -> Likeness:
    """How well each slice's detail is found in some training slice: greatest correlation within ±`SHIFT` px.

    Detail is what a 7×7 mean removes and a 3×3 mean keeps: anatomy that all chests share is gone, so is noise. It is
    compressed, for else skin and pleura, alike in all, would outweigh the vessels, which tell patients apart.
    Both are uint8 N×H×W.
    """
    small = _pooled(train, SEARCH_SIZE).flatten(1)
    detail = _detail(_pooled(train, COMPARE_SIZE))
    correlations, rows = [], []
    for start in range(0, len(images), 32):
        piece = images[start : start + 32]
        apart = torch.cdist(_pooled(piece, SEARCH_SIZE).flatten(1), small)
        candidates = apart.topk(min(CANDIDATES, len(train)), largest=False).indices
        near = detail[candidates]
        mine = _unit(_detail(_pooled(piece, COMPARE_SIZE))[:, SHIFT:-SHIFT, SHIFT:-SHIFT])
        best = torch.full(candidates.shape, -1.0)
        side = COMPARE_SIZE - 2 * SHIFT
        for y in range(2 * SHIFT + 1):
            for x in range(2 * SHIFT + 1):
                theirs = _unit(near[..., y : y + side, x : x + side])
                best = torch.maximum(best, torch.einsum("nkd,nd->nk", theirs, mine))
        greatest = best.max(dim=1)
        correlations.append(greatest.values.numpy())
        rows.append(candidates.gather(1, greatest.indices[:, None])[:, 0].numpy())
    return Likeness(np.concatenate(correlations), np.concatenate(rows))


def _pooled(images: np.ndarray, size: int) -> Tensor:
    pieces = [images[start : start + 512] for start in range(0, len(images), 512)]
    return torch.cat([F.adaptive_avg_pool2d(torch.from_numpy(np.array(p)).float(), size) for p in pieces])


def _detail(images: Tensor) -> Tensor:
    fine, coarse = (F.avg_pool2d(images[:, None], k, 1, k // 2, count_include_pad=False) for k in (3, 7))
    detail = (fine - coarse)[:, 0]
    return detail / (detail.abs() + KNEE)


def _unit(images: Tensor) -> Tensor:
    flat = images.flatten(-2)
    flat = flat - flat.mean(-1, keepdim=True)
    return F.normalize(flat, dim=-1)
