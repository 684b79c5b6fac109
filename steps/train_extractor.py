"""The in-domain feature extractor."""

from zenml import step

from lungsynth.dataset.store import SliceDataset
from lungsynth.evaluation import extractor
from lungsynth.evaluation.extractor import Extractor, ExtractorConfig
from steps.materializers import ExtractorMaterializer, new_folder


@step(output_materializers=ExtractorMaterializer)
def train_extractor(dataset: SliceDataset, config: ExtractorConfig, code_sha256: str) -> Extractor:
    """Train the lung CNN on `train` once, for fidelity and privacy both.

    `code_sha256`: the key of the code that this runs, of `steps.code`, so that it runs again when that changes.
    """
    return extractor.train_extractor(dataset, config, new_folder())
