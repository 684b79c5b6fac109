"""The generator to beat."""

from zenml import step

from lungsynth.evaluation.utility.measure import UtilityConfig
from lungsynth.generators.package import GeneratorPackage
from lungsynth.registry import mlflow_registry
from lungsynth.registry.connection import RegistryConfig
from lungsynth.registry.mlflow_registry import Champion
from steps.materializers import ChampionMaterializer, new_folder


# Always run: the registry is not ours alone. The champion's hash keys what is measured against it.
@step(enable_cache=False, output_materializers=ChampionMaterializer)
def find_champion(generator: GeneratorPackage, utility: UtilityConfig, config: RegistryConfig) -> Champion | None:
    """Download the champion; none where there is none, or where it is this very generator."""
    return mlflow_registry.find_champion(config, generator, utility.task, folder=new_folder())
