"""Whether synthetic slices make a classifier or segmenter better."""

from zenml import step

from lungsynth.dataset.store import SliceDataset
from lungsynth.evaluation.utility import measure
from lungsynth.evaluation.utility.measure import UtilityConfig
from lungsynth.evaluation.utility.predictions import Predictions
from lungsynth.generators.package import GeneratorPackage
from lungsynth.registry.mlflow_registry import Champion
from steps.materializers import PredictionsMaterializer


@step(output_materializers=PredictionsMaterializer)
def measure_utility(
    dataset: SliceDataset,
    generator: GeneratorPackage,
    champion: Champion | None,
    config: UtilityConfig,
    code_sha256: str,
) -> Predictions:
    """Train the classifier or segmenter in every arm and score held-out patients.

    `code_sha256`: the key of the code that this runs, of `steps.code`, so that it runs again when that changes.
    """
    packages = {"synthetic": generator} | ({"champion": champion.package} if champion else {})
    if config.task == "classification":
        samplers = {name: package.sample for name, package in packages.items()}
        return measure.measure_utility(dataset, samplers, config, realness=generator.realness)
    return measure.measure_utility(dataset, {name: package.sample_pairs for name, package in packages.items()}, config)
