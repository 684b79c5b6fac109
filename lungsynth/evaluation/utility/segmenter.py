"""The U-Net that is trained on each arm's pairs of image and mask, and its Dice."""

import numpy as np
import torch
from torch import Tensor, nn

from lungsynth.evaluation.utility.classifier import (
    BatchPlan,
    ClassifierConfig,
    Pool,
    add_noise,
    at_random,
    move,
    train,
)
from lungsynth.intensity import to_network
from lungsynth.lungs.unet import Unet, UnetConfig
from lungsynth.lungs.unet_training import overlap_loss

SIDE = 16
"""The U-Net halves slices four times, so their side is a multiple of it."""


def new_segmenter(config: ClassifierConfig, size: int, seed: int, *, device: str) -> nn.Module:
    """An untrained U-Net for slices of `size` pixels a side, whose weights follow from `seed`."""
    with torch.random.fork_rng():  # weights can only be drawn from torch's global generator
        torch.manual_seed(seed)
        model = Unet(
            UnetConfig(size=size, width=config.unet_width, dropout=0)
        )  # dropout would use the global generator as well
    return model.to(device).to(memory_format=torch.channels_last)


def train_segmenter(
    model: nn.Module, real: Pool, synthetic: Pool | None, *, plan: BatchPlan, seed: int, config: ClassifierConfig
) -> nn.Module:
    """Train `model`, from `new_segmenter`, on batches of `plan`; see `train`.

    Slices are drawn at random, whatever their class; augmentation moves image and mask alike.

    Args:
        real: slices with masks uint8 N×H×W of 0 and 1 as their labels; and so is `synthetic`.
        plan: `balanced` and `mixed` have no effect here.
    """

    def loss(images: Tensor, masks: Tensor, rng: torch.Generator) -> Tensor:
        pair = torch.stack([to_network(images), 2 * masks.float() - 1], dim=1)
        if plan.classical:
            pair = move(pair, config.classical, rng)
        inputs, targets = pair.split(1, dim=1)
        if plan.classical:
            inputs = add_noise(inputs, config.classical, rng)
        return overlap_loss(model(inputs), (targets + 1) / 2)

    return train(model, real, synthetic, plan=plan, seed=seed, config=config, pick=at_random, loss=loss)


def dice(model: nn.Module, images: np.ndarray, masks: np.ndarray) -> np.ndarray:
    """Dice coefficients float64 N of the masks that `model` predicts for slices uint8 N×H×W, with masks of 0 and 1.

    Dice is 1 if both masks are empty, and NaN if the model's output is not finite.
    """
    device = next(model.parameters()).device
    scores = []
    with torch.inference_mode():
        for image, mask in zip(torch.from_numpy(images).split(64), torch.from_numpy(masks).split(64), strict=True):
            logits = model(to_network(image[:, None].to(device)))[:, 0].cpu()
            inside, truth = logits > 0, mask > 0
            both, either = (inside & truth).sum((1, 2)), inside.sum((1, 2)) + truth.sum((1, 2))
            overlap = torch.where(either > 0, 2 * both / either.clamp(min=1), 1.0).double()
            scores.append(overlap.where(logits.isfinite().all(dim=(1, 2)), torch.nan))
    return torch.cat(scores).numpy()
