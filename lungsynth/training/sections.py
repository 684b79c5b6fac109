"""The sections of a run file that training needs, read on machines that have nothing but torch."""

from pathlib import Path
from typing import Any

from pydantic import ValidationError

from lungsynth.run_file import check_keys, explain, section
from lungsynth.training.config import TrainingSections

SECTIONS = (
    "cohort",
    "splits",
    "fetch",
    "slices",
    "generator",
    "training",
    "extractor",
    "fidelity",
    "privacy",
    "utility",
    "gate",
    "registry",
    "checkpoints",
    "outputs",
)
"""The keys under `parameters` of a run file, which `run_config.RunConfig` holds."""


def training_sections(path: Path, content: dict[str, Any]) -> TrainingSections:
    """The sections `generator` and `training`; of the others, only the names are checked.

    Raises:
        LungsynthError: one line that names the file, the key, and what is allowed.
    """
    parameters = section(path, "parameters", content.get("parameters"))
    check_keys(path, "parameters", parameters, allowed=SECTIONS)
    own = {name: parameters[name] for name in TrainingSections.model_fields if name in parameters}
    try:
        return TrainingSections.model_validate(own)
    except ValidationError as error:
        explain(path, error, "parameters", content=own, model=TrainingSections)
