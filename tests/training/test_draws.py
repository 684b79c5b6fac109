"""The random numbers of a step."""

import torch

from lungsynth.training.draws import Draws

CPU = torch.device("cpu")


def test_processes_share_the_numbers_of_the_whole_batch():
    whole, shares = Draws(3, 7, CPU), [Draws(3, 7, CPU, rank=rank, world=2) for rank in range(2)]
    for kind in ("normal", "uniform"):
        together = torch.cat([getattr(share, kind)(4, 5) for share in shares])
        assert torch.equal(together, getattr(whole, kind)(8, 5))


def test_numbers_follow_from_seed_and_step():
    first = Draws(3, 7, CPU).normal(4)
    assert torch.equal(first, Draws(3, 7, CPU).normal(4))
    assert not torch.equal(first, Draws(3, 8, CPU).normal(4))
    assert not torch.equal(first, Draws(4, 7, CPU).normal(4))


def test_a_network_own_numbers_differ_between_processes():
    one, two = (torch.rand(4, generator=Draws(3, 7, CPU, rank=rank, world=2).local) for rank in range(2))
    assert not torch.equal(one, two)
