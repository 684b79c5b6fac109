"""Reads the `parameters` of a run file: YAML that fills a `RunConfig`, with one clear line where it does not."""

import difflib
import os
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NoReturn

import yaml
from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from lungsynth.errors import LungsynthError
from lungsynth.run_config import SOURCES, RunConfig


def load(path: Path) -> dict[str, Any]:
    """The file's content, with the environment variable NAME in place of each `${NAME}`: endpoints differ by site.

    Raises:
        LungsynthError: the file cannot be read, is no YAML mapping, or a variable is not set.
    """
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


def run_config(path: Path, content: dict[str, Any]) -> RunConfig:
    """The configuration that `content`, loaded from `path`, holds under `parameters`.

    Raises:
        LungsynthError: one line that names the file, the key, and what is allowed.
    """
    parameters = content.get("parameters") or {}
    if "cohort" in parameters and "source" not in (parameters["cohort"] or {}):
        fail(path, "parameters.cohort.source", f"is missing; allowed: {', '.join(SOURCES)}")
    try:
        return RunConfig.model_validate(parameters)
    except ValidationError as error:
        explain(path, error.errors()[0], "parameters")


def check_keys(path: Path, where: str, found: Iterable[Any], allowed: Iterable[str]) -> None:
    """Raise a LungsynthError for the first key under `where` that is not allowed."""
    for key in found:
        if key not in allowed:
            fail(path, f"{where}.{key}".lstrip("."), _unknown(str(key), allowed))


def explain(path: Path, detail: ErrorDetails, prefix: str) -> NoReturn:
    """Raise pydantic's error in the words of the user's file."""
    # A tagged union reports its tag as a part of the location; the user's file has no such key.
    location = [str(part) for part in detail["loc"] if part not in SOURCES]
    key = ".".join([prefix, *location]).strip(".")
    if detail["type"] == "extra_forbidden":
        fail(path, key, _unknown(location[-1], _siblings(detail["loc"][:-1])))
    problem = detail["msg"].removeprefix("Value error, ")
    given = "" if isinstance(detail["input"], dict) else f" (given: {detail['input']!r})"
    fail(path, key, f"{problem[0].lower()}{problem[1:]}{given}")


def _siblings(location: tuple[int | str, ...]) -> list[str]:
    """The keys allowed at a place in the run configuration."""
    model: Any = RunConfig
    for part in location:
        if part in SOURCES:
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


def _expand(path: Path, key: str, value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _expand(path, f"{key}.{name}".lstrip("."), item) for name, item in value.items()}
    if isinstance(value, list):
        return [_expand(path, f"{key}.{index}", item) for index, item in enumerate(value)]
    if not isinstance(value, str):
        return value

    def environment(match: re.Match[str]) -> str:
        if match[1] not in os.environ:
            fail(
                path,
                key,
                f"takes its value from the environment variable {match[1]}, which is not set; set it and run again",
            )
        return os.environ[match[1]]

    return re.sub(r"\$\{(\w+)\}", environment, value)


def fail(path: Path, key: str, problem: str) -> NoReturn:
    """Raise the one line that a user gets for a key of a file."""
    raise LungsynthError(f"{path}: {key}: {problem}")
