"""Reads a run file: a ZenML run configuration whose `parameters` are a `RunConfig`.

ZenML ignores unknown keys, only warns of unknown steps and answers bad values with pages of traceback. So a run file is
checked here, whole and first.
"""

import difflib
import os
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NoReturn

import yaml
from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails
from zenml.config import DockerSettings, ResourceSettings
from zenml.config.pipeline_run_configuration import PipelineRunConfiguration
from zenml.config.step_configurations import StepConfigurationUpdate

from lungsynth.errors import LungsynthError
from lungsynth.run_config import RunConfig

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
    content = _load(path)
    _check_keys(path, "", content, PipelineRunConfiguration.model_fields)
    for name, step in (content.get("steps") or {}).items():
        _check_keys(path, "steps", [name], steps)
        _check_keys(path, f"steps.{name}", step or {}, StepConfigurationUpdate.model_fields)
        _check_settings(path, f"steps.{name}.settings", (step or {}).get("settings") or {})
    _check_settings(path, "settings", content.get("settings") or {})
    parameters = content.get("parameters") or {}
    if "cohort" in parameters and "source" not in (parameters["cohort"] or {}):
        _fail(path, "parameters.cohort.source", "is missing; allowed: phantom, idc")
    try:
        config = RunConfig.model_validate(parameters)
        PipelineRunConfiguration.model_validate(content)
    except ValidationError as error:
        _explain(path, error.errors()[0], "parameters" if error.title == "RunConfig" else "")
    return content | {"parameters": config.model_dump(mode="json", exclude={"outputs"})}, config.outputs


def _load(path: Path) -> dict[str, Any]:
    try:
        content = yaml.safe_load(path.read_text())
    except OSError as error:
        raise LungsynthError(f"{path}: cannot be read: {error.strerror}") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise LungsynthError(f"{path}: is not valid YAML: {' '.join(str(error).split())}") from error
    if not isinstance(content, dict):
        raise LungsynthError(
            f"{path}: is empty or no mapping; it needs at least `parameters: {{cohort: {{source: phantom}}}}`"
        )
    return _expand(path, "", content)


def _expand(path: Path, key: str, value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _expand(path, f"{key}.{name}".lstrip("."), item) for name, item in value.items()}
    if isinstance(value, list):
        return [_expand(path, f"{key}.{index}", item) for index, item in enumerate(value)]
    if not isinstance(value, str):
        return value

    def environment(match: re.Match[str]) -> str:
        if match[1] not in os.environ:
            _fail(
                path,
                key,
                f"takes its value from the environment variable {match[1]}, which is not set; set it and run again",
            )
        return os.environ[match[1]]

    return re.sub(r"\$\{(\w+)\}", environment, value)


def _check_keys(path: Path, where: str, found: Iterable[Any], allowed: Iterable[str]) -> None:
    for key in found:
        if key not in allowed:
            _fail(path, f"{where}.{key}".lstrip("."), _unknown(str(key), allowed))


def _check_settings(path: Path, where: str, settings: dict[str, Any]) -> None:
    for name, fields in settings.items():
        if name in _SETTINGS:
            _check_keys(path, f"{where}.{name}", fields or {}, _SETTINGS[name].model_fields)
        elif not re.fullmatch(
            r"(orchestrator|step_operator|artifact_store|image_builder|experiment_tracker)(\.\w+)?", name
        ):
            _fail(
                path,
                f"{where}.{name}",
                "is unknown; allowed: docker, resources, or COMPONENT.FLAVOR as in orchestrator.kubernetes",
            )


def _explain(path: Path, detail: ErrorDetails, prefix: str) -> NoReturn:
    # A tagged union reports its tag as a part of the location; the user's file has no such key.
    location = [str(part) for part in detail["loc"] if part not in ("phantom", "idc")]
    key = ".".join([prefix, *location]).strip(".")
    if detail["type"] == "extra_forbidden":
        _fail(path, key, _unknown(location[-1], _siblings(detail["loc"][:-1])))
    problem = detail["msg"].removeprefix("Value error, ")
    given = "" if isinstance(detail["input"], dict) else f" (given: {detail['input']!r})"
    _fail(path, key, f"{problem[0].lower()}{problem[1:]}{given}")


def _siblings(location: tuple[int | str, ...]) -> list[str]:
    """The keys allowed at a place in the run configuration."""
    model: Any = RunConfig
    for part in location:
        if part in ("phantom", "idc"):
            continue
        annotation = model.model_fields[str(part)].annotation
        options = [
            option for option in getattr(annotation, "__args__", [annotation]) if hasattr(option, "model_fields")
        ]
        tagged = [option for option in options if location[1:2] == (_source_of(option),)]
        model = (tagged or options)[0]
    return list(model.model_fields)


def _source_of(model: type[BaseModel]) -> Any:
    return model.model_fields["source"].default if "source" in model.model_fields else None


def _unknown(key: str, allowed: Iterable[str]) -> str:
    close = difflib.get_close_matches(key, allowed, n=1)
    return f"is unknown{f'; did you mean {close[0]}?' if close else ''}; allowed: {', '.join(sorted(allowed))}"


def _fail(path: Path, key: str, problem: str) -> NoReturn:
    raise LungsynthError(f"{path}: {key}: {problem}")
