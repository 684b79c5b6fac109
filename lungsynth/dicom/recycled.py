"""Large arrays in memory that is used again: fresh pages for every scan cost a sixth of the time that it takes."""

import ctypes
import math
import weakref

import numpy as np

_spare: list[np.ndarray] = []


def empty(shape: tuple[int, ...], dtype: type[np.generic]) -> np.ndarray:
    """An array as of `numpy.empty`; when neither it nor a view of it is left, its memory serves the next one.

    A process keeps the memory of one array, the latest that was given back.
    """
    size = math.prod(shape) * np.dtype(dtype).itemsize
    memory = _spare.pop() if _spare and len(_spare[0]) >= size else np.empty(size, np.uint8)
    owner = (ctypes.c_uint8 * len(memory)).from_buffer(memory.data)
    weakref.finalize(owner, _give_back, memory).atexit = False
    return np.ctypeslib.as_array(owner)[:size].view(dtype).reshape(shape)


def _give_back(memory: np.ndarray) -> None:
    _spare[:] = [memory]
