"""Who takes part."""

from zenml import step

from lungsynth.cohort.cohort import Cohort
from lungsynth.cohort.idc import IdcCohortConfig, select_idc
from lungsynth.cohort.phantom import PhantomCohortConfig, select_phantoms
from lungsynth.cohort.splits import SplitConfig
from steps.materializers import CohortMaterializer


# Always run: it takes seconds, and the index or a label table may have changed. Its hash keys all that follows.
@step(enable_cache=False, output_materializers=CohortMaterializer)
def select_cohort(source: PhantomCohortConfig | IdcCohortConfig, splits: SplitConfig) -> Cohort:
    """Choose series, label patients and split them."""
    if isinstance(source, PhantomCohortConfig):
        return select_phantoms(source, splits)
    return select_idc(source, splits)
