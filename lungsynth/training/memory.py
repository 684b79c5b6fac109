"""Advice where a step runs out of memory."""

from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from lungsynth.errors import LungsynthError
from lungsynth.generators.layers import GROUP


def within_memory(step: Callable[[int | None], Tensor], size: int, alone: bool) -> Tensor:
    """The result of `step(None)`, a step whose passes have `size` slices.

    If it runs out of memory, `step` is tried with fewer slices a pass, to advise a number that fits. With several
    processes (not `alone`) nothing is tried, since all would have to take part.

    Raises:
        LungsynthError: out of memory; the state of the networks is then undefined.
    """
    try:
        return step(None)
    except RuntimeError as error:
        if not _is_out_of_memory(error):
            raise
    # Outside of `except`: the error's traceback would keep tensors in memory.
    problem = f"out of memory: passes of {size} slices do not fit"
    if not alone:
        raise LungsynthError(f"{problem} in each process; set training.micro_batch to {next(_halves(size), GROUP)}")
    for smaller in _halves(size):
        if _fits(step, smaller):
            raise LungsynthError(
                f"{problem}; set training.micro_batch to {smaller}, which was tried and fits; the run then starts anew"
            )
    raise LungsynthError(f"{problem}, nor do {GROUP}; take a smaller network, or a device with more memory")


def _fits(step: Callable[[int | None], Tensor], size: int) -> bool:
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    try:
        step(size)
    except RuntimeError as error:
        if not _is_out_of_memory(error):
            raise
        return False
    return True


def _halves(size: int) -> Iterator[int]:
    """Half of it, a quarter, ..., rounded down to whole groups."""
    while (size := size // 2 // GROUP * GROUP) >= GROUP:
        yield size


def _is_out_of_memory(error: RuntimeError) -> bool:
    # Only a GPU's error has a class of its own.
    return isinstance(error, torch.OutOfMemoryError) or "can't allocate memory" in str(error)
