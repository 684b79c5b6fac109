"""The configuration of one run: a section for each part, each defined beside the code that it configures."""

from pathlib import Path
from typing import Any

from pydantic import Field, ValidationError, model_validator

from lungsynth.cohort.idc import IdcCohortConfig
from lungsynth.cohort.phantom import PhantomCohortConfig
from lungsynth.cohort.select import CohortConfig
from lungsynth.cohort.splits import SplitConfig
from lungsynth.evaluation.extractor import ExtractorConfig
from lungsynth.evaluation.fidelity.measure import FidelityConfig
from lungsynth.evaluation.privacy.checks import PrivacyConfig
from lungsynth.evaluation.utility.measure import UtilityConfig
from lungsynth.fetching.fetch import FetchConfig
from lungsynth.generators.family import family
from lungsynth.registry.connection import RegistryConfig
from lungsynth.remote import Place
from lungsynth.run_file import explain, fail, section
from lungsynth.slicing.series import SliceConfig
from lungsynth.training.config import TrainingSections
from lungsynth.verdict.gate import GateConfig

SOURCES = ("phantom", "idc", "pictures", "huggingface")


class RunConfig(TrainingSections):
    """What `parameters:` holds in a run file; a section left out takes its defaults."""

    cohort: CohortConfig
    splits: SplitConfig = SplitConfig()
    fetch: FetchConfig = FetchConfig()
    slices: SliceConfig = SliceConfig()
    extractor: ExtractorConfig = ExtractorConfig()
    fidelity: FidelityConfig = FidelityConfig()
    privacy: PrivacyConfig = PrivacyConfig()
    utility: UtilityConfig = UtilityConfig()
    gate: GateConfig = GateConfig()
    registry: RegistryConfig = RegistryConfig()
    checkpoints: Place = Field(
        Path("data/checkpoints"), description="folder or URL for what an interrupted training goes on from"
    )
    outputs: Path = Field(Path("outputs"), description="folder for the results, one subfolder a run")

    @property
    def phantoms(self) -> PhantomCohortConfig | None:
        """The simulated cohort's configuration, where there is one: its series are made, not fetched."""
        return self.cohort if isinstance(self.cohort, PhantomCohortConfig) else None

    @model_validator(mode="after")
    def _lung_segmentations(self) -> "RunConfig":
        fetched = isinstance(self.cohort, IdcCohortConfig) and self.cohort.lung_seg is not None
        if fetched != (self.slices.lungs.backend == "idc-seg"):
            raise ValueError("cohort.lung_seg and slices.lungs.backend: idc-seg need each other: give both or neither")
        return self

    @model_validator(mode="after")
    def _masks_where_they_are_learnt(self) -> "RunConfig":
        if self.utility.task == "segmentation" and not self.generator.masks:
            raise ValueError("utility.task segmentation needs a generator of pairs: set generator.masks: true")
        if self.generator.masks and not self.slices.masks:
            raise ValueError("generator.masks needs slices with masks to learn from: set slices.masks: true")
        return self

    @model_validator(mode="after")
    def _discriminator_that_is_asked(self) -> "RunConfig":
        if "discriminator" in self.utility.filters.use:
            if family(self.generator.family).discriminator is None:
                raise ValueError(
                    f"utility.filters.use names discriminator, and {self.generator.family} has none: leave it out"
                )
            if self.generator.masks:
                raise ValueError(
                    "utility.filters.use names discriminator, which wants masks too where generator.masks is true: "
                    "leave one of them out"
                )
        return self

    @model_validator(mode="after")
    def _one_size(self) -> "RunConfig":
        if self.generator.size != self.slices.size:
            raise ValueError(
                f"generator.size is {self.generator.size} and slices.size {self.slices.size}: give both the same"
            )
        return self


def run_config(path: Path, content: dict[str, Any]) -> RunConfig:
    """The configuration that `content`, loaded from `path`, holds under `parameters`.

    Raises:
        LungsynthError: one line that names the file, the key, and what is allowed.
    """
    parameters = section(path, "parameters", content.get("parameters"))
    if "cohort" in parameters and "source" not in section(path, "parameters.cohort", parameters["cohort"]):
        fail(path, "parameters.cohort.source", f"is missing; allowed: {', '.join(SOURCES)}")
    try:
        return RunConfig.model_validate(parameters)
    except ValidationError as error:
        explain(path, error, "parameters", content=parameters, model=RunConfig)
