"""The in-domain feature extractor."""

from zenml import step
from zenml.config import CachePolicy

from lungsynth.dataset.store import SliceDataset
from lungsynth.evaluation import extractor
from lungsynth.evaluation.extractor import Extractor, ExtractorConfig
from steps import code
from steps.materializers import ExtractorMaterializer, new_folder


@step(cache_policy=CachePolicy(cache_func=code.extractor), output_materializers=ExtractorMaterializer)
def train_extractor(dataset: SliceDataset, config: ExtractorConfig) -> Extractor:
    """Train the lung CNN on `train` once, for fidelity and privacy both."""
    return extractor.train_extractor(dataset, config, new_folder())
