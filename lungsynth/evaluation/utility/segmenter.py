"""The U-Net whose Dice on test slices tells what an arm's pairs of image and mask are worth, and its training."""

import numpy as np
import torch
from torch import Tensor, nn

from lungsynth.evaluation.utility.classifier import ClassifierConfig, Pool, Recipe, add_noise, move
from lungsynth.lungs.unet import Unet, UnetConfig
from lungsynth.lungs.unet_training import overlap_loss

SIDE = 16
"""The U-Net halves slices four times, so their side is a multiple of it."""


def new_segmenter(config: ClassifierConfig, size: int, seed: int, device: str) -> nn.Module:
    """An untrained U-Net for slices of `size` pixels a side, whose weights follow from `seed`."""
    with torch.random.fork_rng():  # weights can only be drawn from torch's global generator
        torch.manual_seed(seed)
        model = Unet(UnetConfig(size=size, width=config.unet_width, dropout=0))  # whose noise would be global as well
    return model.to(device).to(memory_format=torch.channels_last)


def train_segmenter(
    model: nn.Module, real: Pool, synthetic: Pool | None, recipe: Recipe, seed: int, config: ClassifierConfig
) -> nn.Module:
    """Train `model` on batches of `recipe`, in the number of threads that torch has; ready for evaluation.

    Slices are drawn at random, whatever their class. With one `seed`, the segmenters of all recipes share real slices
    and augmentation, which moves image and mask alike.

    Args:
        model: from `new_segmenter`.
        real: slices with masks uint8 N×H×W of 0 and 1 as their labels; and so is `synthetic`.
        recipe: neither `balanced` nor `mixed` means anything here.
    """
    device = next(model.parameters()).device
    optimiser = torch.optim.AdamW(model.parameters(), lr=config.lr, weight_decay=config.weight_decay)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, config.lr, config.steps + 1)
    # One stream for each choice: arms with synthetic slices then see the same real ones and augmentation as the others.
    choose_real, choose_synthetic, change = (torch.Generator().manual_seed(3 * seed + i) for i in range(3))
    pairs = [_pairs(pool, device) for pool in (real, synthetic) if pool is not None]
    for _ in range(config.steps):
        batch = _at_random(pairs[0], config.batch, choose_real)
        if recipe.synthetic:
            swap = torch.rand(config.batch, generator=choose_synthetic).to(device) < recipe.synthetic
            batch = torch.where(swap[:, None, None, None], _at_random(pairs[1], config.batch, choose_synthetic), batch)
        images, masks = (batch.float() / 127.5 - 1).split(1, dim=1)
        if recipe.classical:
            images, masks = move(torch.cat([images, masks], dim=1), config.classical, change).split(1, dim=1)
            images = add_noise(images, config.classical, change)
        loss = overlap_loss(model(images), (masks + 1) / 2)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        schedule.step()
    return model.eval()


def dice(model: nn.Module, images: np.ndarray, masks: np.ndarray) -> np.ndarray:
    """Dice coefficients float64 N of what `model` finds in slices uint8 N×H×W, against masks N×H×W of 0 and 1.

    Where a slice shows nothing and nothing is found, it is 1; where the model gives no numbers, it is no number.
    """
    device = next(model.parameters()).device
    found = []
    with torch.inference_mode():
        for image, mask in zip(torch.from_numpy(images).split(64), torch.from_numpy(masks).split(64), strict=True):
            logits = model(image[:, None].to(device).float() / 127.5 - 1)[:, 0].cpu()
            inside, truth = logits > 0, mask > 0
            both, either = (inside & truth).sum((1, 2)), inside.sum((1, 2)) + truth.sum((1, 2))
            overlap = torch.where(either > 0, 2 * both / either.clamp(min=1), 1.0).double()
            found.append(overlap.where(logits.isfinite().all(dim=(1, 2)), torch.nan))
    return torch.cat(found).numpy()


def _pairs(pool: Pool, device: torch.device) -> Tensor:
    """Image and mask, 0 and 255, as two channels, uint8 N×2×H×W."""
    return torch.from_numpy(np.stack([pool.images, 255 * pool.labels], axis=1)).to(device)


def _at_random(pairs: Tensor, batch: int, rng: torch.Generator) -> Tensor:
    return pairs[torch.randint(len(pairs), (batch,), generator=rng)]
