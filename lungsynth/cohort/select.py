"""One cohort from whichever source the configuration names."""

from typing import Annotated

from pydantic import Field

from lungsynth.cohort.cohort import Cohort
from lungsynth.cohort.huggingface import HuggingFaceCohortConfig, select_huggingface
from lungsynth.cohort.idc import IdcCohortConfig, select_idc
from lungsynth.cohort.phantom import PhantomCohortConfig, select_phantoms
from lungsynth.cohort.pictures import PictureCohortConfig, select_pictures
from lungsynth.cohort.splits import SplitConfig

CohortConfig = Annotated[
    PhantomCohortConfig | IdcCohortConfig | PictureCohortConfig | HuggingFaceCohortConfig,
    Field(discriminator="source"),
]


def select_cohort(config: CohortConfig, splits: SplitConfig) -> Cohort:
    """Choose series or pictures, label their patients and split them.

    Raises:
        LungsynthError: the source cannot be read, a rule left nothing, or a class or split stays empty.
    """
    match config:
        case PhantomCohortConfig():
            return select_phantoms(config, splits)
        case IdcCohortConfig():
            return select_idc(config, splits)
        case PictureCohortConfig():
            return select_pictures(config, splits)
        case HuggingFaceCohortConfig():
            return select_huggingface(config, splits)
