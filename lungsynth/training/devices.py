"""Device, precision and processes, by Lightning Fabric. Unlike Accelerate it keeps no state of its own between runs.

Networks are not wrapped in DDP, whose hooks do not work with gradient penalties: gradients are averaged in one call.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any

import torch
import torch.distributed as dist
from lightning_fabric import Fabric
from torch import Tensor, nn
from torch.distributed.nn.functional import all_reduce

from lungsynth.errors import LungsynthError
from lungsynth.generators.layers import GROUP
from lungsynth.training.config import TrainingConfig


def launch(config: TrainingConfig) -> Fabric:
    """This process's device, and its rank among the processes that `torchrun` started; without it, a single process.

    Raises:
        LungsynthError: the device is missing, or the batch cannot be dealt out.
    """
    if config.device == "cuda" and not torch.cuda.is_available():
        raise LungsynthError("training.device is cuda, but torch finds no GPU; set it to auto or cpu")
    world, local = (int(os.environ.get(name, 1)) for name in ("WORLD_SIZE", "LOCAL_WORLD_SIZE"))
    for batch in (config.batch, *(config.growth.batches.values() if config.growth else ())):
        if batch % (GROUP * world):
            raise LungsynthError(f"a batch of {batch} cannot be dealt to {world} processes in groups of {GROUP} slices")
    accelerator = "cuda" if config.device != "cpu" and torch.cuda.is_available() else "cpu"
    short = config.precision == "bfloat16" or (config.precision == "auto" and _has_bfloat16(accelerator))
    fabric = Fabric(
        accelerator=accelerator,
        devices=local,
        num_nodes=world // local,
        strategy="ddp" if world > 1 else "auto",
        precision="bf16-mixed" if short else "32-true",
    )
    fabric.launch()
    return fabric


def _has_bfloat16(accelerator: str) -> bool:
    """Whether the hardware itself computes in bfloat16; emulated, it would be slower than float32."""
    if accelerator == "cuda":
        result: bool = torch.cuda.is_bf16_supported(including_emulation=False)
        return result
    # Older releases of torch cannot tell what a CPU has.
    capabilities = torch.cpu.get_capabilities() if hasattr(torch.cpu, "get_capabilities") else {}
    return bool(capabilities.get("avx512_bf16") or capabilities.get("amx_bf16"))


@contextmanager
def autocast(fabric: Fabric, penalised: bool) -> Iterator[None]:
    """The configured precision and compiled networks; for a pass with a gradient penalty, float32 and no compilation.

    The penalised gradient is too small for bfloat16, and torch.compile has no second derivatives.
    """
    if penalised:
        with torch.compiler.set_stance("force_eager"):
            yield
    else:
        with fabric.autocast():
            yield


def average_gradients(network: nn.Module, fabric: Fabric) -> None:
    """Replace each process's gradients by the mean over all processes."""
    if fabric.world_size == 1:
        return
    gradients = [parameter.grad for parameter in network.parameters() if parameter.grad is not None]
    mean = mean_of_processes(torch.cat([gradient.flatten() for gradient in gradients]), fabric)
    for gradient, part in zip(gradients, mean.split([g.numel() for g in gradients]), strict=True):
        gradient.copy_(part.view_as(gradient))


def mean_of_processes(numbers: Tensor, fabric: Fabric) -> Tensor:
    """The mean over all processes, for each number."""
    mean = fabric.all_reduce(numbers, reduce_op="mean")
    assert isinstance(mean, Tensor)  # Fabric reduces whole collections as well
    return mean


def largest_of_processes(number: int, fabric: Fabric) -> int:
    """The largest number of all processes. They exchange it on the CPU, so that no step waits for a GPU."""
    if fabric.world_size == 1:
        return number
    largest = torch.tensor(number)
    dist.all_reduce(largest, dist.ReduceOp.MAX, _cpu_group())
    return int(largest)


@cache
def _cpu_group() -> Any:
    return dist.new_group(backend="gloo")


def synchronise_batch_norms(network: nn.Module, fabric: Fabric) -> None:
    """Let batch norms in `network` take their statistics over the batches of all processes."""
    if fabric.world_size > 1:
        for module in network.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.__class__ = _SynchronisedBatchNorm2d  # its state and parameter names stay


class _SynchronisedBatchNorm2d(nn.BatchNorm2d):
    """As torch's SyncBatchNorm, which needs a GPU. All processes have batches of one size."""

    num_batches_tracked: Tensor
    running_mean: Tensor
    running_var: Tensor
    momentum: float

    def forward(self, x: Tensor) -> Tensor:
        if not self.training:
            return super().forward(x)
        wide = x.float()
        moments = torch.stack([wide.mean(dim=(0, 2, 3)), wide.square().mean(dim=(0, 2, 3))])
        mean, square = all_reduce(moments) / dist.get_world_size()
        variance = (square - mean.square()).clamp_min(0)
        count = x.numel() // x.shape[1] * dist.get_world_size()
        with torch.no_grad():
            self.num_batches_tracked += 1
            self.running_mean.lerp_(mean, self.momentum)
            self.running_var.lerp_(variance * (count / (count - 1)), self.momentum)
        scale = self.weight * (variance + self.eps).rsqrt()
        output: Tensor = (wide * scale[:, None, None] + (self.bias - mean * scale)[:, None, None]).to(x.dtype)
        return output


@contextmanager
def fast_kernels(device: torch.device) -> Iterator[None]:
    """On a GPU, inside the context: TF32 for float32 matrices, and cuDNN tries kernels to find the fastest.

    Convolutions use TF32 in torch anyway. On a CPU nothing changes.
    """
    before = torch.get_float32_matmul_precision(), torch.backends.cudnn.benchmark
    if device.type == "cuda":
        torch.set_float32_matmul_precision("high")
        torch.backends.cudnn.benchmark = True
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before[0])
        torch.backends.cudnn.benchmark = before[1]
