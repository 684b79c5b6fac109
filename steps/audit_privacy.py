"""Whether synthetic slices give training patients away."""

from typing import Annotated

import numpy as np
from zenml import step
from zenml.config import CachePolicy

from lungsynth.dataset.store import SliceDataset
from lungsynth.evaluation.extractor import Extractor
from lungsynth.evaluation.privacy import audit
from lungsynth.evaluation.privacy.audit import PrivacyConfig
from lungsynth.evaluation.scorecard import Scorecard
from lungsynth.generators.package import GeneratorPackage
from steps import code


@step(cache_policy=CachePolicy(cache_func=code.privacy))
def audit_privacy(
    dataset: SliceDataset, generator: GeneratorPackage, extractor: Extractor, config: PrivacyConfig
) -> tuple[Annotated[Scorecard, "privacy"], Annotated[np.ndarray, "closest_pairs"]]:
    """Distances to training against held-out patients, membership, and near-duplicates with the closest pairs."""
    scorecard, closest = audit.audit_privacy(dataset, generator.sample, extractor, config, generator.realness)
    return scorecard, closest  # ZenML sees two outputs only in a literal pair
