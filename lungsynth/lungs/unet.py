"""Lungs by a small 2-D U-Net with Gaussian dropout, of CT slices or of single images such as radiographs.

U-Net: Ronneberger et al. 2015, arXiv:1505.04597. Gaussian dropout: Srivastava et al. 2014, section 10.
"""

from itertools import pairwise
from pathlib import Path

import cv2
import numpy as np
import torch
from pydantic import Field, ValidationError
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from lungsynth.config import Config
from lungsynth.errors import LungsynthError, first_line
from lungsynth.intensity import to_network
from lungsynth.lungs.mask import LungMask

WEIGHTS, CARD = "lungs.safetensors", "lungs.json"
BATCH = 16
"""Images per forward pass."""
MIN_PART = 0.01
"""Components of less than this fraction of a slice's mask are dropped as specks."""


class UnetConfig(Config):
    """The network's architecture."""

    size: int = Field(
        128,
        ge=32,
        le=1024,
        multiple_of=16,
        description="pixels; pictures are brought to size×size [chosen here: outlines of lungs need no more]",
    )
    width: int = Field(
        16,
        ge=4,
        le=128,
        description="channels of the first level; each of the next three has twice as many [chosen here: a quarter of "
        "the 64 of U-Net, arXiv 1505.04597, for CPUs]",
    )
    dropout: float = Field(
        0.2,
        ge=0,
        lt=1,
        description="rate p of Gaussian dropout: noise of variance p/(1-p) [form: Srivastava 2014, JMLR 15:1929; "
        "chosen here: mild]",
    )


class UnetCard(Config):
    """`lungs.json`: what the weights are, and the HU that grey 0 and 255 stood for in training (none: no CT)."""

    unet: UnetConfig
    window_hu: tuple[float, float] | None
    data_sha256: str
    dice: float = Field(
        description="over all pixels of the slices that were held out; of those trained on if none were"
    )


class GaussianDropout(nn.Module):
    """Multiply by Gaussian noise of mean 1 and variance p/(1-p) in training, as Keras' layer of that name does."""

    def __init__(self, rate: float) -> None:
        super().__init__()
        self.deviation = (rate / (1 - rate)) ** 0.5

    def forward(self, x: Tensor) -> Tensor:
        return x * (1 + self.deviation * torch.randn_like(x)) if self.training and self.deviation else x


class Unet(nn.Module):
    """Four levels down and up with skips: grey values in [-1, 1], B×1×S×S -> logits of lung, B×1×S×S."""

    def __init__(self, config: UnetConfig) -> None:
        super().__init__()
        widths = [config.width << level for level in range(4)]
        self.down = nn.ModuleList(_block(i, o, 0.0) for i, o in pairwise([1, *widths]))
        self.bottom = _block(widths[-1], widths[-1], config.dropout)
        self.up = nn.ModuleList(
            _block(below + skip, skip, config.dropout if level else 0.0)
            for level, (skip, below) in reversed(list(enumerate(zip(widths, [*widths[1:], widths[-1]], strict=True))))
        )
        self.head = nn.Conv2d(widths[0], 1, 1)

    def forward(self, x: Tensor) -> Tensor:
        skips = []
        for block in self.down:
            x = block(x)
            skips.append(x)
            x = nn.functional.max_pool2d(x, 2)
        x = self.bottom(x)
        for block, skip in zip(self.up, reversed(skips), strict=True):
            x = block(torch.cat([nn.functional.interpolate(x, scale_factor=2), skip], dim=1))
        output: Tensor = self.head(x)
        return output


def _block(inputs: int, outputs: int, dropout: float) -> nn.Sequential:
    layers: list[nn.Module] = []
    for channels in (inputs, outputs):
        layers += [nn.Conv2d(channels, outputs, 3, 1, 1, bias=False), nn.BatchNorm2d(outputs), nn.ReLU()]
    return nn.Sequential(*layers, GaussianDropout(dropout))


def lungs(volume_hu: np.ndarray, weights: Path) -> LungMask:
    """Both lungs, slice by slice, of int16 Z×Y×X; the network sees whole slices.

    Raises:
        LungsynthError: `weights` is no folder of a trained U-Net, or one that was not trained on CT.
    """
    network, card = load_unet(weights)
    if card.window_hu is None:
        raise LungsynthError(f"{weights}: this U-Net was trained on pictures without HU; train one on CT slices")
    low, high = card.window_hu
    scale = 255 / (high - low)
    planes = [np.clip((plane.astype(np.float32) - low) * scale, 0, 255).round().astype(np.uint8) for plane in volume_hu]
    return LungMask(predict(network, card.unet.size, planes), (1, 1))


def lungs_of_image(image: np.ndarray, weights: Path) -> np.ndarray:
    """The lungs of one uint8 image, Y×X of any size, such as a radiograph: bool Y×X.

    Raises:
        LungsynthError: `weights` is no folder of a trained U-Net.
    """
    network, card = load_unet(weights)
    result: np.ndarray = predict(network, card.unet.size, [image])[0]
    return result


def load_unet(folder: Path) -> tuple[Unet, UnetCard]:
    """Network and card from a folder that `train_unet` wrote; on the GPU where there is one, in evaluation mode.

    Raises:
        LungsynthError: a file is missing, damaged or does not go with the other.
    """
    try:
        card = UnetCard.model_validate_json((folder / CARD).read_text(encoding="utf-8"))
        state = load_file(folder / WEIGHTS)
    except (OSError, UnicodeDecodeError, ValidationError, SafetensorError) as error:
        reason = type(error).__name__ if isinstance(error, ValidationError) else first_line(error)
        raise LungsynthError(
            f"{folder}: no U-Net for lungs ({reason}); train one with `lungsynth train-lungs`"
        ) from error
    with torch.random.fork_rng(devices=[]):
        network = Unet(card.unet)
    try:
        network.load_state_dict(state)
    except RuntimeError as error:
        raise LungsynthError(f"{folder}: {WEIGHTS} does not fit {CARD}; train it again") from error
    return network.eval().to("cuda" if torch.cuda.is_available() else "cpu"), card


def to_input(image: np.ndarray, size: int) -> np.ndarray:
    """A uint8 image as the network takes it: uint8 size×size, by averaging where it shrinks."""
    shrinks = size <= min(image.shape)
    return cv2.resize(image, (size, size), interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR)


@torch.inference_mode()
def predict(network: Unet, size: int, images: list[np.ndarray]) -> np.ndarray:
    """The masks of images (uint8, Y×X, all of one size): bool N×Y×X."""
    device = next(network.parameters()).device
    masks = np.zeros((len(images), *images[0].shape), bool)
    for start in range(0, len(images), BATCH):
        inputs = np.stack([to_input(image, size) for image in images[start : start + BATCH]])
        logits = network(to_network(torch.from_numpy(inputs)[:, None].to(device)))[:, 0].cpu().numpy()
        for mask, logit in zip(masks[start:], logits, strict=False):
            mask[:] = _without_specks(cv2.resize(logit, mask.shape[::-1], interpolation=cv2.INTER_LINEAR) > 0)
    return masks


def _without_specks(mask: np.ndarray) -> np.ndarray:
    _, labels, stats, _ = cv2.connectedComponentsWithStats(mask.view(np.uint8), connectivity=4)
    keep = stats[:, cv2.CC_STAT_AREA] >= MIN_PART * stats[1:, cv2.CC_STAT_AREA].sum()
    keep[0] = False
    result: np.ndarray = keep[labels]
    return result
