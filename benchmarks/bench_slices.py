"""DICOM to training slices: the time beside that of decoding alone and of a textbook script, and the memory it takes.

    python benchmarks/bench_slices.py [--series FOLDER] [--patients 6]

Without `--series` (a folder with one folder of CT instances a series) phantoms of 512² pixels are simulated first.
Decoding and building run in two processes each, the textbook script in one; every file is in the page cache.
"""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import psutil
import pydicom
from joblib import Parallel, delayed
from scipy import ndimage
from skimage import morphology, transform

from lungsynth.cohort.cohort import Cohort, no_slice_labels
from lungsynth.cohort.phantom import PhantomCohortConfig, select_phantoms
from lungsynth.cohort.splits import SplitConfig
from lungsynth.dataset.store import write_shard
from lungsynth.fetching.fetch import FetchConfig, deliver
from lungsynth.slicing.series import SeriesJob, SliceConfig
from lungsynth.slicing.shards import build_slices
from lungsynth.slicing.slices import slices_of_series

ROUNDS = 15
SIZE = 256
SPLITS = SplitConfig(method="ranked")
BUILD = """
import sys
from pathlib import Path
from bench_slices import build
build(Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3])
"""


def main() -> None:
    """Measure, and print ratios."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--series", type=Path, help="folder with one folder of CT instances a series")
    parser.add_argument("--patients", type=int, default=6, help="phantoms where no series are given")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=Path.cwd()) as scratch:
        folders = _ct_folders(options.series) if options.series else _simulated(Path(scratch), options.patients)
        _print_times(folders)
        if not options.series:
            _print_memory(Path(scratch))


def phantoms(patients: int, slices: tuple[int, int]) -> tuple[Cohort, PhantomCohortConfig]:
    """A cohort of 512² phantoms."""
    config = PhantomCohortConfig(patients=patients, matrix=512, slices=slices)
    return select_phantoms(config, SPLITS), config


def build(root: Path, patients: int, name: str) -> None:
    """Build the slices of phantoms, in shards of four patients, under `root/name`; the DICOM files stay."""
    cohort, config = phantoms(patients, (40, 40))
    slices = SliceConfig(size=SIZE, root=root / name, patients_per_shard=4)
    build_slices(cohort, FetchConfig(root=root / "series"), slices, phantoms=config)


def _ct_folders(root: Path) -> list[Path]:
    folders = [folder for folder in sorted(root.iterdir()) if folder.is_dir() and not folder.name.startswith(".")]
    return [
        folder
        for folder in folders
        if pydicom.dcmread(next(folder.iterdir()), stop_before_pixels=True).Modality == "CT"
    ]


def _simulated(scratch: Path, patients: int) -> list[Path]:
    cohort, config = phantoms(patients, (120, 130))
    fetch = FetchConfig(root=scratch / "series")
    ct = [cohort.images[cohort.images["series_uid"] == uid] for uid in cohort.images["series_uid"]]
    deliveries = Parallel(n_jobs=2)(delayed(_deliver_all)(rows, fetch, config) for rows in ct)
    return [folder for folders in deliveries for folder in folders]


def _deliver_all(rows: pd.DataFrame, fetch: FetchConfig, config: PhantomCohortConfig) -> list[Path]:
    return [delivery.folder for delivery in deliver(rows, fetch, config)]


def _print_times(folders: list[Path]) -> None:
    config = SliceConfig(size=SIZE)
    folders = sorted(folders, key=lambda folder: len(list(folder.iterdir())))
    slices = sum(len(list(folder.iterdir())) for folder in folders)
    runs = {"decode": lambda: _in_two(_decode, folders), "ours": lambda: _in_two(_ours, folders, config)}
    for run in runs.values():
        run()  # starts the processes, and brings the files into the page cache
    times: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(ROUNDS):
        for name, run in runs.items():
            start = time.perf_counter()
            run()
            times[name].append(1e3 * (time.perf_counter() - start) / slices)
    start = time.perf_counter()
    _textbook(folders[0])
    textbook = 1e3 * (time.perf_counter() - start) / len(list(folders[0].iterdir()))
    decode, ours = (statistics.median(times[name]) for name in runs)
    ratios = sorted(mine / theirs for mine, theirs in zip(times["ours"], times["decode"], strict=True))
    print(f"{slices} slices of {len(folders)} series to {SIZE}² (ms a slice of wall time, median of {ROUNDS})")
    print(f"pydicom decodes, 2 processes      {decode:6.2f}")
    print(f"DICOM to slices, 2 processes      {ours:6.2f}   {ours / decode:.2f}× ({ratios[0]:.2f} to {ratios[-1]:.2f})")
    print(f"textbook script, 1 process        {textbook:6.2f}   {textbook / ours:.1f}× as long as ours")


def _in_two(work: Callable, folders: list[Path], *more: object) -> None:
    """Half of the series in each of two processes: as shards are dealt."""
    Parallel(n_jobs=2, batch_size=1)(delayed(work)(half, *more) for half in (folders[::2], folders[1::2]))


def _decode(folders: list[Path]) -> None:
    for folder in folders:
        for path in folder.iterdir():
            _ = pydicom.dcmread(path).pixel_array


def _ours(folders: list[Path], config: SliceConfig) -> None:
    """Read, find the lungs, cut and write one shard."""
    cv2.setNumThreads(1)
    parts = [slices_of_series(_job(folder), config, ("non-cancer", "cancer")) for folder in folders]
    table = pd.concat([part.table for part in parts], ignore_index=True)
    with tempfile.TemporaryDirectory() as scratch:
        write_shard(Path(scratch) / "shard", np.concatenate([part.images for part in parts]), table)


def _job(folder: Path) -> SeriesJob:
    header = pydicom.dcmread(next(folder.iterdir()), stop_before_pixels=True)
    return SeriesJob(
        series_uid=header.SeriesInstanceUID,
        patient_key="P-000000000000",
        label="non-cancer",
        evidence="phantom",
        split="train",
        manufacturer="",
        folder=folder,
        lesion_folders=(),
        lung_folders=(),
        mask_file=None,
        slice_labels=no_slice_labels(),
    )


def _textbook(folder: Path) -> np.ndarray:
    """What a script does: full resolution, everything twice, no thought for speed."""
    files = sorted((pydicom.dcmread(path) for path in folder.iterdir()), key=lambda file: file.ImagePositionPatient[2])
    hu = np.stack([file.pixel_array * file.RescaleSlope + file.RescaleIntercept for file in files])
    images = []
    for plane in hu:
        labels, _ = ndimage.label(plane < -400)
        edge = np.unique(np.concatenate([labels[0], labels[-1], labels[:, 0], labels[:, -1]]))
        air = (labels > 0) & ~np.isin(labels, edge)
        labels, count = ndimage.label(air)
        sizes = ndimage.sum(air, labels, range(1, count + 1))
        lungs = np.isin(labels, 1 + np.argsort(sizes)[-2:])
        lungs = morphology.closing(lungs, morphology.disk(5))
        rows, columns = np.nonzero(lungs) if lungs.any() else (np.array([0, 511]), np.array([0, 511]))
        crop = plane[rows.min() : rows.max() + 1, columns.min() : columns.max() + 1]
        grey = np.clip((crop + 1350) / 1500, 0, 1)
        images.append((255 * transform.resize(grey, (SIZE, SIZE), anti_aliasing=True)).astype(np.uint8))
    return np.stack(images)


def _print_memory(scratch: Path) -> None:
    """Peak memory of a build and all its processes, for a cohort and one eight times as large."""
    few, many = 8, 64
    peaks = {patients: _peak(scratch / f"memory{patients}", patients) for patients in (few, many)}
    small, large = (peaks[patients] / 1e6 for patients in (few, many))
    print(f"peak memory of a build            {small:.0f} MB with {few} patients, {large:.0f} MB with {many}:", end=" ")
    print(f"{large / small:.2f}×  (asked for: at most 1.20)")


def _peak(root: Path, patients: int) -> float:
    build(root, patients, "simulated")  # not measured: it is simulation that takes memory and time
    command = [sys.executable, "-c", BUILD, str(root), str(patients), "measured"]
    process = subprocess.Popen(command, cwd=Path(__file__).parent, stderr=subprocess.DEVNULL)
    peak, done = [0.0], threading.Event()
    watcher = threading.Thread(target=_watch, args=(process.pid, peak, done))
    watcher.start()
    code = process.wait()
    done.set()
    watcher.join()
    if code:
        raise SystemExit(f"the build for the memory measurement failed with {code}: {json.dumps(command)}")
    return peak[0]


def _watch(pid: int, peak: list[float], done: threading.Event) -> None:
    """Keep the largest sum of what the process tree has for itself alone, in bytes."""
    parent = psutil.Process(pid)
    while not done.wait(0.02):
        total = 0.0
        for process in [parent, *parent.children(recursive=True)]:
            try:
                total += process.memory_full_info().uss
            except psutil.Error:
                continue  # it has just ended
        peak[0] = max(peak[0], total)


if __name__ == "__main__":
    main()
