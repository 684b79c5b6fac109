"""Generators whose worth is known, from phantoms to verdict: fresh patients are promoted, noise and copies are not."""

import numpy as np
import pandas as pd
import pytest
from volumes import axial_volume

from lungsynth.dataset.store import COLUMNS, SliceDataset, SliceMeta
from lungsynth.dataset.vocabulary import CLASSES
from lungsynth.evaluation.extractor import ExtractorConfig, train_extractor
from lungsynth.evaluation.fidelity.measure import FidelityConfig, measure_fidelity
from lungsynth.evaluation.privacy.audit import audit_privacy
from lungsynth.evaluation.privacy.checks import PrivacyConfig
from lungsynth.evaluation.scorecard import Scorecard
from lungsynth.evaluation.utility.measure import UtilityConfig, measure_utility
from lungsynth.evaluation.utility.predictions import Predictions
from lungsynth.lungs.find import find_lungs
from lungsynth.phantom import draw_patient, volume_hu
from lungsynth.slicing.crop import lung_box
from lungsynth.slicing.render import render
from lungsynth.slicing.series import SliceConfig
from lungsynth.verdict.contest import decide
from lungsynth.verdict.gate import GateConfig

SLICES = SliceConfig(size=48)
PATIENTS = {"train": 10, "val": 14, "test": 50}
FRESH = 50
NOTHING = Scorecard(metrics=())
FIDELITY = FidelityConfig(extractors=(), normalisations=(), cache=None, resamples=20)
GATE = GateConfig(worthwhile_gain=0.1)  # few test patients see no less


def phantom_slices(index: int) -> tuple[np.ndarray, np.ndarray]:
    """Labelled slices of one phantom, and their class codes; every second phantom has a nodule."""
    patient = draw_patient(
        5, index, with_nodule=index % 2 == 1, matrix=128, slices=(20, 20), nodule_diameter_mm=(12, 30)
    )
    hu, lesion = volume_hu(patient)
    spacing = patient.pixel_spacing_mm
    volume = axial_volume(hu, (spacing, spacing), patient.slice_spacing_mm, series_uid=f"1.{index}")
    lungs = find_lungs(volume, (), SLICES.lungs)
    crop = lung_box(volume, lungs, SLICES.margin_mm)
    fractions = crop.lung_fractions(lungs.cells, lungs.cell_px)
    labels = lesion.any(axis=(1, 2)).astype(np.int64)
    usable = (fractions > SLICES.min_lung_fraction) & ((labels == 1) | (patient.nodule is None))
    chosen = np.flatnonzero(usable)
    return np.stack([render(hu[place], crop, SLICES.size, window_hu=SLICES.window_hu) for place in chosen]), labels[
        chosen
    ]


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """A dataset with few training patients, and the slices and labels of patients whom it does not hold."""
    splits = np.repeat([*PATIENTS, "fresh"], [*PATIENTS.values(), FRESH])
    found = [phantom_slices(index) for index in range(len(splits))]
    images, labels = (np.concatenate(part) for part in zip(*found, strict=True))
    patients = np.repeat(np.arange(len(splits)), [len(codes) for _, codes in found])
    rows = [
        (f"p{patient}", f"1.{patient}", f"1.{patient}.{row}", float(row), CLASSES[label], splits[patient])
        for row, (patient, label) in enumerate(zip(patients, labels, strict=True))
    ]
    table = pd.DataFrame(rows, columns=["patient", "series_uid", "sop_uid", "position_mm", "label", "split"])
    known = splits[patients] != "fresh"
    dataset = SliceDataset.write(
        tmp_path_factory.mktemp("phantoms") / "slices",
        images[known],
        table.reindex(columns=list(COLUMNS))[known],
        meta=SliceMeta(48, SLICES.window_hu, "phantoms"),
    )
    return dataset, images[~known], labels[~known]


def one_of(images, labels):
    """A sampler that draws from these slices."""

    def sample(wanted, seed):
        rng = np.random.default_rng(seed)
        return np.stack([images[rng.choice(np.flatnonzero(labels == label))] for label in wanted])

    return sample


def noise(wanted, seed):
    return np.random.default_rng(seed).integers(0, 256, (len(wanted), 48, 48), dtype=np.uint8)


@pytest.fixture(scope="module")
def predictions(world):
    dataset, images, labels = world
    samplers = {
        "oracle": one_of(images, labels),
        "noise": noise,
        "liar": one_of(images, np.random.default_rng(0).permutation(labels)),
    }
    return measure_utility(
        dataset,
        samplers,
        UtilityConfig(seeds=4, steps=160, batch=16, ratios=(1.0,), baselines=("real+classical",)),
    )


@pytest.fixture(scope="module")
def extractor(world, tmp_path_factory):
    return train_extractor(world[0], ExtractorConfig(steps=100), tmp_path_factory.mktemp("extractor"))


@pytest.fixture(scope="module")
def audit(world, extractor):
    config = PrivacyConfig(synthetic=300, resamples=200, cache=None)
    return lambda sampler: audit_privacy(world[0], sampler, extractor, config=config).scorecard


def judge(predictions: Predictions, planted: str, privacy: Scorecard, fidelity: Scorecard = NOTHING):
    """The verdict on one planted generator, as if it were the only one."""
    table = predictions.table
    keep = table["arm"].str.contains(f"{planted}@") | ~table["arm"].str.contains("@")
    renamed = table[keep].assign(arm=table["arm"].str.replace(planted, "synthetic"))
    return decide(
        Predictions(renamed, CLASSES), fidelity, privacy, groups=pd.DataFrame(), config=GATE, protocol_sha256="planted"
    )[1]


def test_fresh_patients_are_promoted(world, predictions, audit):
    verdict = judge(predictions, "oracle", audit(one_of(*world[1:])))
    assert verdict.outcome == "promote", verdict.reason


def test_noise_is_rejected(predictions, audit):
    verdict = judge(predictions, "noise", audit(noise))
    assert verdict.outcome == "reject", verdict.reason


def test_a_shuffler_of_labels_is_not_promoted(world, predictions, audit):
    verdict = judge(predictions, "liar", audit(one_of(*world[1:])))
    assert verdict.outcome in ("reject", "underpowered"), verdict.reason


def test_one_slice_a_class_is_named_a_collapse(world, extractor, predictions, audit):
    images, labels = (part[[np.flatnonzero(world[2] == code)[0] for code in range(2)]] for part in world[1:])
    collapsed = one_of(images, labels)
    fidelity = measure_fidelity(world[0], collapsed, extractor, config=FIDELITY)
    verdict = judge(predictions, "oracle", audit(collapsed), fidelity)  # even if it were useful
    assert (verdict.outcome, verdict.rule) == ("reject", "collapse"), verdict.reason
    fresh = measure_fidelity(world[0], one_of(*world[1:]), extractor, config=FIDELITY)
    assert judge(predictions, "oracle", audit(one_of(*world[1:])), fresh).outcome == "promote"


def test_a_copier_is_blocked(world, predictions, audit):
    dataset = world[0]
    train = dataset.rows("train")
    draw = one_of(dataset.images[train], dataset.labels[train])

    def copier(wanted, seed):
        grain = np.random.default_rng(seed).normal(0, 3, (len(wanted), 48, 48))
        return np.clip(np.roll(draw(wanted, seed), 1, 2) + grain, 0, 255).astype(np.uint8)

    privacy = audit(copier)
    assert privacy["privacy/duplicates"].low > 0.5
    assert judge(predictions, "oracle", privacy).outcome == "blocked"
