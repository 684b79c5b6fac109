"""Device, precision and processes, by Lightning Fabric: unlike Accelerate it keeps no state of its own between runs.

Networks and optimizers stay bare, since a gradient penalty and DDP's hooks do not go together: gradients are averaged
in one call.
"""

import os
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext

import torch
from lightning_fabric import Fabric
from torch import nn

from lungsynth.errors import LungsynthError
from lungsynth.training.config import TrainingConfig


def launch(config: TrainingConfig) -> Fabric:
    """This process's device and its place among those that `torchrun` started; one process where it started none.

    Raises:
        LungsynthError: the device is missing.
    """
    if config.device == "cuda" and not torch.cuda.is_available():
        raise LungsynthError("training.device is cuda, but torch finds no GPU; set it to auto or cpu")
    world, local = (int(os.environ.get(name, 1)) for name in ("WORLD_SIZE", "LOCAL_WORLD_SIZE"))
    fabric = Fabric(
        accelerator="cuda" if config.device != "cpu" and torch.cuda.is_available() else "cpu",
        devices=local,
        num_nodes=world // local,
        strategy="ddp" if world > 1 else "auto",
        precision="bf16-mixed" if config.precision == "bfloat16" else "32-true",
    )
    fabric.launch()
    return fabric


def autocast(fabric: Fabric, penalised: bool) -> AbstractContextManager[None]:
    """The configured precision; float32 for a pass whose gradient is a loss itself, too small for bfloat16."""
    return nullcontext() if penalised else fabric.autocast()


def average_gradients(network: nn.Module, fabric: Fabric) -> None:
    """Make the gradients of all processes their mean."""
    if fabric.world_size == 1:
        return
    gradients = [parameter.grad for parameter in network.parameters() if parameter.grad is not None]
    mean = fabric.all_reduce(torch.cat([gradient.flatten() for gradient in gradients]), reduce_op="mean")
    assert isinstance(mean, torch.Tensor)  # Fabric reduces whole collections as well
    for gradient, part in zip(gradients, mean.split([g.numel() for g in gradients]), strict=True):
        gradient.copy_(part.view_as(gradient))


@contextmanager
def threads(count: int) -> Iterator[None]:
    """Let torch use `count` CPU threads (0: as many as it does) for a while."""
    before = torch.get_num_threads()
    torch.set_num_threads(count or before)
    try:
        yield
    finally:
        torch.set_num_threads(before)
