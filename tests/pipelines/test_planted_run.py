"""Generators whose worth is known, each planted into a whole run: what the pipeline itself decides about them."""

from pathlib import Path

import mlflow
import numpy as np
import pytest
import yaml
from safetensors.numpy import save_file

from lungsynth.cohort.phantom import PhantomCohortConfig, select_phantoms
from lungsynth.cohort.splits import SplitConfig
from lungsynth.evaluation.scorecard import Scorecard
from lungsynth.fetching.fetch import FetchConfig
from lungsynth.slicing.series import SliceConfig
from lungsynth.slicing.shards import build_slices
from lungsynth.verdict.record import Verdict

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1200)]
FAMILIES = Path(__file__).parents[1] / "families"
# Few patients to train on, so that slices of others are worth much, and enough test patients to see it.
PARAMETERS = {
    "cohort": {
        "source": "phantom",
        "patients": 84,
        "seed": 5,
        "matrix": 128,
        "slices": [20, 20],
        "nodule_diameter_mm": [12, 30],
    },
    "splits": {"method": "ranked", "train": 0.09, "val": 0.19, "test": 0.72},
    "slices": {"size": 32},
    "extractor": {"steps": 100},
    "fidelity": {"extractors": [], "normalisations": [], "resamples": 20},
    "privacy": {"synthetic": 300, "resamples": 200},
    "utility": {
        "seeds": 6,
        "steps": 300,
        "batch": 16,
        "ratios": [3],
        "baselines": ["real+classical"],
        "controls": [],
    },
    "gate": {"worthwhile_gain": 0.1},  # few test patients see no less
}
STRANGERS = {"patients": 80, "seed": 6, "cancer_fraction": 0.8}


@pytest.fixture(scope="module")
def simulated(project):
    """Slices of a cohort like the run's, with these changes, made where the run finds them."""

    def simulate(**changes):
        phantoms = PhantomCohortConfig.model_validate(PARAMETERS["cohort"] | changes)
        cohort = select_phantoms(phantoms, SplitConfig.model_validate(PARAMETERS["splits"]))
        data = project / "data"
        slices = SliceConfig.model_validate(PARAMETERS["slices"] | {"root": data / "slices"})
        return build_slices(cohort, FetchConfig(root=data / "series"), slices, phantoms=phantoms)

    return simulate


@pytest.fixture(scope="module")
def banks(simulated):
    """What each planted generator draws from: images and class codes."""
    strangers, own, rng = simulated(**STRANGERS), simulated(), np.random.default_rng(0)
    fresh, labels, train = np.array(strangers.images), strangers.labels, own.rows("train")
    shifts = rng.integers(-3, 4, (len(train), 2))
    moved = np.stack([np.roll(own.images[row], shift, (0, 1)) for row, shift in zip(train, shifts, strict=True)])
    copies = (moved + rng.normal(0, 3, moved.shape)).clip(0, 255).astype(np.uint8)
    firsts = [np.flatnonzero(labels == code)[0] for code in range(2)]
    return {
        "oracle": (fresh, labels),
        "noise": (rng.integers(0, 256, fresh.shape, dtype=np.uint8), labels),
        "shuffler": (fresh, rng.permutation(labels)),
        "copier": (copies, own.labels[train]),
        "collapsed": (fresh[firsts], labels[firsts]),
    }


@pytest.fixture(scope="module")
def judge(project, run_pipeline, banks):
    """Plants a generator into a run of the pipeline, and gives the run's verdict and scorecard."""
    shim = project / "gan_augmentation.py"
    found = f"from lungsynth import generators\n\ngenerators.__path__.append({str(FAMILIES)!r})\n"
    shim.write_text(found + shim.read_text())

    def run(name):
        images, labels = banks[name]
        bank = project / f"{name}.safetensors"
        save_file({"images": np.ascontiguousarray(images), "labels": labels}, bank)
        own = {
            "generator": {"family": "planted", "size": 32, "bank": str(bank)},
            "registry": {"model_name": name},  # so that none has another one to beat
        }
        path = project / f"{name}.yaml"
        path.write_text(yaml.safe_dump({"parameters": PARAMETERS | own}))
        done = run_pipeline("-c", str(path))
        assert done.returncode == 0, done.stdout
        folder = project / "outputs" / "latest"
        verdict = Verdict.model_validate_json((folder / "verdict.json").read_text())
        assert verdict.outcome in done.stdout
        print(f"{name}: {verdict.outcome} by {verdict.rule}. {verdict.reason}")
        return verdict, Scorecard.model_validate_json((folder / "scorecard.json").read_text())

    return run


def champions(project):
    """Names of the models that have a champion."""
    client = mlflow.MlflowClient(f"sqlite:///{project / 'mlflow.db'}")
    return {model.name for model in client.search_registered_models() if "champion" in model.aliases}


def test_slices_of_strangers_are_promoted(judge, project):
    verdict, card = judge("oracle")
    assert (verdict.outcome, verdict.rule) == ("promote", "gain"), verdict.reason
    assert card["privacy/breach"].value == 0
    assert "oracle" in champions(project)


def test_noise_is_rejected(judge, project):
    verdict, _ = judge("noise")
    assert verdict.outcome == "reject", verdict.reason
    assert "noise" not in champions(project)


def test_slices_under_labels_of_others_are_not_promoted(judge, project):
    verdict, card = judge("shuffler")
    assert verdict.outcome in ("reject", "underpowered"), verdict.reason
    assert card["privacy/breach"].value == 0
    assert "shuffler" not in champions(project)


def test_copies_of_training_slices_are_blocked(judge, project):
    verdict, card = judge("copier")
    assert (verdict.outcome, verdict.rule) == ("blocked", "privacy"), verdict.reason
    assert card["privacy/duplicates"].low > 0.5
    assert "copier" not in champions(project)


def test_one_slice_a_class_is_a_collapse(judge, project):
    verdict, card = judge("collapsed")
    assert (verdict.outcome, verdict.rule) == ("reject", "collapse"), verdict.reason
    assert card["privacy/breach"].value == 0
    assert "collapsed" not in champions(project)
