"""What to say where a step does not fit into memory."""

from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from lungsynth.errors import LungsynthError
from lungsynth.generators.layers import GROUP


def within_memory(step: Callable[[int | None], Tensor], size: int, alone: bool) -> Tensor:
    """What `step(None)` gives, which goes through the networks with `size` slices at once.

    Where these do not fit, `step` is tried with halves of them to give advice, unless other processes would have to
    take part in it: not `alone`.

    Raises:
        LungsynthError: out of memory; the networks are of no use any more.
    """
    try:
        return step(None)
    except RuntimeError as error:
        if not _is_out_of_memory(error):
            raise
    # Only now is the error gone, and with it what its traceback kept alive.
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
    # A GPU's error has a class of its own; the CPU's only has its words.
    return isinstance(error, torch.OutOfMemoryError) or "can't allocate memory" in str(error)
