"""How close synthetic slices come to real ones."""

from zenml import step
from zenml.config import CachePolicy

from lungsynth.evaluation.extractor import Extractor
from lungsynth.evaluation.fidelity import FidelityConfig
from lungsynth.evaluation.fidelity import measure_fidelity as measure
from lungsynth.evaluation.scorecard import Scorecard
from lungsynth.generators.package import GeneratorPackage
from lungsynth.imaging.store import SliceDataset
from steps import code


@step(cache_policy=CachePolicy(cache_func=code.evaluation))
def measure_fidelity(
    dataset: SliceDataset, generator: GeneratorPackage, extractor: Extractor, config: FidelityConfig
) -> Scorecard:
    """Distances, manifolds and modes, overall and per class, beside what real slices score."""
    return measure(dataset, generator.sample, extractor, config)
