"""The cohort's DICOM files on this machine's disk."""

from zenml import step

from lungsynth.cohort.cohort import Cohort
from lungsynth.cohort.fetch import FetchConfig
from lungsynth.cohort.fetch import fetch_series as fetch
from lungsynth.cohort.idc import IdcCohortConfig
from lungsynth.cohort.phantom import PhantomCohortConfig
from lungsynth.cohort.series_store import SeriesStore
from steps.materializers import SeriesStoreMaterializer


# Always run: what is there is only counted, and what went missing since is fetched again.
@step(enable_cache=False, output_materializers=SeriesStoreMaterializer)
def fetch_series(cohort: Cohort, source: PhantomCohortConfig | IdcCohortConfig, config: FetchConfig) -> SeriesStore:
    """Fetch every series that is not there yet, or simulate it where the cohort is a phantom's."""
    return fetch(cohort, source, config)
