"""The base of every configuration: frozen, closed to unknown keys, and with `~` in paths as a shell has it."""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from lungsynth.remote import Place

Seed = Annotated[int, Field(ge=0, le=2**32 - 1)]
"""Seed of a generator that keeps 32 bits, such as torch's on a CPU, which would drop the upper bits of a longer one."""


class Config(BaseModel):
    """Base class of all configurations. Each stands beside the code that it configures.

    Every field has a description: in its `Field`, or below a field that needs none. A number's names the unit, and ends
    with the source of the default in square brackets. `docs/configuration.py` makes a page of them.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False, use_attribute_docstrings=True)

    @classmethod
    def for_content(cls, content: Mapping[str, Any]) -> type[BaseModel]:
        """The class that `content` fills: this one, or one of those for which it stands."""
        return cls

    @model_validator(mode="before")
    @classmethod
    def _no_empty_path(cls, given: Any) -> Any:
        """Refuse an empty path: it would mean the current folder."""
        for name, field in cls.model_fields.items() if isinstance(given, Mapping) else ():
            if given.get(name) == "" and field.annotation in (Path, Path | None, Place, Place | None):
                raise ValueError(f"{name} is empty: name a path, or leave the key out")
        return given

    @field_validator("*")
    @classmethod
    def _home(cls, value: Any) -> Any:
        """Expand `~` in paths here, once: some libraries do it themselves and some do not."""
        return _expanded(value)


def _expanded(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _expanded(item) for key, item in value.items()}
    if not isinstance(value, Path):
        return value
    try:
        return value.expanduser()
    except RuntimeError:
        raise ValueError(f"the home folder that {value.parts[0]} stands for is not known: write it out") from None
