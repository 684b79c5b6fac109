"""Run files: what stands in `configs/` is valid, and what is wrong is named in one line."""

import os
from pathlib import Path

import pytest

from lungsynth.errors import LungsynthError
from lungsynth.run_config import SOURCES, RunConfig
from lungsynth.run_file import SECTIONS
from pipelines.gan_augmentation import gan_augmentation
from pipelines.run_file import read_run_file
from steps import STEPS

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


def test_environment_variables_are_filled_in(tmp_path, monkeypatch):
    text = "parameters: {cohort: {source: phantom}, fetch: {endpoints: ['http://${MIRROR_HOST}:9000']}}"
    with pytest.raises(LungsynthError, match=r"parameters\.fetch\.endpoints\.0: .*MIRROR_HOST, which is not set"):
        _read(tmp_path, text)
    monkeypatch.setenv("MIRROR_HOST", "mirror.example.org")
    content, _ = _read(tmp_path, text)
    assert content["parameters"]["fetch"]["endpoints"] == ["http://mirror.example.org:9000"]


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
