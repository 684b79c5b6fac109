"""Resampling: the filter it is, and its gradients."""

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from lungsynth.generators.layers import blur, downsample, upsample


def low_pass(x: Tensor) -> Tensor:
    """[1, 3, 3, 1]/8 in both directions, the border repeated outwards, at every second pixel."""
    taps = torch.tensor([1.0, 3, 3, 1], dtype=x.dtype) / 8
    kernel = torch.outer(taps, taps).expand(x.shape[1], 1, 4, 4)
    return F.conv2d(F.pad(x, (1, 1, 1, 1), mode="replicate"), kernel, stride=2, groups=x.shape[1])


def test_downsampling_is_the_low_pass_filter():
    x = torch.randn(2, 3, 8, 12, dtype=torch.double)
    torch.testing.assert_close(downsample(x), low_pass(x))


def test_upsampling_is_the_low_pass_filter_backwards():
    x, y = torch.randn(2, 3, 4, 6, dtype=torch.double), torch.randn(2, 3, 8, 12, dtype=torch.double)
    torch.testing.assert_close((upsample(x) * y).sum(), 4 * (x * downsample(y)).sum())


def test_resampling_by_hand():
    def rows(*values):
        return torch.tensor(values)[:, None].expand(-1, 4)[None, None]

    # Between two pixels a quarter of the way; between four at 1, 3, 3, 1 eighths; the border repeated.
    assert upsample(rows(0.0, 4, 8))[0, 0, :, 1].tolist() == [0, 1, 3, 5, 7, 8]
    assert downsample(rows(0.0, 0, 8, 16, 0, 0))[0, 0, :, 1].tolist() == [1, 9, 2]
    assert blur(rows(0.0, 0, 8, 0, 0), padding=2, gain=2)[0, 0, :, 2].tolist() == [0, 2, 6, 6, 2, 0]


@pytest.mark.parametrize("resample", [upsample, downsample, lambda x: blur(x, padding=2)])
def test_resampling_treats_channels_alike_and_rows_as_columns(resample):
    x = torch.randn(2, 3, 6, 6)
    torch.testing.assert_close(resample(x)[:, 1:2], resample(x[:, 1:2]))
    torch.testing.assert_close(resample(x.mT), resample(x).mT)


@pytest.mark.parametrize("resample", [upsample, downsample])
def test_resampling_keeps_an_even_picture_even(resample):
    assert torch.equal(resample(torch.full((1, 2, 8, 8), 0.75)).unique(), torch.tensor([0.75]))


@pytest.mark.parametrize("resample", [upsample, downsample, lambda x: blur(x, padding=1, gain=4)])
def test_gradients_of_resampling(resample):
    x = torch.randn(2, 2, 4, 4, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(resample, x)
    assert torch.autograd.gradgradcheck(lambda x: resample(x).square(), x)
