"""Who takes part."""

from zenml import step

from lungsynth.cohort.cohort import Cohort
from lungsynth.cohort.select import CohortConfig
from lungsynth.cohort.select import select_cohort as select
from lungsynth.cohort.splits import SplitConfig
from steps.materializers import CohortMaterializer


# Always run: it takes seconds, and the index or a label table may have changed. Its hash keys all that follows.
@step(enable_cache=False, output_materializers=CohortMaterializer)
def select_cohort(source: CohortConfig, splits: SplitConfig) -> Cohort:
    """Choose series, label patients and split them."""
    return select(source, splits)
