"""The page of all keys, the schema that editors check a run file by, and the descriptions that both are made from."""

import re
from collections.abc import Iterator
from typing import Any

import pytest
from jsonschema import Draft7Validator

from docs.configuration import PAGE, SCHEMA, SOURCE, is_number, page, schema_text, unit_of
from docs.run_schema import definitions, run_schema
from lungsynth.config import Config
from lungsynth.generators.family import families, family
from lungsynth.run_yaml import parse
from lungsynth.training.config import TrainingConfig
from lungsynth.training.sections import SECTIONS

RUN_FILES = [
    path
    for path in sorted(SCHEMA.parent.rglob("*.yaml"))
    if "\nparameters:" in path.read_text() and path.parent.name != "targets"
]
NO_SOURCE = "seed of ", "seed; "
"""A seed is as good as any other."""


@pytest.fixture(scope="module")
def validator() -> Draft7Validator:
    schema = run_schema()
    Draft7Validator.check_schema(schema)
    return Draft7Validator(schema)


@pytest.mark.parametrize(("path", "content"), [(PAGE, page), (SCHEMA, schema_text)], ids=["page", "schema"])
def test_a_generated_file_is_current(path, content):
    assert path.read_text() == content(), f"{path.name} is out of date: run `make docs`"


def _fields() -> Iterator[tuple[str, dict[str, Any]]]:
    for name, model in definitions().items():
        for key, node in model["properties"].items():
            if "const" not in node:  # the word that chooses one of several sections
                yield f"{name}.{key}", node


def test_every_field_says_what_it_is():
    """A section says it by the docstring of its model."""
    models = {name for name, model in definitions().items() if not model.get("description")}
    fields = [name for name, node in _fields() if not node.get("description") and "$ref" not in str(node)]
    assert (sorted(models), fields) == ([], [])


def test_every_number_says_its_unit():
    assert [name for name, node in _fields() if is_number(node) and not unit_of(node)] == []


def test_every_number_that_is_a_default_says_where_it_comes_from():
    chosen = [
        (name, node["description"])
        for name, node in _fields()
        if is_number(node) and node.get("default") not in (None, {})
    ]
    assert [name for name, text in chosen if not SOURCE.search(text) and not text.startswith(NO_SOURCE)] == []


def test_a_missing_description_unit_or_source_is_found():
    """What the three tests above look for, in fields that lack it."""
    properties = Lacking.model_json_schema()["properties"]
    assert "description" not in properties["silent"]
    assert is_number(properties["bare"])
    assert not unit_of(properties["bare"])
    assert not SOURCE.search(properties["bare"]["description"])
    assert unit_of(properties["whole"]) == "mm"
    assert SOURCE.search(properties["whole"]["description"])[1] == "a paper"


class Lacking(Config):
    silent: int = 3
    bare: int = 3
    """How much of it."""
    whole: float | None = 3
    """mm between two of them [a paper]"""


def test_a_class_whose_source_cannot_be_read_still_works():
    names: dict[str, Any] = {"Config": Config}
    exec("class Made(Config):\n    count: int = 3\n    '''slices'''", names)
    assert names["Made"](count=4).count == 4


def test_the_page_has_every_key_and_every_published_setting():
    text = page().replace("\\|", "|")
    assert tuple(re.findall(r"^## (\w+)$", text, re.MULTILINE)) == SECTIONS
    for name, node in _fields():
        assert f"\n| `{name.partition('.')[2]}` |" in text or name.startswith("RunConfig."), name
        assert " ".join(SOURCE.sub("", node.get("description", "")).split()).rpartition("; ")[2] in text, name
    for name in families():
        assert all(f"  {key}: " in text or f"  {key}:\n" in text for key in family(name).recipe)


@pytest.mark.parametrize("path", RUN_FILES, ids=lambda path: path.name)
def test_every_run_file_names_the_schema_and_fits_it(path, validator):
    first, _, _ = path.read_text().partition("\n")
    named = first.removeprefix("# yaml-language-server: $schema=")
    assert (path.parent / named).resolve() == SCHEMA
    assert [f"{error.json_path}: {error.message}" for error in validator.iter_errors(parse(path.read_bytes()))] == []


def _content(text: str) -> Any:
    """Of a run file in which PHANTOM stands for a cohort."""
    return parse(text.replace("PHANTOM", "cohort: {source: phantom}").encode())


