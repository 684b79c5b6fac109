"""The generator."""

from pathlib import Path

from zenml import step
from zenml.config import CachePolicy

from lungsynth.errors import LungsynthError
from lungsynth.generators.family import GeneratorConfig
from lungsynth.generators.package import GeneratorPackage
from lungsynth.imaging.store import SliceDataset
from lungsynth.training import Slices, TrainingConfig
from lungsynth.training import train_generator as train
from steps import code
from steps.materializers import GeneratorPackageMaterializer, new_folder


@step(cache_policy=CachePolicy(cache_func=code.training), output_materializers=GeneratorPackageMaterializer)
def train_generator(dataset: SliceDataset, generator: GeneratorConfig, training: TrainingConfig) -> GeneratorPackage:
    """Train on the `train` split and choose by `val`; an interrupted training goes on from its last checkpoint."""
    if generator.classes and generator.classes != dataset.meta.classes:
        raise LungsynthError(
            f"generator.classes are {', '.join(generator.classes)} and the slices' {', '.join(dataset.meta.classes)}: "
            "give the generator the classes of the cohort, in their order"
        )
    sides = (Slices(dataset.images, dataset.labels, dataset.rows(split)) for split in ("train", "val"))
    return train(
        *sides,
        window_hu=dataset.meta.window_hu,
        data_sha256=dataset.sha256,
        generator=generator,
        training=training,
        folder=new_folder(),
        checkpoints=Path("data/checkpoints"),
    )
