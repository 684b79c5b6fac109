"""The step that measures utility, where the task is segmentation."""

import numpy as np
import pandas as pd
import pytest
import torch

from lungsynth.dataset.store import COLUMNS, SliceDataset, SliceMeta
from lungsynth.dataset.vocabulary import CLASSES
from lungsynth.errors import LungsynthError
from lungsynth.evaluation.utility.measure import UtilityConfig
from lungsynth.generators.dcgan import DcganConfig, Generator
from lungsynth.generators.package import GeneratorCard, GeneratorPackage
from lungsynth.registry.mlflow_registry import Champion
from steps.measure_utility import measure_utility

CONFIG = UtilityConfig(
    task="segmentation", seeds=1, steps=1, batch=2, ratios=(1.0,), baselines=("real",), controls=(), unet_width=4
)


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    splits = np.repeat(["train", "val", "test"], 4)
    rows = [(f"p{n}", f"1.{n}", f"1.{n}", CLASSES[n % 2], split) for n, split in enumerate(splits)]
    table = pd.DataFrame(rows, columns=["patient", "series_uid", "sop_uid", "label", "split"])
    images = np.random.default_rng(0).integers(0, 256, (12, 32, 32), np.uint8)
    return SliceDataset.write(
        tmp_path_factory.mktemp("slices") / "set",
        images,
        table.reindex(columns=list(COLUMNS)),
        meta=SliceMeta(32, None, "noise"),
        masks=images // 128,
    )


@pytest.fixture(scope="module")
def make_package(tmp_path_factory):
    def make(masks):
        config = DcganConfig(size=32, nz=4, ngf=4, masks=masks)
        with torch.random.fork_rng():
            network = Generator(config)
        card = GeneratorCard(generator=config, window_hu=None)
        return GeneratorPackage.write(tmp_path_factory.mktemp("package") / "package", network, card)

    return make


def test_a_champion_of_pairs_takes_part(dataset, make_package):
    found = measure_utility.entrypoint(dataset, make_package(True), Champion(3, make_package(True)), CONFIG, "")
    assert found.arms_of("champion") == ("real+classical+champion@1",)


def test_a_candidate_without_masks_is_an_error_of_one_line(dataset, make_package):
    with pytest.raises(LungsynthError, match="draws no masks; train a generator with") as caught:
        measure_utility.entrypoint(dataset, make_package(False), None, CONFIG, "")
    assert "\n" not in str(caught.value)
