"""Near-duplicates, found in pixels, also where a copy is shifted, mirrored, slightly turned or zoomed, or noisy."""

import math
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from lungsynth.cpus import side_by_side

SEARCH_SIZE = 16  # pixels; slices this small still tell anatomy apart and forgive noise, small turns and zooms
SPECTRUM_SIZE = 32  # pixels; how strong each frequency is in slices this small forgives shifts and mirroring
CANDIDATES = 8  # nearest training slices, by either of these, which are then compared in full
COMPARE_SIZE = 64  # pixels; finer detail is mostly scanner noise
KNEE = 8.0  # grey levels, of 255: detail much above it counts as little more than this
SHIFT = 8  # pixels at the compare size, in each direction
CLOSEST = 2  # candidates with which the slice is compared turned and zoomed as well
TURNS = (-4.0, -2.0, 2.0, 4.0)  # degrees
ZOOMS = (0.95, 0.975, 1.025, 1.05)
SHIFTS = torch.arange(-SHIFT, SHIFT + 1) % COMPARE_SIZE
INNER = COMPARE_SIZE - 2 * SHIFT
PIECE = 32
"""Slices that are compared at once."""


class Likeness(NamedTuple):
    """For each slice, the greatest detail correlation with a training slice, float32 N, -1 to 1, and its row."""

    correlation: np.ndarray
    row: np.ndarray


def detail_correlation(images: np.ndarray, train: np.ndarray) -> Likeness:
    """The greatest correlation of the detail in the middle of each slice with that of some training slice.

    It searches all shifts within ±`SHIFT` px, mirrored or not; then the turns of `TURNS` about the centre, then the
    zooms of `ZOOMS`. Detail is what a 7×7 mean removes and a 3×3 mean keeps: this leaves out noise, and the anatomy
    that all chests share. It is compressed: otherwise skin and pleura, which are alike in everyone, would outweigh the
    vessels, which tell patients apart.

    Args:
        images: uint8 N×H×W.
        train: uint8 M×H×W.
    """
    originals = _originals(train)
    pieces = (images[start : start + PIECE] for start in range(0, len(images), PIECE))
    found = side_by_side(lambda piece: _most_alike(piece, originals), pieces)
    return Likeness(*(torch.cat(part).numpy() for part in zip(*found, strict=True)))


class _Originals(NamedTuple):
    """M training slices, as they are compared: their pixels and spectra, for the search, and their detail."""

    pixels: Tensor
    """M×D, and so are the spectra."""
    spectra: Tensor
    detail: Tensor
    """M×H×H at the compare size."""
    strength: Tensor
    """M×S×S: norm of the detail, its mean subtracted, in the window that the middle of a slice covers at each shift."""


def _originals(train: np.ndarray) -> _Originals:
    detail = _detail(_pooled(train, COMPARE_SIZE))
    window = torch.ones(2 * SHIFT + 1, COMPARE_SIZE).tril(INNER - 1).triu() / INNER
    mean, square = (window @ part @ window.T for part in (detail, detail.square()))
    strength = ((square - mean.square()) * INNER**2).clamp(min=1e-6).sqrt()
    return _Originals(_pooled(train, SEARCH_SIZE).flatten(1), _spectra(train), detail, strength)


def _most_alike(images: np.ndarray, originals: _Originals) -> tuple[Tensor, Tensor]:
    """For each slice, the correlation with the training slice that is most like it, and that slice's row."""
    slices = _pooled(images, COMPARE_SIZE)
    rows = torch.cat([
        _nearest(_pooled(images, SEARCH_SIZE).flatten(1), originals.pixels),
        _nearest(_spectra(images), originals.spectra),
    ], dim=1)  # fmt: skip
    poses = torch.stack([slices, slices.flip(-1)], dim=1)
    found = _correlation(poses[:, :, None], originals, rows[:, None])  # N×2×candidates
    place = found.flatten(1).topk(min(CLOSEST, found[0].numel())).indices
    mirrored, candidate = place // rows.shape[1], place % rows.shape[1]
    rows = rows.gather(1, candidate)
    pose = poses[torch.arange(len(poses))[:, None], mirrored]  # N×K×H×H, each as it fits its candidate best
    for turns, zooms in (((0.0, *TURNS), (1.0,)), ((0.0,), (1.0, *ZOOMS))):
        turned = _turned(pose, turns, zooms)  # N×K×poses×H×H
        found = _correlation(turned, originals, rows[:, :, None])
        best, which = found.max(dim=2)
        pose = turned.gather(2, which[:, :, None, None, None].expand(-1, -1, 1, *turned.shape[-2:]))[:, :, 0]
    greatest = best.max(dim=1)
    return greatest.values, rows.gather(1, greatest.indices[:, None])[:, 0]


