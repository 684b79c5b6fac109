"""The latent vectors of a seed."""

import operator
from typing import SupportsIndex

import numpy as np
import torch
from torch import Tensor

from lungsynth.errors import LungsynthError


def latents_of(seed: SupportsIndex, count: int, length: int) -> Tensor:
    """Standard normal numbers float32 `count`×`length`, on the CPU; `registry/serving_model.py` computes the same.

    All 64 bits of a seed count. torch's generator keeps the lower 32 alone, so seeds that have more go to NumPy's.

    Raises:
        LungsynthError: the seed is no whole number from 0 to 2⁶⁴ - 1.
    """
    number = _checked(seed)
    if number < 2**32:
        rng = torch.Generator("cpu").manual_seed(number)
        return torch.randn(count, length, generator=rng, dtype=torch.float32, device="cpu")
    return torch.from_numpy(np.random.default_rng(number).standard_normal((count, length), dtype=np.float32))


def _checked(seed: SupportsIndex) -> int:
    remedy = f"give a whole number from 0 to 2⁶⁴ - 1, {2**64 - 1}"
    try:
        number = operator.index(seed)
    except TypeError:
        number = None
    if number is None or isinstance(seed, bool):
        raise LungsynthError(f"seed is of the type {type(seed).__name__}; {remedy}")
    if not 0 <= number < 2**64:
        raise LungsynthError(f"seed is {'negative' if number < 0 else '2⁶⁴ or more'}; {remedy}")
    return number
