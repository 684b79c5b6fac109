"""Settings of torch that a run changes, and gives back."""

import torch

from lungsynth.training.devices import fast_kernels


def settings():
    return torch.get_float32_matmul_precision(), torch.backends.cudnn.benchmark, torch.get_num_threads()


def test_fast_kernels_are_for_gpus_and_given_back():
    before = settings()
    with fast_kernels(torch.device("cuda")):
        assert settings()[:2] == ("high", True)
    with fast_kernels(torch.device("cpu")):
        assert settings() == before
    assert settings() == before
