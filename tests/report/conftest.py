"""The records of a made-up run that lie on the disk."""

import json

import numpy as np
import pandas as pd
import pytest
import torch
from made_up_run import ARM, KEY, PATIENT, cohort_of
from PIL import Image

from lungsynth.cohort.cohort import Cohort
from lungsynth.dataset.store import COLUMNS as SLICE_COLUMNS
from lungsynth.dataset.store import SERIES_COLUMNS, SliceDataset, SliceMeta
from lungsynth.dataset.vocabulary import CLASSES
from lungsynth.evaluation.utility.predictions import Predictions
from lungsynth.generators.dcgan import DcganConfig, Generator
from lungsynth.generators.package import GeneratorCard, GeneratorPackage


@pytest.fixture(scope="module")
def cohort() -> Cohort:
    row = {
        "collection": "nlst",
        "patient": PATIENT,
        "patient_key": KEY,
        "study_uid": "1.2.3",
        "modality": "CT",
        "source_series_uid": None,
        "manufacturer": "GE",
        "label": "cancer",
        "evidence": "lesion_seg",
        "role": "image",
        "split": "train",
        "license": "CC BY 4.0",
        "doi": "10.7937/TCIA.HMQ8-J677",
        "instances": 120,
        "bytes": 1,
        "url": "s3://bucket/series/",
    }
    return cohort_of([row | {"series_uid": f"1.2.3.{n}"} for n in range(3)])


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> SliceDataset:
    images = np.arange(12, dtype=np.uint8)[:, None, None] * np.full((32, 32), 20, np.uint8)
    table = pd.DataFrame({"label": [CLASSES[n % 2] for n in range(12)], "split": ["train", "train", "val", "test"] * 3})
    table = table.assign(patient=[f"k{n}" for n in range(12)], series_uid="1.2", sop_uid="1.2.3", manufacturer="GE")
    fate = {"series_uid": "1.9", "patient": KEY, "state": "rejected", "reason": "localizer", "detail": "2 instances"}
    odd = {"series_uid": "1.2", "patient": KEY, "state": "built"}
    odd |= {"notes": "gantry tilt of 3.5 degrees\n2 localizers left out"}
    tilted = odd | {"series_uid": "1.3", "notes": "gantry tilt of 12.0 degrees"}
    series = pd.DataFrame([fate, odd, tilted]).reindex(columns=list(SERIES_COLUMNS)).assign(slices=0)
    folder = tmp_path_factory.mktemp("dataset") / "slices"
    meta = SliceMeta(32, (-1350, 150), "c" * 64)
    return SliceDataset.write(folder, images, table.reindex(columns=list(SLICE_COLUMNS)), meta=meta, series=series)


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> GeneratorPackage:
    config = DcganConfig(size=32, nz=16, ngf=4)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        generator = Generator(config).eval()
    card = GeneratorCard(generator=config, window_hu=(-1350, 150))
    package = GeneratorPackage.write(tmp_path_factory.mktemp("package"), generator, card)
    log = [{"kimg": kimg, "loss_d": 1.0, "loss_g": 1.5} for kimg in (0.5, 1.0)]
    (package.folder / "training_log.jsonl").write_text("".join(json.dumps(row) + "\n" for row in log))
    Image.new("L", (8, 8)).save(package.folder / "progress.gif")
    return package


@pytest.fixture(scope="module")
def predictions() -> Predictions:
    """Scores of two arms on val and test patients, every second one with cancer."""
    patient = np.repeat(np.arange(12), 2)
    facts = {"row": np.arange(24), "label": patient % 2, "patient": patient.astype(str)}
    score = np.random.default_rng(0).uniform(0, 0.6, 24) + 0.4 * facts["label"]
    parts = [
        pd.DataFrame({**facts, "arm": arm, "role": role, "seed": seed, "split": split, "score": score})
        for arm, role in (("real", "baseline"), (ARM, "candidate"))
        for split in ("val", "test")
        for seed in range(2)
    ]
    return Predictions(pd.concat(parts), CLASSES)
