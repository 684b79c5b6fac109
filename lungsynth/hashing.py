"""SHA-256 of tables, arrays and files: what the records are keyed by."""

import hashlib
import json
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pandas as pd


def table_sha256(table: pd.DataFrame) -> str:
    """SHA-256 of a table's content: it depends on the order of rows, but not on the index or the file format."""
    digest = hashlib.sha256()
    digest.update(json.dumps(list(table.columns)).encode())
    digest.update(table.to_csv(index=False, lineterminator="\n", float_format="%.9g").encode())
    return digest.hexdigest()


def array_sha256(array: np.ndarray) -> str:
    """SHA-256 of an array's dtype, shape and bytes; a memory-mapped array is read in pieces of at most 64 MB."""
    digest = hashlib.sha256(f"{array.dtype.str}{array.shape}".encode())
    rows = max(1, (64 << 20) // max(1, array[:1].nbytes))
    for start in range(0, len(array), rows):
        digest.update(np.ascontiguousarray(array[start : start + rows]).data)
    return digest.hexdigest()


def combine(parts: Iterable[str]) -> str:
    """One SHA-256 for several digests or texts, in their order."""
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()


def file_sha256(path: Path) -> str:
    """SHA-256 of a file's bytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
