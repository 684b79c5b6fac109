"""Whether synthetic slices give training patients away."""

from typing import Annotated

from zenml import step

from lungsynth.dataset.store import SliceDataset
from lungsynth.evaluation.extractor import Extractor
from lungsynth.evaluation.privacy import audit
from lungsynth.evaluation.privacy.checks import PrivacyConfig
from lungsynth.evaluation.privacy.closest_pairs import ClosestPairs
from lungsynth.evaluation.scorecard import Scorecard
from lungsynth.generators.package import GeneratorPackage
from steps.materializers import ClosestPairsMaterializer


@step(
    output_materializers={"closest_pairs": ClosestPairsMaterializer},
)
def audit_privacy(
    dataset: SliceDataset,
    generator: GeneratorPackage,
    extractor: Extractor,
    config: PrivacyConfig,
    code_sha256: str,
) -> tuple[Annotated[Scorecard, "privacy"], Annotated[ClosestPairs, "closest_pairs"]]:
    """Distances to training against held-out patients, membership, and near-duplicates with the closest pairs.

    `code_sha256`: the key of the code that this runs, of `steps.code`, so that it runs again when that changes.
    """
    result = audit.audit_privacy(dataset, generator.sample, extractor, config=config, realness=generator.realness)
    return result.scorecard, result.closest_pairs  # ZenML sees two outputs only in a literal pair
