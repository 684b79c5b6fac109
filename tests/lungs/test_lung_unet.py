"""The lung U-Net: it learns lungs of simulated patients that generalise to others, and refuses what is not its own."""

import json
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from lungsynth.errors import LungsynthError
from lungsynth.lungs import threshold
from lungsynth.lungs.config import LungConfig
from lungsynth.lungs.unet import CARD, WEIGHTS, GaussianDropout, Unet, UnetConfig, load_unet, lungs_of_image
from lungsynth.lungs.unet import lungs as unet_lungs
from lungsynth.lungs.unet_training import LungTrainingConfig, dice, train_lungs, train_unet
from lungsynth.phantom import draw_patient, lung_mask, volume_hu

WINDOW = (-1350.0, 150.0)
TINY = LungTrainingConfig(unet=UnetConfig(size=32, width=4), steps=2, batch=2)


def patients(indices: range) -> list[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """HU of simulated patients, their lungs by threshold, and where their lungs truly are."""
    volumes = []
    for index in indices:
        patient = draw_patient(
            3, index, with_nodule=index % 2 == 1, matrix=128, slices=(20, 24), nodule_diameter_mm=(6.0, 30.0)
        )
        hu = volume_hu(patient)[0].clip(-1024)
        spacing, step = (patient.pixel_spacing_mm,) * 2, patient.slice_spacing_mm
        volumes.append((hu, threshold.lungs(hu, spacing, step, -400).pixels(hu.shape), lung_mask(patient)))
    return volumes


def grey(hu: np.ndarray) -> np.ndarray:
    return ((hu - WINDOW[0]) * (255 / (WINDOW[1] - WINDOW[0]))).clip(0, 255).round().astype(np.uint8)


def test_trained_on_threshold_masks_it_finds_the_lungs_of_others(tmp_path):
    training, held_out = patients(range(8)), patients(range(8, 11))
    images = np.concatenate([grey(hu) for hu, _, _ in training])
    masks = np.concatenate([mask for _, mask, _ in training])
    config = LungTrainingConfig(
        unet=UnetConfig(size=96, width=8), steps=90, batch=8, lr=1e-2, zoom=(0.9, 1.1), shift=0.05
    )
    torch.set_num_threads(1)
    train_unet(images, masks, config, folder=tmp_path, window_hu=WINDOW)
    found = [unet_lungs(hu, tmp_path).pixels(hu.shape) for hu, _, _ in held_out]
    assert dice(np.concatenate(found), np.concatenate([mask for _, mask, _ in held_out])) >= 0.97
    assert dice(np.concatenate(found), np.concatenate([truth for _, _, truth in held_out])) >= 0.95


@pytest.fixture(scope="module")
def squares() -> tuple[np.ndarray, np.ndarray]:
    masks = np.zeros((6, 40, 48), np.uint8)
    masks[:, 10:30, 12:36] = 1
    return (masks * 200 + 20).astype(np.uint8), masks


@pytest.fixture(scope="module")
def tiny(squares, tmp_path_factory):
    folder = tmp_path_factory.mktemp("unet")
    train_unet(*squares, TINY, folder=folder)
    return folder


def test_same_seed_same_bytes(squares, tiny, tmp_path):
    train_unet(*squares, TINY, folder=tmp_path / "again")
    train_unet(*squares, TINY.model_copy(update={"seed": 1}), folder=tmp_path / "other")
    weights = [(folder / WEIGHTS).read_bytes() for folder in (tiny, tmp_path / "again", tmp_path / "other")]
    assert weights[0] == weights[1] != weights[2]


def test_pictures_of_any_size_keep_it(tiny):
    mask = lungs_of_image(np.full((61, 83), 100, np.uint8), tiny)
    assert (mask.shape, mask.dtype) == ((61, 83), bool)


def test_split_of_a_dataset_is_honoured(squares, tmp_path):
    images, masks = squares
    broken = masks.copy()
    broken[4:] = 0  # would train, were it not for the split
    split = np.array(["train", "train", "train", "train", "val", "test"])
    dataset = SimpleNamespace(
        folder=tmp_path,
        images=images,
        masks=broken,
        rows=lambda name: np.flatnonzero(split == name),
        meta=SimpleNamespace(window_hu=WINDOW),
    )
    card = train_lungs(dataset, TINY, tmp_path / "split")
    alone = train_unet(images[:4], masks[:4], TINY, folder=tmp_path / "alone", window_hu=WINDOW)
    assert (tmp_path / "split" / WEIGHTS).read_bytes() == (tmp_path / "alone" / WEIGHTS).read_bytes()
    assert (card.data_sha256, card.window_hu, card.dice) == (alone.data_sha256, WINDOW, 0.0)  # Dice is that of val
    dataset.masks = None
    with pytest.raises(LungsynthError, match="no masks to learn from"):
        train_lungs(dataset, TINY, tmp_path / "none")


def test_gaussian_dropout_keeps_the_mean_and_is_off_in_use():
    layer, ones = GaussianDropout(0.2), torch.ones(200_000)
    torch.manual_seed(0)
    noisy = layer(ones)
    assert noisy.mean() == pytest.approx(1, abs=0.01)
    assert noisy.var() == pytest.approx(0.25, abs=0.01)
    assert torch.equal(layer.eval()(ones), ones)
    assert (
        sum(isinstance(module, GaussianDropout) and module.deviation > 0 for module in Unet(UnetConfig()).modules()) > 2
    )


def no_card(folder):
    (folder / CARD).unlink()


def bad_card(folder):
    card = json.loads((folder / CARD).read_text())
    (folder / CARD).write_text(json.dumps(card | {"unet": {"size": 33}}))


def bad_weights(folder):
    (folder / WEIGHTS).write_bytes(b"\0" * 100)


def other_network(folder):
    card = json.loads((folder / CARD).read_text())
    (folder / CARD).write_text(json.dumps(card | {"unet": {"size": 32, "width": 8}}))


@pytest.mark.parametrize("damage", [no_card, bad_card, bad_weights, other_network])
def test_damage_is_said_in_one_line(squares, tmp_path, damage):
    train_unet(*squares, TINY, folder=tmp_path)
    damage(tmp_path)
    with pytest.raises(LungsynthError) as caught:
        load_unet(tmp_path)
    assert str(tmp_path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_network_for_pictures_is_refused_for_ct(tiny):
    assert LungConfig(backend="unet", weights=tiny).weights == tiny
    with pytest.raises(LungsynthError, match="without HU"):
        unet_lungs(np.zeros((1, 40, 48), np.int16), tiny)


@pytest.mark.parametrize(
    ("images", "masks"),
    [
        (np.zeros((2, 8, 8), np.uint8), np.ones((2, 8, 9), np.uint8)),
        (np.zeros((2, 8, 8), np.float32), np.ones((2, 8, 8), np.uint8)),
        (np.zeros((2, 8, 8), np.uint8), np.zeros((2, 8, 8), np.uint8)),
        (np.zeros((2, 8, 8), np.uint8), np.full((2, 8, 8), 255, np.uint8)),
    ],
)
def test_wrong_training_data_is_refused(images, masks, tmp_path):
    with pytest.raises(LungsynthError, match="lung training needs"):
        train_unet(images, masks, TINY, folder=tmp_path)
