"""From DICOM to training slices."""

from zenml import step
from zenml.config import CachePolicy

from lungsynth.cohort.cohort import Cohort
from lungsynth.cohort.series_store import SeriesStore
from lungsynth.imaging.slices import SliceConfig
from lungsynth.imaging.slices import build_slices as build
from lungsynth.imaging.store import SliceDataset
from steps import code
from steps.materializers import SliceDatasetMaterializer, new_folder


@step(cache_policy=CachePolicy(cache_func=code.imaging), output_materializers=SliceDatasetMaterializer)
def build_slices(cohort: Cohort, series: SeriesStore, config: SliceConfig) -> SliceDataset:
    """Read, segment the lungs, crop, window, resize and label."""
    return build(cohort, series, config, new_folder())
