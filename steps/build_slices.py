"""From the object store to training slices."""

from zenml import step

from lungsynth.cohort.cohort import Cohort
from lungsynth.cohort.phantom import PhantomCohortConfig
from lungsynth.cohort.select import CohortConfig
from lungsynth.dataset.store import SliceDataset
from lungsynth.fetching.fetch import FetchConfig
from lungsynth.report.build import draw_build
from lungsynth.slicing import shards
from lungsynth.slicing.series import SliceConfig
from steps.materializers import SliceDatasetMaterializer


# Always run: shards that are there are only opened, and what could not be fetched is tried again. Fetching and cutting
# are one step, shard by shard: the cohort may be larger than the disk, and pods share no disk.
@step(enable_cache=False, output_materializers=SliceDatasetMaterializer)
def build_slices(cohort: Cohort, source: CohortConfig, fetch: FetchConfig, config: SliceConfig) -> SliceDataset:
    """Fetch or simulate, read, segment the lungs, crop, window, resize and label."""
    dataset = shards.build_slices(
        cohort, fetch, config, phantoms=source if isinstance(source, PhantomCohortConfig) else None
    )
    draw_build(dataset)
    return dataset