def _correlation(slices: Tensor, originals: _Originals, rows: Tensor) -> Tensor:
    """Greatest correlation over all shifts of slices …×H×H with the training slices in `rows` …, as many or 1."""
    middle = _detail(slices.flatten(0, -3)).view(slices.shape)[..., SHIFT:-SHIFT, SHIFT:-SHIFT]
    middle = middle - middle.mean((-2, -1), keepdim=True)
    middle = middle / middle.flatten(-2).norm(dim=-1).clamp(min=1e-6)[..., None, None]
    spectrum = torch.fft.rfft2(F.pad(middle, (SHIFT,) * 4)).conj()
    products = torch.fft.irfft2(spectrum * torch.fft.rfft2(originals.detail[rows]), s=(COMPARE_SIZE,) * 2)
    shifted = products[..., SHIFTS, :][..., SHIFTS]
    result: Tensor = (shifted / originals.strength[rows]).flatten(-2).amax(dim=-1)
    return result


def _nearest(slices: Tensor, originals: Tensor) -> Tensor:
    """Rows N×K of the nearest `originals`."""
    return torch.cdist(slices, originals).topk(min(CANDIDATES, len(originals)), largest=False).indices


def _spectra(images: np.ndarray) -> Tensor:
    """Logarithms of the amplitudes of all frequencies, N×D; those of a slice and its mirror image are the same."""
    small = _pooled(images, SPECTRUM_SIZE)
    amplitude = torch.fft.rfft2(small - small.mean((1, 2), keepdim=True)).abs()
    mirrored = amplitude.flip(1).roll(1, dims=1)  # the frequency of row k is that of row -k, seen in a mirror
    result: Tensor = ((amplitude + mirrored) / 2 + 1).log().flatten(1)
    return result


def _turned(slices: Tensor, turns: tuple[float, ...], zooms: tuple[float, ...]) -> Tensor:
    """Slices N×K×H×H in every pose, N×K×P×H×H; the border is repeated outwards."""
    count, side = slices.shape[:2].numel(), slices.shape[-1]
    poses = []
    for turn in turns:
        for zoom in zooms:
            cos, sin = math.cos(math.radians(turn)) / zoom, math.sin(math.radians(turn)) / zoom
            place = torch.tensor([[cos, -sin, 0.0], [sin, cos, 0.0]]).expand(count, 2, 3)
            grid = F.affine_grid(place, [count, 1, side, side], align_corners=False)
            flat = slices.reshape(count, 1, side, side)
            poses.append(F.grid_sample(flat, grid, padding_mode="border", align_corners=False).view_as(slices))
    return torch.stack(poses, dim=2)


def _pooled(images: np.ndarray, size: int) -> Tensor:
    pieces = [images[start : start + 512] for start in range(0, len(images), 512)]
    return torch.cat([F.adaptive_avg_pool2d(torch.from_numpy(np.array(p)).float(), size) for p in pieces])


def _detail(images: Tensor) -> Tensor:
    fine, coarse = (_around(side) @ images @ _around(side).T for side in (3, 7))
    return (fine - coarse) / ((fine - coarse).abs() + KNEE)


def _around(side: int) -> Tensor:
    """The matrix that averages `side` pixels around each, fewer at the edge. Pooling layers take far longer."""
    near = torch.ones(COMPARE_SIZE, COMPARE_SIZE).tril(side // 2).triu(-(side // 2))
    return near / near.sum(dim=1, keepdim=True)
