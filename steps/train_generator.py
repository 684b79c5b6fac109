"""The generator."""

from zenml import step

from lungsynth.dataset.store import SliceDataset
from lungsynth.evaluation.utility.measure import UtilityConfig
from lungsynth.evaluation.utility.tasks import TASKS
from lungsynth.generators.family import GeneratorConfig
from lungsynth.generators.package import GeneratorCard, GeneratorPackage
from lungsynth.registry.connection import RegistryConfig
from lungsynth.registry.mlflow_registry import check_champion
from lungsynth.registry.tracking import tracked
from lungsynth.remote import place
from lungsynth.training import Slices, TrainingConfig, TrainingRun, train
from lungsynth.training.read import check_classes
from lungsynth.training.state import run_key
from steps.materializers import GeneratorPackageMaterializer, new_folder
from steps.parameters import run_parameters


@step(output_materializers=GeneratorPackageMaterializer)
def train_generator(
    dataset: SliceDataset, generator: GeneratorConfig, training: TrainingConfig, code_sha256: str
) -> GeneratorPackage:
    """Train on the `train` split and choose by `val`; an interrupted training goes on from its last checkpoint.

    `code_sha256`: the key of the code that this runs, of `steps.code`, so that it runs again when that changes.
    """
    # Not parameters of the step: another registry, utility test or place must not retrain the generator.
    sections = run_parameters()
    registry = RegistryConfig.model_validate(sections["registry"])
    utility = UtilityConfig.model_validate(sections["utility"])
    # Fail early if the result could not be evaluated.
    check_classes(generator, dataset.meta.classes)
    TASKS[utility.task](dataset, utility).check()
    check_champion(registry, GeneratorCard(generator=generator, window_hu=dataset.meta.window_hu), utility.task)
    masks = dataset.masks if generator.masks else None
    learnt, unseen = (Slices(dataset.images, dataset.labels, dataset.rows(split), masks) for split in ("train", "val"))
    params = {
        f"{section}.{name}": value
        for section, config in (("generator", generator), ("training", training))
        for name, value in config.model_dump(mode="json").items()
    }
    with tracked(registry, run_key(generator, training, dataset.sha256), params) as on_log:
        return train.train_generator(
            TrainingRun(
                learnt,
                unseen,
                window_hu=dataset.meta.window_hu,
                data_sha256=dataset.sha256,
                generator=generator,
                training=training,
                folder=new_folder(),
                checkpoints=place(sections["checkpoints"]),
                on_log=on_log,
            )
        )
