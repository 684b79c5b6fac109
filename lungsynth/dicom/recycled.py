"""Large arrays in reused memory: fresh pages for every scan would take a sixth of the reading time."""

import ctypes
import math
import weakref

import numpy as np

_spare: list[np.ndarray] = []


def empty(shape: tuple[int, ...], dtype: type[np.generic]) -> np.ndarray:
    """An array like that of `numpy.empty`. Once it and all of its views are gone, its memory is reused by a later call.

    A process keeps the memory of one array, the last one that was released.
    """
    size = math.prod(shape) * np.dtype(dtype).itemsize
    memory = _spare.pop() if _spare and len(_spare[0]) >= size else np.empty(size, np.uint8)
    owner = (ctypes.c_uint8 * len(memory)).from_buffer(memory.data)
    weakref.finalize(owner, _give_back, memory).atexit = False
    return np.ctypeslib.as_array(owner)[:size].view(dtype).reshape(shape)


def _give_back(memory: np.ndarray) -> None:
    _spare[:] = [memory]
