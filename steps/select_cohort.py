"""Who takes part."""

from zenml import step

from lungsynth.cohort import select
from lungsynth.cohort.cohort import Cohort
from lungsynth.cohort.select import CohortConfig
from lungsynth.cohort.splits import SplitConfig
from lungsynth.registry.check import check_registry
from lungsynth.registry.connection import RegistryConfig
from steps.materializers import CohortMaterializer
from steps.parameters import run_parameters


# Always run: it takes seconds, and the index or a label table may have changed. Its hash keys all that follows.
@step(enable_cache=False, output_materializers=CohortMaterializer)
def select_cohort(source: CohortConfig, splits: SplitConfig) -> Cohort:
    """See whether the registry could take what comes of it; then choose series, label patients and split them."""
    check_registry(RegistryConfig.model_validate(run_parameters()["registry"]))
    return select.select_cohort(source, splits)
