"""A run file as ZenML reads it: the parts that are ZenML's own, such as steps, settings and caches, are checked here.

ZenML ignores unknown keys, only warns of unknown steps, and answers bad values with pages of traceback. So the whole
file is checked before ZenML sees it; `lungsynth.run_file` checks `parameters`, which are a `RunConfig`.
"""

import json
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError
from zenml.config import DockerSettings, ResourceSettings
from zenml.config.pipeline_run_configuration import PipelineRunConfiguration
from zenml.config.step_configurations import StepConfigurationUpdate
from zenml.utils.env_utils import ENV_VARIABLE_PLACEHOLDER_PATTERN

from lungsynth.errors import LungsynthError
from lungsynth.run_config import run_config
from lungsynth.run_file import check_keys, explain, fail, load, section
from pipelines.targets import check_places, check_settings, check_stack, laid_over, schedule_of, target_of
from steps import LOOKING

SETTINGS: dict[str, type[BaseModel]] = {"docker": DockerSettings, "resources": ResourceSettings}
COMPONENT = r"(orchestrator|step_operator|artifact_store|image_builder|experiment_tracker)(\.\w+)?"
"""Other keys of `settings`: of a stack's component, or of its flavour."""


def read_run_file(path: Path, steps: Iterable[str]) -> tuple[dict[str, Any], Path]:
    """Read, expand and check a run file.

    Args:
        path: A YAML file.
        steps: The pipeline's step names; `steps:` in the file may hold no other.

    Returns:
        The run configuration for ZenML, `parameters` complete with every default, so that a run records all of its
        settings; and the folder for the results.

    Raises:
        LungsynthError: One line that names the file, the key, and what is allowed.
    """
    content = load(path)
    check_keys(path, "", content, allowed=["target", *PipelineRunConfiguration.model_fields])
    if target := target_of(path, content):
        content = laid_over(content, target.content)
    content = laid_over(content, schedule_of(path, content))
    for name, given in section(path, "steps", content.get("steps")).items():
        check_keys(path, "steps", [name], allowed=steps)
        step = section(path, f"steps.{name}", given)
        check_keys(path, f"steps.{name}", step, allowed=StepConfigurationUpdate.model_fields)
        _check_settings(path, f"steps.{name}.settings", step.get("settings"))
    _check_settings(path, "settings", content.get("settings"))
    check_stack(target)
    check_settings(path, content)
    config = run_config(path, content)
    try:
        checked = PipelineRunConfiguration.model_validate(content)
    except ValidationError as error:
        explain(path, error, "", content=content, model=PipelineRunConfiguration)
    _check_cache(path, checked)
    parameters = config.model_dump(mode="json", exclude={"outputs"})
    check_places(path, content, parameters)
    try:
        json.dumps(parameters, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        raise LungsynthError(
            f"{path}: a value, perhaps a path from an environment variable, is no UTF-8, which ZenML cannot record: "
            "rename the file or folder, or link to it by another name"
        ) from None
    content |= {"parameters": parameters}
    _check_filled(path, "", content)
    return content, config.outputs


def _check_filled(path: Path, key: str, value: Any) -> None:
    """Refuse what ZenML would fill in anew: it would put another value there, or end with a traceback."""
    if isinstance(value, dict | list):
        for name, item in value.items() if isinstance(value, dict) else enumerate(value):
            _check_filled(path, f"{key}.{name}".lstrip("."), item)
    elif isinstance(value, str) and ENV_VARIABLE_PLACEHOLDER_PATTERN.search(value):
        fail(path, key, "still holds a ${NAME}, which ZenML would fill in again: a run cannot have it as a value")


def _check_cache(path: Path, content: PipelineRunConfiguration) -> None:
    """Refuse a cache for steps that look at the world each time. At the top of a file, it would hold for all steps."""
    looking = {name: step for name, step in (content.steps or {}).items() if name in LOOKING}
    wanted = {"enable_cache": content.enable_cache}
    wanted |= {f"steps.{name}.enable_cache": step.enable_cache for name, step in looking.items()}
    for key in filter(wanted.get, wanted):
        fail(
            path, key, f"{', '.join(LOOKING)} must look anew each time; leave it out: all others are cached without it"
        )


def _check_settings(path: Path, where: str, settings: Any) -> None:
    for name, given in section(path, where, settings).items():
        if name in SETTINGS:
            check_keys(
                path, f"{where}.{name}", section(path, f"{where}.{name}", given), allowed=SETTINGS[name].model_fields
            )
        elif not re.fullmatch(COMPONENT, name):
            fail(
                path,
                f"{where}.{name}",
                "is unknown; allowed: docker, resources, or COMPONENT.FLAVOR as in orchestrator.kubernetes",
            )
