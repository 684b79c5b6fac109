"""Run files: what stands in `configs/` is valid, and what is wrong is named in one line."""

import os
from pathlib import Path

import pytest
from zenml.config.pipeline_run_configuration import PipelineRunConfiguration

from lungsynth.errors import LungsynthError
from lungsynth.run_config import SOURCES, RunConfig
from lungsynth.training.sections import SECTIONS
from pipelines.gan_augmentation import gan_augmentation
from pipelines.zenml_config import read_run_file
from steps import LOOKING, STEPS

CONFIGS = Path(__file__).parents[2] / "configs"


def _read(tmp_path: Path, text: str):
    path = tmp_path / "run.yaml"
    path.write_text(text)
    return read_run_file(path, STEPS)


@pytest.mark.parametrize("path", sorted(CONFIGS.glob("*.yaml")), ids=lambda path: path.name)
def test_every_shipped_run_file_is_valid(path, monkeypatch):
    monkeypatch.setenv("LUNGSYNTH_S3_ENDPOINT", "http://127.0.0.1:1")
    for name in ("LUNGSYNTH_SLICE_LABELS", "LUNGSYNTH_CXR", "LUNGSYNTH_JSRT"):
        monkeypatch.setenv(name, "somewhere")
    content, _ = read_run_file(path, STEPS)
    assert content["parameters"]["cohort"]["source"] in SOURCES


def test_step_names_are_those_of_the_pipeline():
    pipeline = gan_augmentation.with_options()
    pipeline.prepare()
    assert set(pipeline.invocations) == set(STEPS)
    cached = {name: one.step.configuration.enable_cache for name, one in pipeline.invocations.items()}
    assert {name for name in STEPS if cached[name] is False} == set(LOOKING)


@pytest.mark.parametrize(
    ("text", "key", "says"),
    [
        ("parameters: {cohort: {source: phantom, patiens: 3}}", "parameters.cohort.patiens", "did you mean patients?"),
        ("parameters: {cohort: {source: phantom}, trainin: {}}", "parameters.trainin", "did you mean training?"),
        ("parameters: {cohort: {source: phantom}, training: {kimg: -1}}", "parameters.training.kimg", "greater than 0"),
        (
            "parameters: {cohort: {source: phantom}, training: {generator_lr: {start: 1, und: 0}}}",
            "parameters.training.generator_lr.und",
            "did you mean end?",
        ),
        (
            "parameters: {cohort: {source: phantom}, training: {generator_lr: {start: 1, end: 0}}}",
            "parameters.training.generator_lr.until_kimg",
            "required",
        ),
        ("parameters: {cohort: {source: phantom}, training: {beta2: fast}}", "parameters.training.beta2", "'fast'"),
        ("parameters: {cohort: {source: phantom}, gate: {alpha: 0.1}}", "parameters.gate.alpha", "allowed: "),
        ("parameters: {cohort: {source: nlst}}", "parameters.cohort", "'idc'"),
        ("parameters: {cohort: {}}", "parameters.cohort.source", "allowed: phantom, idc, pictures"),
        ("parameters: {}", "parameters.cohort", "required"),
        (
            "parameters: {cohort: {source: phantom}, slices: {lungs: {backend: idc-seg}}}",
            "parameters",
            "cohort.lung_seg and slices.lungs.backend: idc-seg need each other",
        ),
        ("parameters: {cohort: {source: phantom}, slices: {size: 64}}", "parameters", "generator.size is 128"),
        (
            "parameters: {cohort: {source: phantom}, generator: {family: edm, size: 32}, slices: {size: 32}, "
            "utility: {filters: {use: [discriminator]}}}",
            "parameters",
            "utility.filters.use names discriminator, and edm has none: leave it out",
        ),
        (
            "parameters: {cohort: {source: phantom}, generator: {masks: true}, slices: {size: 128, masks: true}, "
            "utility: {filters: {use: [discriminator]}}}",
            "parameters",
            "which wants masks too where generator.masks is true",
        ),
        ("{parameters: {cohort: {source: phantom}}, step: {}}", "step", "did you mean steps?"),
        ("{parameters: {cohort: {source: phantom}}, steps: {train: {}}}", "steps.train", "train_generator"),
        (
            "{parameters: {cohort: {source: phantom}}, steps: {register: {enable_cach: true}}}",
            "steps.register.enable_cach",
            "did you mean enable_cache?",
        ),
        (
            "{parameters: {cohort: {source: phantom}}, settings: {docker: {requirement: [a]}}}",
            "settings.docker.requirement",
            "did you mean requirements?",
        ),
        ("{parameters: {cohort: {source: phantom}}, enable_cache: perhaps}", "enable_cache", "bool"),
        ("{parameters: {cohort: {source: phantom}}, enable_cache: true}", "enable_cache", "must look anew each time"),
        (
            "{parameters: {cohort: {source: phantom}}, steps: {register: {enable_cache: on}}}",
            "steps.register.enable_cache",
            "must look anew each time",
        ),
        ("parameters: 3", "parameters", "needs keys and their values below it (given: 3)"),
        ("parameters: {cohort: phantom}", "parameters.cohort", "needs keys and their values below it"),
        ("{parameters: {cohort: {source: phantom}}, steps: [register]}", "steps", "needs keys and their values"),
        ("{parameters: {cohort: {source: phantom}}, steps: {register: 3}}", "steps.register", "needs keys"),
        ("{parameters: {cohort: {source: phantom}}, settings: {docker: 3}}", "settings.docker", "needs keys"),
        ("parameters: {cohort: {source: phantom, patients: 1:30}}", "parameters.cohort.patients", "'1:30'"),
        (
            "parameters: {cohort: {source: phantom}, registry: {experiment: '$${HOME}'}}",
            "parameters.registry.experiment",
            "ZenML would fill in again",
        ),
    ],
)
def test_a_wrong_key_or_value_is_named(tmp_path, text, key, says):
    with pytest.raises(LungsynthError) as error:
        _read(tmp_path, text)
    message = str(error.value)
    assert f"run.yaml: {key}: " in message
    assert says in message
    assert "\n" not in message
    assert len(message) < 1000


