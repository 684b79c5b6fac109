"""Reads a run file: a ZenML run configuration whose `parameters` are a `RunConfig`.

ZenML ignores unknown keys, only warns of unknown steps and answers bad values with pages of traceback. So a run file is
checked here, whole and first.
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

from lungsynth.errors import LungsynthError
from lungsynth.run_file import check_keys, explain, fail, load, run_config

_SETTINGS: dict[str, type[BaseModel]] = {"docker": DockerSettings, "resources": ResourceSettings}


def read_run_file(path: Path, steps: Iterable[str]) -> tuple[dict[str, Any], Path]:
    """Read, expand and check a run file.

    `${NAME}` in a value stands for the environment variable of that name: endpoints and label tables differ by site.

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
    check_keys(path, "", content, PipelineRunConfiguration.model_fields)
    for name, step in (content.get("steps") or {}).items():
        check_keys(path, "steps", [name], steps)
        check_keys(path, f"steps.{name}", step or {}, StepConfigurationUpdate.model_fields)
        _check_settings(path, f"steps.{name}.settings", (step or {}).get("settings") or {})
    _check_settings(path, "settings", content.get("settings") or {})
    config = run_config(path, content)
    try:
        PipelineRunConfiguration.model_validate(content)
    except ValidationError as error:
        explain(path, error, "", content, PipelineRunConfiguration)
    parameters = config.model_dump(mode="json", exclude={"outputs"})
    try:
        json.dumps(parameters, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        raise LungsynthError(
            f"{path}: a value, perhaps a path from an environment variable, is no UTF-8, which ZenML cannot record: "
            "rename the file or folder, or link to it by another name"
        ) from None
    return content | {"parameters": parameters}, config.outputs


def _check_settings(path: Path, where: str, settings: dict[str, Any]) -> None:
    for name, fields in settings.items():
        if name in _SETTINGS:
            check_keys(path, f"{where}.{name}", fields or {}, _SETTINGS[name].model_fields)
        elif not re.fullmatch(
            r"(orchestrator|step_operator|artifact_store|image_builder|experiment_tracker)(\.\w+)?", name
        ):
            fail(
                path,
                f"{where}.{name}",
                "is unknown; allowed: docker, resources, or COMPONENT.FLAVOR as in orchestrator.kubernetes",
            )
