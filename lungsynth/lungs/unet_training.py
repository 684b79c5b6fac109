"""Train the lung U-Net on images and masks from anywhere: threshold masks of CT slices, outlines of radiographs."""

from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from pydantic import Field
from safetensors.torch import save
from torch import Tensor

from lungsynth.config import Config, Seed
from lungsynth.dataset.store import SliceDataset
from lungsynth.errors import LungsynthError
from lungsynth.fit import fit
from lungsynth.hashing import array_sha256, combine
from lungsynth.intensity import to_network
from lungsynth.locks import alone
from lungsynth.lungs.unet import CARD, WEIGHTS, Unet, UnetCard, UnetConfig, predict, to_input


class LungTrainingConfig(Config):
    """Training of the lung U-Net."""

    unet: UnetConfig = UnetConfig()
    steps: int = Field(400, ge=1, description="optimiser steps [chosen here: 400 suffice for some hundred slices]")
    batch: int = Field(16, ge=1, description="pictures in a step [chosen here: fits any machine]")
    lr: float = Field(3e-3, gt=0, description="learning rate of AdamW at its peak [chosen here: high, for few steps]")
    zoom: tuple[float, float] = Field(
        (0.6, 1.1),
        description="factor, random, least and greatest [chosen here: crops to the lungs must also teach whole "
        "slices, where lungs are smaller]",
    )
    shift: float = Field(
        0.1,
        ge=0,
        le=0.5,
        description="share of the side; largest random shift [chosen here: lungs are seldom in the middle]",
    )
    seed: Seed = Field(0, description="seed of initial weights, batches, zoom, shift and dropout")


def train_lungs(dataset: SliceDataset, config: LungTrainingConfig, folder: Path) -> UnetCard:
    """Train on the `train` slices of a dataset with masks, measure Dice on `val`, and write the network into `folder`.

    Raises:
        LungsynthError: the dataset has no masks, or no slices in `train`.
    """
    masks = dataset.masks
    if masks is None:
        raise LungsynthError(f"{dataset.folder}: has no masks to learn from; build it with masks")
    train, held_out = dataset.rows("train"), dataset.rows("val")
    if not len(train):
        raise LungsynthError(f"{dataset.folder}: has no slices in train")
    pairs = [(np.asarray(dataset.images[rows]), np.asarray(masks[rows])) for rows in (train, held_out)]
    with alone(folder / ".lock", folder, "name another folder for the weights"):
        return train_unet(
            *pairs[0],
            config,
            folder=folder,
            window_hu=dataset.meta.window_hu,
            held_out=pairs[1] if len(held_out) else None,
        )


def train_unet(
    images: np.ndarray,
    masks: np.ndarray,
    config: LungTrainingConfig,
    *,
    folder: Path,
    window_hu: tuple[float, float] | None = None,
    held_out: tuple[np.ndarray, np.ndarray] | None = None,
) -> UnetCard:
    """Train on uint8 images and {0, 1} masks, both N×H×W, and write weights and card into `folder`.

    Args:
        images: grey values.
        masks: uint8 or bool.
        config: network and training.
        folder: created where it is missing.
        window_hu: the HU that grey 0 and 255 stand for; none for images that are no CT.
        held_out: images and masks on which the card's Dice is measured.

    Raises:
        LungsynthError: images and masks do not go together, or the masks are empty.
    """
    _check(images, masks)
    size = config.unet.size
    inputs = torch.from_numpy(np.stack([to_input(image, size) for image in images]))
    targets = torch.from_numpy(np.stack([_target(mask, size) for mask in masks]))
    network = _train(inputs, targets, config)
    folder.mkdir(parents=True, exist_ok=True)
    state = {name: tensor.detach().cpu().contiguous() for name, tensor in network.state_dict().items()}
    (folder / WEIGHTS).write_bytes(save(state))
    test_images, test_masks = held_out or (images, masks)
    card = UnetCard(
        unet=config.unet,
        window_hu=window_hu,
        data_sha256=combine([array_sha256(np.asarray(images)), array_sha256(np.asarray(masks))]),
        dice=dice(predict(network, size, list(test_images)), test_masks),
    )
    (folder / CARD).write_text(card.model_dump_json(indent=2) + "\n", encoding="utf-8")
    return card


def dice(predicted: np.ndarray, true: np.ndarray) -> float:
    """Dice coefficient of two masks of one shape, over all of their pixels."""
    predicted, true = predicted.astype(bool), true.astype(bool)
    return float(2 * (predicted & true).sum() / (predicted.sum() + true.sum()).clip(min=1))


def _check(images: np.ndarray, masks: np.ndarray) -> None:
    if images.dtype != np.uint8 or images.ndim != 3 or images.shape != masks.shape:
        raise LungsynthError(
            f"lung training needs uint8 images N×H×W with masks of the same shape, not {images.dtype} {images.shape} "
            f"with {masks.shape}"
        )
    if not masks.any() or masks.max() > 1:
        raise LungsynthError("lung training needs masks of 0 and 1, some of them 1")


def _target(mask: np.ndarray, size: int) -> np.ndarray:
    """Fraction of each of the network's pixels that is lung, uint8 0 to 255."""
    return to_input(mask.astype(np.uint8) * 255, size)


def _train(inputs: Tensor, targets: Tensor, config: LungTrainingConfig) -> Unet:
    """Cross-entropy plus soft Dice, over random zooms and shifts; uint8 N×S×S both."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    with torch.random.fork_rng(devices=[] if device == "cpu" else None):
        torch.manual_seed(config.seed)
        network = Unet(config.unet).to(device).train()

        def loss() -> Tensor:
            rows = torch.randint(len(inputs), (config.batch,))
            pair = torch.stack([to_network(inputs[rows]), targets[rows].float() / 255], dim=1).to(device)
            pair = _moved(pair, config)
            return overlap_loss(network(pair[:, :1]), pair[:, 1:])

        fit(network, loss, steps=config.steps, lr=config.lr, weight_decay=0.01, title="lung U-Net")
    return network.eval()


def overlap_loss(logits: Tensor, target: Tensor) -> Tensor:
    """Cross-entropy plus soft Dice, of `logits` and `target` in 0 to 1, of one shape."""
    predicted = logits.sigmoid()
    overlap = 2 * (predicted * target).sum() / (predicted.sum() + target.sum()).clamp(min=1)
    return F.binary_cross_entropy_with_logits(logits, target) + 1 - overlap


def _moved(pair: Tensor, config: LungTrainingConfig) -> Tensor:
    """Zoom and shift each image (channel 0, grey in [-1, 1]) with its mask (channel 1); black comes in at edges."""
    count, device = len(pair), pair.device
    zoom = torch.empty(count, 1, 1).uniform_(*config.zoom)
    shift = torch.empty(count, 2, 1).uniform_(-2 * config.shift, 2 * config.shift)
    places = torch.cat([torch.eye(2) / zoom, shift], dim=2).to(device)
    grid = F.affine_grid(places, list(pair.shape), align_corners=False)
    black = torch.tensor([-1.0, 0.0], device=device).reshape(1, 2, 1, 1)
    return F.grid_sample(pair - black, grid, align_corners=False) + black