@pytest.mark.parametrize("text", ["", "- a", "parameters: [", "parameters: {a: b: c}"])
def test_a_file_that_is_no_mapping_is_refused(tmp_path, text):
    with pytest.raises(LungsynthError, match=r"run\.yaml: is "):
        _read(tmp_path, text)


@pytest.mark.parametrize("steps", ["{train_generator: {enable_cache: true}}", "{register: {enable_cache: false}}"])
def test_a_cache_where_nothing_is_looked_at_is_no_error(tmp_path, steps):
    _read(tmp_path, f"{{parameters: {{cohort: {{source: phantom}}}}, enable_cache: false, steps: {steps}}}")


ODD = r"""
parameters:
  cohort: {source: phantom}
  privacy: {cache: null}
  slices: {root: 1:30, size: 0o100}
  generator: {size: 0x40}
  training: {kimg: 1e3}
  registry: {experiment: on, model_name: "010", alias: no}
extra:
  quoted: ["010", "1:30", "on", "1e3", "1_000", "2020-01-01", "<<", "", "~", "=", "0o10", ".inf", "null", "1.5"]
  plain: [010, 1:30, on, 1e3, 1_000, 2020-01-01, <<, ~, =, 0o10, .inf, -.5, 0x1F, 1e-7, 1e22, -0, 1e400]
  text: ["x\ty\u0085 z ", "a\n b\n\n", "\U0001F600", "(a|b)$", "{date}", " - a", "# b", "%c"]
"""


def test_zenml_reads_the_values_that_were_checked(tmp_path):
    content, _ = _read(tmp_path, ODD)
    pipeline = gan_augmentation.with_options(config_path=str(tmp_path / "run.yaml"))
    seen = PipelineRunConfiguration.from_yaml(str(pipeline._run_file))
    pipeline._run_file.unlink()
    assert repr(seen.extra) == repr(content["extra"]) == repr(pipeline.configuration.extra)  # repr: 1 is 1.0 otherwise
    assert seen.parameters == content["parameters"]
    parameters = seen.parameters
    assert parameters["slices"]["root"] == "1:30"
    assert parameters["slices"]["size"] == parameters["generator"]["size"] == 64
    assert parameters["training"]["kimg"] == 1000
    assert parameters["privacy"]["cache"] is None
    assert [parameters["registry"][name] for name in ("experiment", "model_name", "alias")] == ["on", "010", "no"]


def test_defaults_are_written_out(tmp_path):
    content, outputs = _read(tmp_path, "parameters: {cohort: {source: phantom}}")
    assert outputs == Path("outputs")
    assert content["parameters"]["slices"]["window_hu"] == [-1350, 150]


def test_the_sections_are_listed_where_they_cannot_be_imported():
    assert set(SECTIONS) == set(RunConfig.model_fields)


def test_a_value_that_is_no_utf_8_is_one_line(tmp_path, monkeypatch):
    monkeypatch.setenv("LUNGSYNTH_ODD", os.fsdecode(b"/data/r\xf6ntgen"))
    with pytest.raises(LungsynthError, match="is no UTF-8, which ZenML cannot record: rename the file") as caught:
        _read(tmp_path, "parameters: {cohort: {source: pictures, folder: '${LUNGSYNTH_ODD}'}}")
    str(caught.value).encode()
