"""Ways to scale grey values before features are taken; FID moves with them.

Seen by Osuala et al. 2023, doi:10.1117/1.JMI.10.6.061403, on generators of the medigan library.
"""

from typing import Literal

import numpy as np

Normalisation = Literal["window", "min-max", "clip", "matched"]
CLIPPED = (1, 99)  # percentiles that become 0 and 255


def normalise(images: np.ndarray, how: Normalisation, reference: np.ndarray) -> np.ndarray:
    """Slices uint8 N×H×W with other grey values, uint8 N×H×W.

    Args:
        images: synthetic or real.
        how: `window`: as they are, the dataset's window. `min-max`: darkest and brightest pixel of each slice to 0 and
            255. `clip`: the same with its 1st and 99th percentile, what lies beyond clipped. `matched`: the histogram
            of each slice to that of the reference.
        reference: share of each grey value in the slices to compare with, 256; see `histogram`.
    """
    if how == "window":
        return images
    counts = np.stack([np.bincount(image.ravel(), minlength=256) for image in images])
    share = counts.cumsum(axis=1) / images[0].size
    greys = np.arange(256)
    if how == "matched":
        target, present = reference.cumsum(), reference > 0
        tables = np.stack([np.interp(row, target[present], greys[present]) for row in share])
    else:
        low, high = (0, 100) if how == "min-max" else CLIPPED
        first = np.argmax(share > low / 100, axis=1)[:, None]
        last = np.argmax(share >= high / 100, axis=1)[:, None]
        tables = (greys - first) / np.maximum(last - first, 1) * 255
    tables = tables.round().clip(0, 255).astype(np.uint8)
    return np.stack([table[image] for table, image in zip(tables, images, strict=True)])


def histogram(images: np.ndarray) -> np.ndarray:
    """Share of each grey value, 256, in uint8 slices N×H×W."""
    return np.bincount(images.ravel(), minlength=256) / images.size
