"""From a crop of a slice in Hounsfield units to an image of 8 bits."""

import math

import cv2
import numpy as np

from lungsynth.dicom.read import AIR_HU
from lungsynth.slicing.crop import Crop


def render(hu: np.ndarray, crop: Crop, size: int, window_hu: tuple[float, float]) -> np.ndarray:
    """Resample the crop of a slice (int16 Y×X, HU), then window it: uint8 size×size.

    In this order, as HU are linear in the attenuation of what a pixel holds: a scanner whose pixels are larger averages
    HU. Windowing first would average values that are clipped already, and darken thin bone and calcification.
    """
    low, high = window_hu
    averaged = np.maximum(resample(hu, crop, size, AIR_HU), np.int16(math.floor(low)))
    scale = 255 / (high - low)
    return cv2.convertScaleAbs(averaged, alpha=scale, beta=-low * scale)


def render_mask(mask: np.ndarray, crop: Crop, size: int) -> np.ndarray:
    """The crop of a mask (bool Y×X): uint8 size×size, 1 where the mask covers at least half of a pixel, else 0."""
    covered = resample(mask.view(np.uint8) * np.int16(256), crop, size, 0)
    return (covered >= 128).view(np.uint8)


def outline(mask: np.ndarray) -> np.ndarray:
    """The edge pixels of a mask (uint8 Y×X, 0 or 1): bool Y×X."""
    return (mask > cv2.erode(mask, np.ones((3, 3), np.uint8), borderValue=0)).astype(bool)


def resample(plane: np.ndarray, crop: Crop, size: int, outside: int) -> np.ndarray:
    """Resample the crop of `plane` (int16 Y×X) to size×size; `outside` lies beyond the image.

    An output pixel is the mean of n×n bilinear samples evenly spread over it, with n so large that no pixel of the scan
    is skipped. That comes within the scan's noise of exact area averaging, at half its price for odd ratios. Enlarging
    is bicubic, as bilinear facets would show; its overshoot at edges is windowed away or stays below that of a sharp
    reconstruction kernel.
    """
    region = _cut(plane, crop, outside)
    samples = size * math.ceil(max(region.shape) / size)
    if region.shape != (samples, samples):
        kind = cv2.INTER_CUBIC if samples == size else cv2.INTER_LINEAR
        region = cv2.resize(region, (samples, samples), interpolation=kind)
    return region if samples == size else cv2.resize(region, (size, size), interpolation=cv2.INTER_AREA)


def _cut(plane: np.ndarray, crop: Crop, outside: int) -> np.ndarray:
    bottom, right = crop.top + crop.height, crop.left + crop.width
    inside = plane[max(crop.top, 0) : max(bottom, 0), max(crop.left, 0) : max(right, 0)]
    if inside.shape == (crop.height, crop.width):
        return inside
    region = np.full((crop.height, crop.width), outside, dtype=plane.dtype)
    region[max(-crop.top, 0) :, max(-crop.left, 0) :][: inside.shape[0], : inside.shape[1]] = inside
    return region
