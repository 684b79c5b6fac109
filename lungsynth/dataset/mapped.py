"""Many files of slices as one memory-mapped array.

A shard's pixels lie in a safetensors file: a JSON header, then the bytes. If each file were opened by itself, a random
batch would be a loop over shards, at less than half the speed of one large file. So the files are mapped side by side
into one range of addresses, and a batch is one numpy look-up.
"""

import ctypes
import json
import math
import mmap
import os
import struct
import weakref
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lungsynth.errors import LungsynthError, reason
from lungsynth.remote import below, pull

HEADER = 4096
"""Bytes of a file before its pixels."""
HUGE_PAGE = 2 << 20
"""Bytes. Files are mapped at multiples of it, so that the kernel can use huge pages: random look-ups gain a quarter."""
MAP_FIXED = 0x10  # Linux and macOS
MAP_NORESERVE = getattr(mmap, "MAP_NORESERVE", 0)  # macOS needs none


def write_slices(path: Path, slices: NDArray[np.uint8]) -> None:
    """Write uint8 slices, N×H×W, as the tensor `slices` of a safetensors file, read-only and flushed to the disk."""
    header = json.dumps({"slices": {"dtype": "U8", "shape": slices.shape, "data_offsets": [0, slices.nbytes]}})
    with path.open("xb") as file:
        file.write(struct.pack("<Q", HEADER - 8) + header.encode().ljust(HEADER - 8))
        file.write(np.ascontiguousarray(slices).data)
        file.flush()
        os.fsync(file.fileno())
    path.chmod(0o444)  # written once: several datasets have hard links to it


def map_shards(folder: Path, manifest: Mapping[str, Any], what: str) -> "MappedSlices":
    """The `what` (images or masks) of a dataset in `folder`; what lies at the manifest's `root` alone is copied first.

    Raises:
        LungsynthError: a file is missing or damaged, or the store does not give it.
    """
    names = [f"{shard['name']}/{what}.safetensors" for shard in manifest["shards"]]
    files = [folder / "shards" / name for name in names]
    if root := manifest.get("root"):
        missing = [name for name, file in zip(names, files, strict=True) if not file.exists()]
        pull(below(root, "shards"), folder / "shards", missing)
    return MappedSlices(files, [shard["rows"] for shard in manifest["shards"]], manifest["meta"]["size"])


class MappedSlices:
    """uint8 slices of several files in one order, N×H×W, indexed like a numpy array and never written to."""

    dtype = np.dtype(np.uint8)
    ndim = 3

    def __init__(self, files: Sequence[Path], rows: Sequence[int], size: int) -> None:
        """Map `files`, which hold `rows` slices of `size`×`size` pixels each.

        Raises:
            LungsynthError: a file is missing, cut short or of another size.
        """
        self._origin = (tuple(files), tuple(rows), size)
        self.shape = (sum(rows), size, size)
        pixels = size * size
        # Files start a whole number of slices apart, so that one stride reaches all. Gaps take no memory.
        step = math.lcm(HUGE_PAGE, pixels)
        places = np.cumsum([0, *(-(-(HEADER + count * pixels) // step) * step for count in rows)]).tolist()
        addresses = _reserve(places[-1] + step)
        for file, count, place in zip(files, rows, places[:-1], strict=True):
            _map(file, addresses, place, length=HEADER + count * pixels)
        self._slices = np.ctypeslib.as_array(addresses)[HEADER : HEADER + places[-1]].reshape(-1, size, size)
        self._slices.flags.writeable = False
        firsts = np.repeat(np.array(places[:-1], np.int64) // pixels, rows)
        self._slots = firsts + np.concatenate([np.empty(0, np.int64), *(np.arange(count) for count in rows)])

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, key: int | slice | NDArray[np.integer] | NDArray[np.bool_]) -> NDArray[np.uint8]:
        """One slice (a view, H×W) or several (a copy, n×H×W)."""
        slots = self._slots[key]
        # take is quicker than indexing.
        slices: NDArray[np.uint8] = self._slices.take(slots, axis=0) if slots.ndim else self._slices[slots]
        return slices

    def __array__(self, dtype: np.dtype | None = None, copy: bool | None = None) -> np.ndarray:
        return self[:].astype(dtype or self.dtype, copy=False)

    def __reduce__(self) -> tuple[Any, ...]:
        return MappedSlices, self._origin


def _libc_mmap() -> ctypes.CDLL:
    libc = ctypes.CDLL(None, use_errno=True)
    libc.mmap.restype = ctypes.c_void_p
    libc.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, *[ctypes.c_int] * 3, ctypes.c_long]
    libc.munmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t]
    return libc


def _reserve(length: int) -> "ctypes.Array[ctypes.c_uint8]":
    """Addresses for `length` bytes, aligned to huge pages; they read as zeros until files are mapped over them."""
    libc, total = _libc_mmap(), length + HUGE_PAGE
    address = libc.mmap(None, total, mmap.PROT_READ, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | MAP_NORESERVE, -1, 0)
    if address == ctypes.c_void_p(-1).value:
        raise LungsynthError(f"cannot reserve {total / 1e9:.1f} GB of addresses: {os.strerror(ctypes.get_errno())}")
    addresses = (ctypes.c_uint8 * length).from_address(-(-address // HUGE_PAGE) * HUGE_PAGE)
    weakref.finalize(addresses, libc.munmap, address, total)
    return addresses


def _map(file: Path, addresses: "ctypes.Array[ctypes.c_uint8]", place: int, *, length: int) -> None:
    """Map a file of `length` bytes at `place` in `addresses`."""
    try:
        descriptor = os.open(file, os.O_RDONLY)
    except OSError as error:
        raise LungsynthError(f"cannot open the slices {file}: {reason(error)}; build them again") from None
    try:
        size = os.fstat(descriptor).st_size
        if size != length:
            raise LungsynthError(f"{file} has {size} bytes instead of {length}: build the slices again")
        where, libc = ctypes.addressof(addresses) + place, _libc_mmap()
        if libc.mmap(where, length, mmap.PROT_READ, mmap.MAP_SHARED | MAP_FIXED, descriptor, 0) != where:
            raise LungsynthError(f"cannot map {file} into memory: {os.strerror(ctypes.get_errno())}")
    finally:
        os.close(descriptor)
