"""The registered model in the hands of somebody who has MLflow and torch but none of this project."""

import json
import os
import subprocess
import sys
from pathlib import Path

import mlflow
import numpy as np
import pandas as pd
import pytest
import torch

from lungsynth.errors import LungsynthError
from lungsynth.evaluation.quantities import COMPARED
from lungsynth.evaluation.scorecard import Metric, Scorecard
from lungsynth.generators.dcgan import DcganConfig, Generator
from lungsynth.generators.package import GeneratorCard, GeneratorPackage
from lungsynth.registry.export import log_generator
from lungsynth.registry.mlflow_registry import register

pytestmark = [
    pytest.mark.filterwarnings("ignore:.*Any type hint is inferred as AnyType:UserWarning"),  # at MLflow's own import
    pytest.mark.filterwarnings("ignore:Operation with range is deprecated"),  # MLflow's input example, pandas 3
]

CONSUMER = """
import json, sys, warnings

class NoProject:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ("lungsynth", "pipelines", "steps"):
            raise ImportError(f"the consumer has no {name}")

sys.meta_path.insert(0, NoProject())
import mlflow, numpy as np, pandas as pd

mlflow.set_tracking_uri(sys.argv[1])
with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
    model = mlflow.pyfunc.load_model("models:/lung-ct-generator@champion")
labels = ["cancer", "non-cancer"] * 40
draw = lambda labels, **params: model.predict(pd.DataFrame({"label": labels}), params=params)
try:
    draw(["cancer", "benign", "Cancer"])
except Exception as error:
    refusal = f"{type(error).__name__}: {error}"
many, few = draw(labels, seed=3), draw(labels[:5], seed=3)
np.savez("drawn.npz", many=many, few=few, default=draw(labels), zero=draw(labels, seed=0))
print(json.dumps({
    "metadata": model.metadata.metadata,
    "requirements": open(mlflow.pyfunc.get_model_dependencies("models:/lung-ct-generator@champion")).read().split(),
    "refusal": refusal,
    "project": [name for name in sys.modules if name.startswith("lungsynth")],
    "from_serving_model": [str(w.message) for w in caught if "predict" in str(w.message)],
}))
"""


@pytest.fixture(scope="module")
def package(make_package, tmp_path_factory) -> GeneratorPackage:
    return make_package(tmp_path_factory.mktemp("package") / "trained", seed=1)


@pytest.fixture(scope="module")
def consumed(package, make_verdict, scorecard, make_config, tmp_path_factory) -> dict:
    """What the consumer printed, and what it drew."""
    home = tmp_path_factory.mktemp("consumer")
    config = make_config(tmp_path_factory.mktemp("registry"))
    register(package, scorecard, make_verdict(), champion=None, data_sha256="d1", code_version="0.1.0", config=config)
    done = subprocess.run(
        [sys.executable, "-I", "-c", CONSUMER, config.tracking_uri],
        cwd=home,
        env=os.environ | {"MLFLOW_ALLOW_PICKLE_DESERIALIZATION": "false"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    with np.load(home / "drawn.npz") as drawn:
        return json.loads(done.stdout.splitlines()[-1]) | dict(drawn)


def test_consumer_draws_what_the_project_draws(consumed, package):
    ours = package.sample(np.array([1, 0] * 40), seed=3)
    assert consumed["many"].dtype == np.uint8
    assert consumed["many"].shape == (80, 32, 32)
    np.testing.assert_array_equal(consumed["many"], ours)


def test_seed_and_position_decide_whatever_the_rows_around(consumed):
    np.testing.assert_array_equal(consumed["few"], consumed["many"][:5])
    np.testing.assert_array_equal(consumed["default"], consumed["zero"])
    assert (consumed["default"] != consumed["many"]).any(axis=(1, 2)).all()


def test_label_changes_the_image(consumed, package):
    swapped = package.sample(np.array([0, 1] * 40), seed=3)
    assert (consumed["many"] != swapped).any(axis=(1, 2)).all()


def test_unknown_label_is_refused_by_name(consumed):
    assert consumed["refusal"] == "ValueError: unknown label Cancer, benign; this model draws non-cancer, cancer"


def test_nothing_of_the_project_is_needed(consumed):
    assert consumed["project"] == []
    assert consumed["from_serving_model"] == []


def test_metadata_and_requirements_say_what_the_images_are_and_need(consumed, package):
    assert consumed["metadata"] == {
        "classes": ["non-cancer", "cancer"],
        "window_hu": [-1350.0, 150.0],
        "size": 32,
        "weights_sha256": package.sha256,
        "notice": "Research only: not a medical device. The images are synthetic; none shows a real patient.",
    }
    torch_release = torch.__version__.partition("+")[0]
    assert {f"mlflow=={mlflow.__version__}", f"torch=={torch_release}", f"numpy=={np.__version__}"} < set(
        consumed["requirements"]
    )
    assert [name.partition("==")[0] for name in consumed["requirements"]] == ["mlflow", "torch", "numpy", "pandas"]


def test_generator_without_classes_is_refused(tmp_path: Path):
    config = DcganConfig(size=32, nz=16, ngf=4, classes=())
    card = GeneratorCard(generator=config, window_hu=(-1350, 150))
    package = GeneratorPackage.write(tmp_path / "unconditional", Generator(config), card)
    with pytest.raises(LungsynthError, match="an unconditional generator cannot be registered"):
        log_generator(package)


def test_of_a_generator_of_pairs_the_images_are_served(make_verdict, config, tmp_path, monkeypatch):
    pairs = DcganConfig(size=32, nz=8, ngf=4, masks=True)
    card = GeneratorCard(generator=pairs, window_hu=None)
    with torch.random.fork_rng():
        package = GeneratorPackage.write(tmp_path / "pairs", Generator(pairs), card)
    dice = Metric(quantity=COMPARED["Dice"], arm="chosen on val", value=0.91, computed_with="bootstrap")
    verdict = make_verdict().model_copy(update={"score": dice})
    register(package, Scorecard(metrics=()), verdict, champion=None, data_sha256="d", code_version="0", config=config)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", config.tracking_uri)
    model = mlflow.pyfunc.load_model("models:/lung-ct-generator@champion")
    drawn = model.predict(pd.DataFrame({"label": ["cancer", "non-cancer"] * 32}), params={"seed": 5})
    np.testing.assert_array_equal(drawn, package.sample(np.array([1, 0] * 32), seed=5))
    (version,) = mlflow.MlflowClient().search_model_versions("name = 'lung-ct-generator'")
    assert version.tags["score"] == "0.910000"
