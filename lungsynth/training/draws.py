"""The random numbers of a step. They follow from the seed and the step alone, so that no state has to be kept.

Each process draws the numbers of the whole batch and keeps those of its own slices: a run is the same on any number of
processes.
"""

import numpy as np
import torch
from torch import Tensor


class Draws:
    """What process `rank` of `world` draws in one step."""

    def __init__(self, seed: int, step: int, device: torch.device, *, rank: int = 0, world: int = 1) -> None:
        words = np.random.SeedSequence([seed, step]).generate_state(2, np.uint32)
        self.rank, self.world, self.device = rank, world, device
        self._common = torch.Generator(device).manual_seed(int(words[0]))
        self.local = torch.Generator(device).manual_seed(int(words[1]) + rank)
        """For a network's own randomness, which differs between processes."""

    def normal(self, count: int, *shape: int) -> Tensor:
        """Standard normal numbers, `count`×`shape`; `count` are this process's slices of the batch."""
        return self._mine(torch.randn(self.world * count, *shape, generator=self._common, device=self.device))

    def uniform(self, count: int, *shape: int) -> Tensor:
        """Uniform numbers from [0, 1), `count`×`shape`."""
        return self._mine(torch.rand(self.world * count, *shape, generator=self._common, device=self.device))

    def _mine(self, numbers: Tensor) -> Tensor:
        return numbers.chunk(self.world)[self.rank]
