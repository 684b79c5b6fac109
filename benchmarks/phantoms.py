"""Simulated slices for the benchmarks, a generator trained on them, and an extractor to judge by."""

from pathlib import Path

from lungsynth.cohort.phantom import PhantomCohortConfig, select_phantoms
from lungsynth.cohort.splits import SplitConfig
from lungsynth.dataset.store import SliceDataset
from lungsynth.evaluation.extractor import Extractor, ExtractorConfig, train_extractor
from lungsynth.fetching.fetch import FetchConfig
from lungsynth.generators.package import GeneratorPackage
from lungsynth.run_file import load
from lungsynth.slicing.series import SliceConfig
from lungsynth.slicing.shards import build_slices
from lungsynth.training import Slices, TrainingRun, train_generator
from lungsynth.training.sections import training_sections


def simulate(patients: int, folder: Path) -> SliceDataset:
    """Slices of 64 px of so many phantoms, like the demo's; about seven slices of each are for training.

    What `folder` holds already is not made again.
    """
    phantoms = PhantomCohortConfig(patients=patients, matrix=192, slices=(60, 72), nodule_diameter_mm=(8, 28), seed=7)
    cohort = select_phantoms(phantoms, SplitConfig(train=0.8, val=0.15, test=0.05))
    slices = SliceConfig(size=64, max_slices_per_series=14, root=folder / "slices")
    return build_slices(cohort, FetchConfig(root=folder / "series"), slices, phantoms=phantoms)


def extractor(dataset: SliceDataset, folder: Path) -> Extractor:
    """The lung extractor, trained on `train`; or as `folder` holds it already."""
    return Extractor(folder) if folder.exists() else train_extractor(dataset, ExtractorConfig(), folder)


def train(dataset: SliceDataset, config: Path, folder: Path) -> GeneratorPackage:
    """A generator as the run file `config` says, trained on `train` and chosen by `val`, in `folder/package`."""
    sections = training_sections(config, load(config))
    seen, val = (Slices(dataset.images, dataset.labels, dataset.rows(split)) for split in ("train", "val"))
    return train_generator(
        TrainingRun(
            seen,
            val,
            window_hu=dataset.meta.window_hu,
            data_sha256=dataset.sha256,
            generator=sections.generator,
            training=sections.training,
            folder=folder / "package",
            checkpoints=folder / "checkpoints",
        )
    )
