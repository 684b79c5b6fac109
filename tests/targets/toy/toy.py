"""Two steps, the second on a GPU node where the run file says so: the smallest pipeline for a target."""

import os
import time
from pathlib import Path

from zenml import pipeline, step


@step
def make(numbers: int) -> list[int]:
    """Numbers to add."""
    return list(range(numbers))


@step
def add(numbers: list[int], wait_s: float, memory_gb: float) -> dict[str, str]:
    """The sum, and where it was made."""
    del memory_gb
    print("adding", flush=True)
    time.sleep(wait_s)
    gpus = os.environ.get("NVIDIA_VISIBLE_DEVICES", "none")
    in_pod = str(Path("/var/run/secrets/kubernetes.io").exists())
    return {"sum": str(sum(numbers)), "gpus": gpus, "pod": in_pod}


@pipeline
def toy(numbers: int = 5, wait_s: float = 0, memory_gb: float = 0) -> None:
    """Make numbers and add them."""
    add(make(numbers), wait_s, memory_gb)
