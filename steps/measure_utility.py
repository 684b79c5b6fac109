"""Whether synthetic slices make a classifier or segmenter better."""

from zenml import step
from zenml.config import CachePolicy

from lungsynth.dataset.store import SliceDataset
from lungsynth.evaluation.utility import measure
from lungsynth.evaluation.utility.measure import UtilityConfig
from lungsynth.evaluation.utility.predictions import Predictions
from lungsynth.generators.package import GeneratorPackage
from lungsynth.registry.mlflow_registry import Champion
from steps import code
from steps.materializers import PredictionsMaterializer


@step(cache_policy=CachePolicy(cache_func=code.utility), output_materializers=PredictionsMaterializer)
def measure_utility(
    dataset: SliceDataset, generator: GeneratorPackage, champion: Champion | None, config: UtilityConfig
) -> Predictions:
    """Train the classifier or segmenter in every arm and score held-out patients."""
    packages = {"synthetic": generator} | ({"champion": champion.package} if champion else {})
    if config.task == "classification":
        samplers = {name: package.sample for name, package in packages.items()}
        return measure.measure_utility(dataset, samplers, config, realness=generator.realness)
    return measure.measure_utility(dataset, {name: package.sample_pairs for name, package in packages.items()}, config)
