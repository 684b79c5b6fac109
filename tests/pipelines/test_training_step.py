"""The step that trains the generator: what could not be judged afterwards is refused before."""

import numpy as np
import pandas as pd
import pytest

from lungsynth.dataset.store import COLUMNS, SliceDataset, SliceMeta
from lungsynth.dataset.vocabulary import CLASSES
from lungsynth.errors import LungsynthError
from lungsynth.generators.dcgan import DcganConfig
from lungsynth.training import TrainingConfig
from steps import train_generator as module


@pytest.fixture
def run_step(monkeypatch, tmp_path):
    """Runs the step, which is not to come as far as training, on slices of these classes in each split."""

    def fail(*_, **__):
        pytest.fail("it trains")

    monkeypatch.setattr(module, "train", fail)

    def run(labels, task="classification"):
        sections = {"registry": {"tracking_uri": f"sqlite:///{tmp_path}/mlflow.db"}, "utility": {"task": task}}
        monkeypatch.setattr(module, "run_parameters", lambda: sections)
        rows = [(f"{split}{n}", label, split) for split, found in labels.items() for n, label in enumerate(found)]
        table = pd.DataFrame(rows, columns=["patient", "label", "split"])
        table = table.assign(series_uid=table["patient"], sop_uid=table["patient"]).reindex(columns=list(COLUMNS))
        images = np.zeros((len(rows), 32, 32), np.uint8)
        dataset = SliceDataset.write(tmp_path / "set", images, table, meta=SliceMeta(32, (-1350, 150), "noise"))
        module.train_generator.entrypoint(dataset, DcganConfig(size=32, nz=4, ngf=4), TrainingConfig(kimg=0.1), "")

    return run


def test_a_split_without_a_class_is_an_error_before_training(run_step):
    with pytest.raises(LungsynthError, match="the test split has no cancer slice: enlarge the cohort"):
        run_step({"train": CLASSES, "val": CLASSES, "test": CLASSES[:1]})


def test_slices_without_masks_are_an_error_before_training_where_masks_are_learnt(run_step):
    with pytest.raises(LungsynthError, match="needs masks: build the slices with"):
        run_step(dict.fromkeys(("train", "val", "test"), CLASSES), "segmentation")


def test_a_champion_is_looked_at_before_training(run_step, monkeypatch):
    def refuse(registry, planned, task):
        raise LungsynthError(f"{planned.generator.size} pixels of {planned.window_hu}, {task}")

    monkeypatch.setattr(module, "check_champion", refuse)
    with pytest.raises(LungsynthError, match=r"32 pixels of \(-1350(\.0)?, 150(\.0)?\), classification"):
        run_step(dict.fromkeys(("train", "val", "test"), CLASSES))
