"""What a run file's values stand for: environment variables and home folders."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args, get_origin

import pytest
from pydantic import BaseModel

from lungsynth.config import Config
from lungsynth.errors import LungsynthError
from lungsynth.generators.family import families, family
from lungsynth.remote import Place
from lungsynth.run_config import RunConfig, run_config
from lungsynth.run_file import load


def read(folder: Path, value: str) -> Any:
    """The value of a key, `value` in double quotes."""
    (folder / "run.yaml").write_text(f'parameters: {{slices: {{root: "{value}"}}}}')
    return load(folder / "run.yaml")["parameters"]["slices"]["root"]


@pytest.fixture(autouse=True)
def environment(monkeypatch):
    monkeypatch.setenv("PLACE", "/data/here")
    monkeypatch.setenv("EMPTY", "")
    monkeypatch.setenv("BLANK", "  ")
    monkeypatch.setenv("DOLLARS", "a$PLACE${PLACE}$$")
    monkeypatch.setenv("HOME", "/home/someone")
    monkeypatch.delenv("ABSENT", raising=False)


@pytest.mark.parametrize(
    ("value", "stands_for"),
    [
        ("${PLACE}/x", "/data/here/x"),
        ("$PLACE/x", "/data/here/x"),
        ("${PLACE:-/y}", "/data/here"),
        ("${ABSENT:-/y}", "/y"),
        ("${EMPTY:-/y}", "/y"),
        ("${ABSENT:-$PLACE/z}", "/data/here/z"),
        ("${ABSENT:-${PLACE}/z}", "/data/here/z"),
        ("${DOLLARS}", "a$PLACE${PLACE}$$"),  # it is not looked through again
        ("$$PLACE", "$PLACE"),
        ("$${PLACE}", "${PLACE}"),
        ("(person.*)_(a|b$)$", "(person.*)_(a|b$)$"),
        (r"\\$PLACE", r"\$PLACE"),  # a regular expression's dollar
        ("$1", "$1"),
    ],
)
def test_what_a_value_with_dollars_stands_for(tmp_path, value, stands_for):
    assert read(tmp_path, value) == stands_for


@pytest.mark.parametrize(
    ("value", "says"),
    [
        ("${ABSENT}", "the environment variable ABSENT, which is not set"),
        ("$ABSENT/x", "the environment variable ABSENT, which is not set"),
        ("${EMPTY}", "the environment variable EMPTY, which is empty"),
        ("${BLANK}/x", "the environment variable BLANK, which is empty"),
        ("${ABSENT:-$EMPTY}", "the environment variable EMPTY, which is empty"),
        ("${PLACE", "has ${PLACE: write ${NAME}"),
        ("${PLACE:?no}", "has ${PLACE:?no}: write ${NAME}"),
        ("${}", "has ${}: write ${NAME}"),
    ],
)
def test_a_variable_that_stands_for_nothing_is_named(tmp_path, value, says):
    with pytest.raises(LungsynthError) as error:
        read(tmp_path, value)
    assert "run.yaml: parameters.slices.root: " in str(error.value)
    assert says in str(error.value)
    assert "\n" not in str(error.value)


def test_elsewhere_a_bare_name_is_left_to_containers(tmp_path):
    (tmp_path / "run.yaml").write_text("settings: {docker: {environment: {PATH: '${PLACE}:$PATH'}}}")
    assert load(tmp_path / "run.yaml")["settings"]["docker"]["environment"]["PATH"] == "/data/here:$PATH"


def _models(annotation: Any) -> Iterator[type[BaseModel]]:
    """All models of which a field of this type may be made."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
        for field in annotation.model_fields.values():
            yield from _models(field.annotation)
    for part in get_args(annotation):
        yield from _models(part)


def _holds_paths(annotation: Any) -> bool:
    return annotation is Path or any(map(_holds_paths, get_args(annotation)))


def test_every_section_that_has_paths_expands_the_home_folder():
    models = {*_models(RunConfig), *(family(name).config for name in families())}
    paths = {
        (model, name)
        for model in models
        for name, field in model.model_fields.items()
        if _holds_paths(field.annotation)
    }
    assert {name for _, name in paths} >= {
        "root",
        "cache",
        "folder",
        "table",
        "slice_csv",
        "weights",
        "outputs",
        "query",
    }
    assert all(issubclass(model, Config) for model, _ in paths)
    # What `Config` knows to look into.
    kinds = {model.model_fields[name].annotation for model, name in paths}
    assert all(kind in (Path, Path | None, Place, Place | None) or get_origin(kind) is dict for kind in kinds)


def test_home_folders_are_expanded_once_and_in_paths_alone(tmp_path):
    sections = (
        "{cohort: {source: idc, labels: {slice_csv: ~/labels.csv}}, slices: {root: '${ABSENT:-~/sl}'}, outputs: ~/,"
        " fetch: {root: $HOME/fetched}, fidelity: {weights: {inception: ~/w.pth}, cache: null}, extractor: {},"
        " privacy: {cache: a/~/b}, registry: {experiment: ~/x}}"
    )
    (tmp_path / "run.yaml").write_text(f"parameters: {sections}")
    config = run_config(tmp_path / "run.yaml", load(tmp_path / "run.yaml"))
    assert config.cohort.labels.slice_csv == Path("/home/someone/labels.csv")
    assert config.slices.root == Path("/home/someone/sl")
    assert config.fetch.root == Path("/home/someone/fetched")
    assert config.fidelity.weights == {"inception": Path("/home/someone/w.pth")}
    assert config.outputs == Path("/home/someone")
    assert config.privacy.cache == Path("a/~/b")
    assert config.fidelity.cache is None
    assert config.registry.experiment == "~/x"


@pytest.mark.parametrize(
    ("section", "says"),
    [
        ("slices: {root: ''}", "parameters.slices: root is empty: name a path, or leave the key out"),
        ("slices: {root: '${ABSENT:-}'}", "parameters.slices: root is empty"),
        ("privacy: {cache: ''}", "parameters.privacy: cache is empty"),
        ("outputs: ''", "parameters: outputs is empty"),
        ("outputs: ~nobody-of-this-name/x", "parameters.outputs: the home folder that ~nobody-of-this-name stands for"),
    ],
)
def test_a_path_that_is_none_is_named(tmp_path, section, says):
    (tmp_path / "run.yaml").write_text(f"parameters: {{cohort: {{source: phantom}}, {section}}}")
    with pytest.raises(LungsynthError) as error:
        run_config(tmp_path / "run.yaml", load(tmp_path / "run.yaml"))
    assert f"run.yaml: {says}" in str(error.value)
