"""Reads the `parameters` of a run file: YAML that fills a `RunConfig`, with one clear line where it does not.

Training alone needs two of its sections, on machines that have nothing but torch: what only the others need is imported
when they are read.
"""

import difflib
import os
import re
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import yaml
from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from lungsynth.errors import LungsynthError
from lungsynth.generators.family import DEFAULT, GeneratorConfig, families, family
from lungsynth.training.config import TrainingSections

if TYPE_CHECKING:
    from lungsynth.run_config import RunConfig

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
    "outputs",
)
"""The keys of a `RunConfig`."""


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


def run_config(path: Path, content: dict[str, Any]) -> "RunConfig":
    """The configuration that `content`, loaded from `path`, holds under `parameters`.

    Raises:
        LungsynthError: one line that names the file, the key, and what is allowed.
    """
    from lungsynth.run_config import SOURCES, RunConfig

    parameters = content.get("parameters") or {}
    if "cohort" in parameters and "source" not in (parameters["cohort"] or {}):
        fail(path, "parameters.cohort.source", f"is missing; allowed: {', '.join(SOURCES)}")
    try:
        return RunConfig.model_validate(parameters)
    except ValidationError as error:
        explain(path, error, "parameters", parameters, RunConfig)


def training_sections(path: Path, content: dict[str, Any]) -> TrainingSections:
    """The sections `generator` and `training`; of the others, only the names are checked.

    Raises:
        LungsynthError: one line that names the file, the key, and what is allowed.
    """
    parameters = content.get("parameters") or {}
    check_keys(path, "parameters", parameters, SECTIONS)
    own = {name: parameters[name] for name in TrainingSections.model_fields if name in parameters}
    try:
        return TrainingSections.model_validate(own)
    except ValidationError as error:
        explain(path, error, "parameters", own, TrainingSections)


def check_keys(path: Path, where: str, found: Iterable[Any], allowed: Iterable[str]) -> None:
    """Raise a LungsynthError for the first key under `where` that is not allowed."""
    for key in found:
        if key not in allowed:
            fail(path, f"{where}.{key}".lstrip("."), _unknown(str(key), allowed))


def explain(path: Path, error: ValidationError, prefix: str, content: Any, model: type[BaseModel]) -> NoReturn:
    """Raise pydantic's error, of `content` that was to fill `model`, in the words of the user's file."""
    # Of several, an unknown key: it explains a missing one. Else the deepest: it is about what was meant.
    detail = max(error.errors(), key=lambda one: (one["type"] == "extra_forbidden", len(one["loc"])))
    location, allowed = _place(detail, content, model)
    key = ".".join([prefix, *location]).strip(".")
    if detail["type"] == "extra_forbidden":
        fail(path, key, _unknown(location[-1], allowed))
    problem = detail["msg"].removeprefix("Value error, ")
    given = "" if isinstance(detail["input"], dict) else f" (given: {detail['input']!r})"
    fail(path, key, f"{problem[0].lower()}{problem[1:]}{given}")


def _place(detail: ErrorDetails, content: Any, model: Any) -> tuple[list[str], list[str]]:
    """Where in the user's file the error lies, and the keys that its section may have.

    pydantic also reports which member of a union it tried; the user's file has no such key.
    """
    location: list[str] = []
    options = [model]
    missing = len(detail["loc"]) - 1 if detail["type"] == "missing" else None
    for number, part in enumerate(detail["loc"]):
        if isinstance(content, dict) and (part in content or number == missing):
            location.append(str(part))
            content = content.get(part)
            fields = [option.model_fields for option in options if hasattr(option, "model_fields")]
            inner = [found[str(part)].annotation for found in fields if part in found]
            options = [member for annotation in inner for member in _members(annotation, content)] or options
        elif isinstance(content, list) and isinstance(part, int):
            location.append(str(part))
            content = content[part]
        else:
            options = [option for option in options if _is_tagged(option, str(part))] or options
    return location, sorted({name for option in options for name in getattr(option, "model_fields", ())})


def _members(annotation: Any, content: Any) -> list[Any]:
    """The models that a field's content may fill."""
    if annotation is GeneratorConfig and isinstance(content, dict) and content.get("family", DEFAULT) in families():
        return [family(content.get("family", DEFAULT)).config]
    return list(getattr(annotation, "__args__", [annotation]))


def _is_tagged(model: Any, tag: str) -> bool:
    fields = getattr(model, "model_fields", {}).values()
    return getattr(model, "__name__", "") == tag or any(field.default == tag for field in fields)


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
