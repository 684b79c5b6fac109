"""Simulated slices for the benchmarks of generators, and an extractor to judge by."""

from pathlib import Path

from lungsynth.cohort.fetch import FetchConfig
from lungsynth.cohort.phantom import PhantomCohortConfig, select_phantoms
from lungsynth.cohort.splits import SplitConfig
from lungsynth.evaluation.extractor import Extractor, ExtractorConfig, train_extractor
from lungsynth.imaging.shards import build_slices
from lungsynth.imaging.slices import SliceConfig
from lungsynth.imaging.store import SliceDataset


def simulate(patients: int, folder: Path) -> SliceDataset:
    """Slices of 64 px of so many phantoms, like the demo's; about seven slices of each are for training.

    What `folder` holds already is not made again.
    """
    phantoms = PhantomCohortConfig(patients=patients, matrix=192, slices=(60, 72), nodule_diameter_mm=(8, 28), seed=7)
    cohort = select_phantoms(phantoms, SplitConfig(train=0.8, val=0.15, test=0.05))
    slices = SliceConfig(size=64, max_slices_per_series=14, root=folder / "slices")
    return build_slices(cohort, FetchConfig(root=folder / "series"), slices, phantoms)


def extractor(dataset: SliceDataset, folder: Path) -> Extractor:
    """The lung extractor, trained on `train`; or as `folder` holds it already."""
    return Extractor(folder) if folder.exists() else train_extractor(dataset, ExtractorConfig(), folder)
