"""A fifth family is one file and one run file."""

import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from lungsynth import generators
from lungsynth.errors import LungsynthError
from lungsynth.generators.dcgan import DcganConfig
from lungsynth.generators.family import GeneratorConfig, families, family
from lungsynth.generators.package import GeneratorPackage
from lungsynth.run_config import run_config
from lungsynth.run_file import load
from lungsynth.training import Slices, TrainingRun, train_generator

TOY = Path(__file__).parents[1] / "families" / "toy.py"
RUN = """
parameters:
  cohort: {source: phantom}
  slices: {size: 32}
  generator: {family: toy, size: 32, gain: 0.5}
  training: {batch: 8, loss: {penalty_every: 2}, device: cpu}
"""


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """An empty folder in which the package also looks for families."""
    monkeypatch.setattr(generators, "__path__", [*generators.__path__, str(tmp_path)])
    yield tmp_path
    sys.modules.pop(f"{generators.__name__}.toy", None)


@pytest.fixture
def toy(folder):
    shutil.copyfile(TOY, folder / "toy.py")
    return folder


def parse(folder, text=RUN):
    path = folder / "run.yaml"
    path.write_text(text)
    return run_config(path, load(path))


def test_one_file_and_one_run_file_make_a_family(toy):
    config = parse(toy)
    assert config.generator.model_dump() == {
        "family": "toy",
        "size": 32,
        "nz": 4,
        "classes": ("non-cancer", "cancer"),
        "per_class": False,
        "masks": False,
        "gain": 0.5,
    }
    assert (config.training.kimg, config.training.batch) == (0.8, 8)  # the recipe's, and the run file's own
    assert (config.training.loss.r1_gamma, config.training.loss.penalty_every) == (0.2, 2)

    rng = np.random.default_rng(0)
    labels = np.arange(64) % 2
    images = np.where(labels, 220, 30)[:, None, None] + rng.integers(-20, 20, (64, 32, 32))
    package = train_generator(
        TrainingRun(
            Slices.all(images.astype(np.uint8), labels),
            None,
            window_hu=None,
            data_sha256="0",
            generator=config.generator,
            training=config.training,
            folder=toy / "package",
            checkpoints=toy / "checkpoints",
        )
    )
    again = GeneratorPackage(package.folder)
    assert again.card.generator == config.generator
    dark, bright = again.sample(np.repeat([0, 1], 50), seed=1).reshape(2, -1).mean(axis=1)
    assert dark < bright


def test_families_are_found_by_what_they_define(toy):
    (toy / "helper.py").write_text("FAMILIES = 3\n")
    assert "toy" in families()
    assert {"dcgan", "toy"} <= set(families())
    assert not {"helper", "layers", "family", "package"} & set(families())
    for name in families():
        made = family(name)
        assert made.config.model_fields["family"].default == name


def test_an_unknown_family_is_named(folder):
    with pytest.raises(LungsynthError, match=r"'dcgam' is no family of generators; there are dcgan"):
        family("dcgam")
    with pytest.raises(LungsynthError) as error:
        parse(folder, RUN.replace("toy", "dcgam"))
    assert "run.yaml: parameters.generator" in str(error.value)
    assert "'dcgam' is no family of generators; there are dcgan" in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("was", "becomes", "key", "says"),
    [
        ("gain: 0.5", "gian: 0.5", "parameters.generator.gian", "did you mean gain?"),
        ("gain: 0.5", "gain: -1", "parameters.generator.gain", "greater than 0"),
        ("gain: 0.5", "channels: 3", "parameters.generator.channels", "is unknown; allowed: classes"),
        ("size: 32, gain", "size: 16, gain", "parameters.generator.size", "32 or 64"),
        ("penalty_every: 2", "penalty_evry: 2", "parameters.training.loss.penalty_evry", "did you mean penalty_every?"),
        ("batch: 8", "bach: 8", "parameters.training.bach", "did you mean batch?"),
        ("penalty_every: 2", "kind: hinge", "parameters.training.loss", "'logistic'"),
    ],
)
def test_a_wrong_key_or_value_is_named(toy, was, becomes, key, says):
    with pytest.raises(LungsynthError) as error:
        parse(toy, RUN.replace(was, becomes))
    message = str(error.value)
    assert f"run.yaml: {key}: " in message
    assert says in message
    assert "\n" not in message


def test_any_family_where_its_configuration_is_asked_for():
    config = DcganConfig(size=32)
    assert GeneratorConfig.model_validate(config.model_dump()) == config
    assert GeneratorConfig.model_validate({"size": 32}) == config  # dcgan, where none is named
    assert GeneratorConfig.model_validate(config) is config
    assert DcganConfig.model_validate({"size": 32}) == config


def test_networks_that_do_not_grow_say_so():
    with pytest.raises(LungsynthError, match="dcgan does not grow"):
        family("dcgan").generator(DcganConfig(size=32, nz=4, ngf=4)).grow(3.5)
    with torch.device("meta"), pytest.raises(LungsynthError, match="dcgan does not grow"):
        family("dcgan").discriminator(DcganConfig(size=32, ndf=4)).grow(3.5)
