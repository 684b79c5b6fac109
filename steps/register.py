"""The model registry."""

from zenml import step

import lungsynth
from lungsynth.dataset.store import SliceDataset
from lungsynth.evaluation.scorecard import Scorecard
from lungsynth.generators.package import GeneratorPackage
from lungsynth.registry import mlflow_registry
from lungsynth.registry.connection import RegistryConfig
from lungsynth.registry.mlflow_registry import Champion, Registration
from lungsynth.verdict.record import Verdict
from steps import code


# Always run: it is idempotent, and completes what an interrupted run left undone.
@step(enable_cache=False)
def register(
    dataset: SliceDataset,
    generator: GeneratorPackage,
    champion: Champion | None,
    scorecard: Scorecard,
    verdict: Verdict,
    config: RegistryConfig,
) -> Registration:
    """Record the verdict in MLflow; make the generator a model version only if it was promoted."""
    return mlflow_registry.register(
        generator,
        scorecard,
        verdict,
        champion=champion,
        data_sha256=dataset.sha256,
        code_version=f"{lungsynth.__version__}+{code.everything()[:12]}",
        config=config,
    )
