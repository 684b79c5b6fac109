"""How close synthetic slices come to real ones."""

from zenml import step

from lungsynth.dataset.store import SliceDataset
from lungsynth.evaluation.extractor import Extractor
from lungsynth.evaluation.fidelity import measure
from lungsynth.evaluation.fidelity.measure import FidelityConfig
from lungsynth.evaluation.scorecard import Scorecard
from lungsynth.generators.package import GeneratorPackage


@step
def measure_fidelity(
    dataset: SliceDataset,
    generator: GeneratorPackage,
    extractor: Extractor,
    config: FidelityConfig,
    pretrained: list[str],
    code_sha256: str,
) -> Scorecard:
    """Distances, manifolds and modes, overall and per class, beside what real slices score.

    `pretrained`: the published extractors within reach, so that what could not be downloaded once is tried again.
    `code_sha256`: the key of the code that this runs, of `steps.code`, so that it runs again when that changes.
    """
    return measure.measure_fidelity(dataset, generator.sample, extractor, config=config)
