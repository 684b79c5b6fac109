"""Reads run files: YAML 1.2 with environment variables filled in, and one clear line for what is wrong in one."""

import difflib
import os
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NoReturn

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from lungsynth.config import Config
from lungsynth.errors import LungsynthError, reason
from lungsynth.run_yaml import DocumentError, parse

VARIABLE = re.compile(
    r"\\\$"  # a regular expression's dollar, left as it is
    r"|\$(?P<escape>\$)"
    r"|\$(?P<plain>[A-Za-z_]\w*)"
    r"|\$\{(?P<name>[A-Za-z_]\w*)(?::-(?P<default>(?:[^{}]|\{[^{}]*\})*))?\}"
    r"|(?P<wrong>\$\{[^}]*\}?)"
)


def load(path: Path) -> dict[str, Any]:
    """The file's content, with environment variables filled in: endpoints and folders differ by site.

    In a value, `${NAME}` stands for the variable of that name, and under `parameters` `$NAME` too; elsewhere, ZenML's
    settings leave that to containers. `${NAME:-DEFAULT}` stands for it or, where it is not set or empty, for DEFAULT;
    `$$` for a dollar, as does one that no name follows. What a variable holds is not looked through again.

    Raises:
        LungsynthError: the file cannot be read, is no YAML mapping, or a variable is not set or empty.
    """
    try:
        content = parse(path.read_bytes())
    except OSError as error:
        raise LungsynthError(f"{path}: cannot be read: {reason(error)}") from error
    except DocumentError as error:
        raise LungsynthError(f"{path}: is not valid YAML: {error}") from None
    if not isinstance(content, dict):
        raise LungsynthError(
            f"{path}: is empty or no mapping; it needs at least `parameters: {{cohort: {{source: phantom}}}}`"
        )
    result: dict[str, Any] = _expand(path, "", content)
    return result


def section(path: Path, where: str, found: Any) -> dict[str, Any]:
    """What stands under the key `where`, which must be keys and values, or nothing."""
    if found is not None and not isinstance(found, dict):
        fail(path, where, f"needs keys and their values below it (given: {found!r})")
    return found or {}


def check_keys(path: Path, where: str, found: Iterable[Any], *, allowed: Iterable[str]) -> None:
    """Raise a LungsynthError for the first key under `where` that is not allowed."""
    for key in found:
        if key not in allowed:
            fail(path, f"{where}.{key}".lstrip("."), _unknown(str(key), allowed))


def explain(path: Path, error: ValidationError, prefix: str, *, content: Any, model: type[BaseModel]) -> NoReturn:
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
    if isinstance(annotation, type) and issubclass(annotation, Config) and isinstance(content, dict):
        return [annotation.for_content(content)]
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
    return VARIABLE.sub(lambda match: _filled(path, key, match), value) if isinstance(value, str) else value


def _filled(path: Path, key: str, match: re.Match[str]) -> str:
    """What stands for one match of `VARIABLE` in the value of `key`."""
    if match["wrong"]:
        fail(path, key, f"has {match['wrong']}: write ${{NAME}} or ${{NAME:-DEFAULT}}, or $$ for a dollar")
    name = match["plain"] if key.startswith("parameters.") else None
    name = name or match["name"]
    if name is None:
        return match["escape"] or match[0]
    if found := os.environ.get(name, "").strip() and os.environ[name]:
        return found
    if match["default"] is not None:
        return VARIABLE.sub(lambda inner: _filled(path, key, inner), match["default"])
    state = "empty" if name in os.environ else "not set"
    fail(
        path,
        key,
        f"takes its value from the environment variable {name}, which is {state}; set it and run again, write "
        f"${{{name}:-DEFAULT}}, or $$ where a dollar is meant",
    )


def fail(path: Path, key: str, problem: str) -> NoReturn:
    """Raise the one line that a user gets for a key of a file."""
    raise LungsynthError(f"{path}: {key}: {problem}")
