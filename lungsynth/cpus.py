"""How many CPU cores this process may use, and a pool of workers of one thread each."""

import os
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

import torch

Item = TypeVar("Item")
Result = TypeVar("Result")

CGROUPS = Path("/sys/fs/cgroup")
"""Where Linux mounts control groups; a pod's CPU limit stands there."""
OWN_GROUPS = Path("/proc/self/cgroup")


def usable_cpus() -> int:
    """CPU cores that this process may use, at least 1, by its affinity and the CPU limits of its control groups.

    `os.cpu_count()` would give a pod the cores of its node. A limit of 1.5 cores counts as 2.
    """
    there = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, min([there, *(-(-quota // period) for quota, period in _cpu_limits())]))


@contextmanager
def torch_threads(count: int) -> Iterator[None]:
    """Set torch's number of CPU threads in this context."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def side_by_side(work: Callable[[Item], Result], items: Iterable[Item], workers: int = 0) -> Iterator[Result]:
    """Apply `work` to each item in parallel, and yield the results in order.

    `workers` items at once (0: one for each core), each in one torch thread. So results do not depend on the number of
    cores: torch splits sums by its number of threads. Threads suffice, as torch releases the GIL while it computes.
    """
    pool = ThreadPoolExecutor(workers or usable_cpus(), "torch", initializer=torch.set_num_threads, initargs=(1,))
    with torch_threads(1):  # part of what a worker sets holds for the whole process
        try:
            yield from pool.map(work, items)
        finally:
            pool.shutdown(cancel_futures=True)


def _cpu_limits() -> Iterator[tuple[int, int]]:
    """(quota, period) in µs of each control group above this process that has a limit, versions 1 and 2."""
    try:
        lines = [line.split(":", 2) for line in OWN_GROUPS.read_text().splitlines()]
    except OSError:  # no Linux
        return
    for _, controllers, place in (line for line in lines if len(line) == 3):
        if controllers and "cpu" not in controllers.split(","):
            continue
        root = CGROUPS / "cpu" if controllers else CGROUPS
        # In a container the path may be the host's, which is not mounted: then the root is the container's own group.
        parts = [part for part in place.split("/") if part not in ("", "..")]
        for depth in range(len(parts) + 1):
            yield from _limit(root.joinpath(*parts[:depth]))


def _limit(folder: Path) -> Iterator[tuple[int, int]]:
    try:
        if (folder / "cpu.max").exists():
            quota, period = (folder / "cpu.max").read_text().split()
        else:
            quota, period = ((folder / f"cpu.cfs_{name}_us").read_text() for name in ("quota", "period"))
        if quota != "max" and int(quota) > 0 and int(period) > 0:
            yield int(quota), int(period)
    except (OSError, ValueError):  # the group has no such file
        return