@pytest.mark.parametrize(
    "text",
    [
        "parameters: {cohort: {source: phantom, patiens: 3}}",
        "parameters: {cohort: {source: nlst}}",
        "parameters: {cohort: {}}",
        "parameters: {}",
        "parameters: {PHANTOM, trainin: {}}",
        "parameters: {PHANTOM, training: {kimg: -1}}",
        "parameters: {PHANTOM, training: {beta2: fast}}",
        "parameters: {PHANTOM, training: {generator_lr: {start: 1, und: 0}}}",
        "parameters: {PHANTOM, training: {loss: {r1_gama: 1}}}",
        "parameters: {PHANTOM, training: {loss: {kind: denoising, r1_gamma: 1}}}",
        "parameters: {PHANTOM, generator: {family: gan}}",
        "parameters: {PHANTOM, generator: {channel_base: 64}}",  # of another family than the default
        "parameters: {PHANTOM, generator: {family: edm, ngf: 64}}",
        "parameters: {PHANTOM, generator: {family: dcgan, size: 100}}",
        "parameters: {PHANTOM, slices: {window_hu: [0]}}",
        "parameters: {PHANTOM, splits: {train: 1.5}}",
        "parameters: {PHANTOM, fetch: {endpoints: [ftp]}}",
        "parameters: {PHANTOM, outputs: ''}",
        "{parameters: {PHANTOM}, step: {}}",
        "{parameters: {PHANTOM}, steps: {train: {}}}",
        "{parameters: {PHANTOM}, steps: {register: {enable_cach: true}}}",
        "{parameters: {PHANTOM}, steps: {register: {enable_cache: true}}}",
        "{parameters: {PHANTOM}, settings: {docker: {requirement: [a]}}}",
        "{parameters: {PHANTOM}, settings: {kubernetes: {}}}",
        "{parameters: {PHANTOM}, enable_cache: true}",
    ],
)
def test_a_wrong_key_or_value_does_not_fit(text, validator):
    assert not validator.is_valid(_content(text))


@pytest.mark.parametrize(
    "text",
    [
        "parameters: {cohort: {source: phantom, patients: '${N}', slices: ['${A}', '${B:-80}']}}",
        "parameters: {cohort: {source: '${SOURCE}', folder: x}}",
        "parameters: {cohort: {source: idc, labels: {lesion_seg: nlstseg}, bigquery: {project: '${PROJECT}'}}}",
        "parameters: {PHANTOM, generator: {family: '${F}', ngf: 3}, training: {compile: $C, device: '${D:-cpu}'}}",
        "parameters: {PHANTOM, fetch: {endpoints: ['${E}']}, gate: {min_gain: $G}, outputs: '${O}'}",
        "parameters: {PHANTOM, generator: {family: r3gan}, training: {beta2: {until_kimg: 5}, loss: {slope: 1}}}",
        "parameters: {PHANTOM, generator: {family: edm}, training: {loss: {log_noise_std: 1}}}",
        "parameters: {PHANTOM, generator: {family: pggan}, training: {growth: {batches: {256: 8}}}}",
        "{parameters: {PHANTOM}, steps: {train_generator: {enable_cache: true}}, enable_cache: false}",
        "{parameters: {PHANTOM}, settings: {orchestrator.kubernetes: {a: 1}, resources: {gpu_count: 1}}}",
        "{parameters: {PHANTOM}, tags: [a], run_name: b, schedule: {cron_expression: '* * * * *'}, steps: null}",
    ],
)
def test_what_the_program_takes_fits(text, validator):
    assert [f"{error.json_path}: {error.message}" for error in validator.iter_errors(_content(text))] == []


def test_the_schema_says_the_defaults_of_the_family():
    """What an editor shows beside `kimg` is the recipe's of the family that the file names."""
    schema = run_schema()["$defs"]
    assert "default" not in schema["TrainingConfig"]["properties"]["kimg"]
    for name in families():
        file = {"generator": {"family": name}}
        (own,) = (case["then"] for case in schema["RunConfig"]["allOf"] if Draft7Validator(case["if"]).is_valid(file))
        expected = family(name).recipe.get("kimg", TrainingConfig().kimg)
        assert own["properties"]["training"]["properties"]["kimg"]["default"] == expected
