"""Cache keys for the library's own code: ZenML hashes a step's body, not what it calls."""

from pathlib import Path

import lungsynth
from lungsynth.hashing import combine, file_sha256


def imaging() -> str:
    """Key of all that turns DICOM into slices."""
    return _sources("imaging", "cohort")


def training() -> str:
    """Key of the networks and the training loop."""
    return _sources("generators", "training")


def evaluation() -> str:
    """Key of the metrics and the gate; samples are drawn by the generators' code."""
    return _sources("evaluation", "generators", "registry/gate.py")


def everything() -> str:
    """Key of the whole library: the code version of a registered model."""
    return _sources("")


def _sources(*parts: str) -> str:
    root = Path(lungsynth.__file__).parent
    files = [
        file for part in parts for file in ([root / part] if part.endswith(".py") else (root / part).rglob("*.py"))
    ]
    return combine(f"{file.relative_to(root)} {file_sha256(file)}" for file in sorted(files))
