"""A dataset of a million slices: the time to open it, and random batches beside one raw memory-mapped file.

    python benchmarks/bench_store.py [--slices 1000000] [--size 64] [--shards 500]

Slices are noise. Both sides draw the same random batches of 64 and make them tensors; all pages were touched once
before, so that it is the look-up that counts and not the disk.
"""

import argparse
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from lungsynth.dataset.store import COLUMNS, SERIES_COLUMNS, SliceDataset, SliceMeta, assemble, write_shard

BATCH, BATCHES, ROUNDS = 64, 400, 7
OPEN = """
import sys, time
from pathlib import Path
from lungsynth.dataset.store import SliceDataset
import torch, pandas
start = time.perf_counter()
dataset = SliceDataset(Path(sys.argv[1]))
torch.from_numpy(dataset.images[[0, len(dataset.images) - 1]])
opened = time.perf_counter()
len(dataset.table), dataset.labels, dataset.sha256
print(f"{opened - start:.2f} {time.perf_counter() - start:.2f}")
"""


def main() -> None:
    """Build, open and read."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--slices", type=int, default=1_000_000)
    parser.add_argument("--size", type=int, default=64)
    parser.add_argument("--shards", type=int, default=500)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=Path.cwd()) as folder:
        dataset = _build(Path(folder), options.slices // options.shards, options.size, options.shards)
        raw = _raw(Path(folder) / "raw.npy", dataset)
        done = subprocess.run(
            [sys.executable, "-c", OPEN, dataset.folder], check=True, capture_output=True, text=True
        ).stdout.split()
        ours, theirs = _race(dataset.images, raw)
    print(f"{len(raw):,} slices of {options.size} px in {options.shards} shards")
    print(f"open                       {done[0]} s with the first slices; {done[1]} s with the table, labels and hash")
    print(f"random batches of {BATCH}       {ours:,.0f} slices/s; one raw memory-mapped file {theirs:,.0f} slices/s")
    print(f"ratio                      {ours / theirs:.2f}  (asked for: at least 0.80)")


def _build(folder: Path, rows: int, size: int, shards: int) -> SliceDataset:
    rng = np.random.default_rng(0)
    noise = rng.integers(0, 256, (rows, size, size), dtype=np.uint8)
    written = []
    for shard in range(shards):
        uids = [f"1.3.6.1.4.1.14519.5.2.1.7009.9004.{shard}.{row}" for row in range(rows)]
        numbers = dict.fromkeys(COLUMNS, 1.25)
        texts = {"patient": f"P-{shard:012x}", "series_uid": uids[0], "sop_uid": uids, "label": "cancer"}
        texts |= {"split": "train", "evidence": "clinical", "manufacturer": "GE MEDICAL SYSTEMS"}
        table = pd.DataFrame(numbers | texts, index=range(rows))
        written.append(
            write_shard(
                folder / f"shard{shard}",
                np.roll(noise, shard),
                table,
                series=pd.DataFrame(columns=list(SERIES_COLUMNS)),
            )
        )
    return assemble(folder / "set", written, SliceMeta(size, (-1350.0, 150.0), "noise"))


def _raw(path: Path, dataset: SliceDataset) -> np.ndarray:
    """The same slices in one file, written and mapped by numpy."""
    np.save(path, np.asarray(dataset.images))
    return np.load(path, mmap_mode="r")


def _race(images: object, raw: np.ndarray) -> tuple[float, float]:
    """Slices a second of each, the best of several interleaved rounds."""
    rng, rates = np.random.default_rng(1), ([], [])
    for array in (images, raw):
        for start in range(0, len(raw), 4096):
            array[start : start + 4096].max()
    for _ in range(ROUNDS):
        batches = rng.integers(0, len(raw), (BATCHES, BATCH))
        for array, found in zip((images, raw), rates, strict=True):
            start = time.perf_counter()
            for batch in batches:
                torch.from_numpy(array[batch])
            found.append(batches.size / (time.perf_counter() - start))
    return max(rates[0]), max(rates[1])


if __name__ == "__main__":
    main()
