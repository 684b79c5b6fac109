"""From an image file, a radiograph or a ready slice, to one slice of the dataset."""

from dataclasses import dataclass

import numpy as np
import pandas as pd
from PIL import Image

from lungsynth.dataset.rejection import Reason, SeriesRejected
from lungsynth.dataset.store import COLUMNS, HU_BINS
from lungsynth.errors import LungsynthError
from lungsynth.radiographs.grey import Picture
from lungsynth.radiographs.read_picture import read_mask, read_picture
from lungsynth.slicing.render import outline
from lungsynth.slicing.series import PREVIEW, Preview, SeriesJob, SeriesSlices, SliceConfig

MARGIN = 0.05
"""Around the lungs' bounding box, as a fraction of its longer side; about 15 mm of an adult chest."""


@dataclass(frozen=True)
class Square:
    """A square part of an image, in pixels; it may reach beyond the image."""

    top: float
    left: float
    side: float

    @classmethod
    def whole(cls, shape: tuple[int, ...]) -> "Square":
        """All of the image, centred. A crop would cut off lung apices or costophrenic angles."""
        side = max(shape)
        return cls((shape[0] - side) / 2, (shape[1] - side) / 2, side)

    @classmethod
    def around(cls, lungs: np.ndarray, shape: tuple[int, ...]) -> "Square":
        """The lungs (bool, some of it true, of any size) on an image of `shape`, and a margin of `MARGIN`."""
        (top, bottom), (left, right) = (
            np.flatnonzero(lungs.any(axis=1 - axis))[[0, -1]] * shape[axis] / lungs.shape[axis] for axis in (0, 1)
        )
        bottom, right = bottom + shape[0] / lungs.shape[0], right + shape[1] / lungs.shape[1]
        side = max(bottom - top, right - left) * (1 + 2 * MARGIN)
        return cls(float(top + bottom - side) / 2, float(left + right - side) / 2, float(side))


def slices_of_image(job: SeriesJob, config: SliceConfig, classes: tuple[str, ...]) -> SeriesSlices:
    """The one slice of an image file, and its mask where the configuration asks for masks.

    Views: `whole`, padded with black to a square; `lungs`, a square around the lungs that the mask shows or, where the
    image has none, the U-Net finds. Radiographs are not calibrated, so `window_hu` means nothing here.

    Args:
        job: `folder` is the image file, `mask_file` its mask.
        config: size, view, masks, and the backend that finds lungs.
        classes: of the dataset; the label has to be one of them.

    Raises:
        SeriesRejected: the file is damaged, no image, not a radiograph, may show a name, or lacks its mask.
        LungsynthError: the view asks for lungs and nothing finds them, or for what pictures do not have.
    """
    picture = read_picture(job.folder, job.series_uid)
    shape = picture.grey.shape
    try:
        mask = _mask(job, picture, config)
        square, lung_fraction = _place(shape, mask, config)
    except SeriesRejected as rejected:
        preview = _resized(picture.grey, Square.whole(shape), PREVIEW)
        raise SeriesRejected(rejected.reason, rejected.detail, preview) from rejected

    label = _label(job, classes)
    masks = (
        _nearest(mask, shape, square, config.size)[None].view(np.uint8) if config.masks and mask is not None else None
    )
    return SeriesSlices(
        images=_resized(picture.grey, square, config.size)[None],
        masks=masks,
        table=_table(
            job, picture, label, lung_fraction=lung_fraction, spacing_mm=picture.pixel_mm * square.side / config.size
        ),
        notes=tuple(picture.notes),
        hu_histogram=np.zeros(len(HU_BINS) - 1, np.int64),
        previews=[
            _preview(
                picture.grey, mask, square, caption=f"{label}, {job.split}\n{shape[1]}×{shape[0]} pixels", label=label
            )
        ],
    )


def _mask(job: SeriesJob, picture: Picture, config: SliceConfig) -> np.ndarray | None:
    """The image's mask (bool, of any size): from its file, or of the lungs that the U-Net finds, if it has to."""
    if job.mask_file is not None:
        return read_mask(job.mask_file, picture)
    if config.lungs.weights is not None and (config.masks or config.view == "lungs"):
        from lungsynth.lungs.unet import lungs_of_image  # torch, which other views do without

        return lungs_of_image(picture.grey.round().astype(np.uint8), config.lungs.weights)
    if config.view == "lungs":
        raise LungsynthError(
            "slices.view lungs has nothing that finds the lungs of pictures: give the cohort masks of the lungs, set "
            "slices.lungs to the backend unet with weights that were trained on radiographs, or slices.view to whole"
        )
    if config.masks:
        raise SeriesRejected(Reason.NO_MASK, "the image has no mask, and slices.masks asks for it")
    return None


def _place(shape: tuple[int, ...], mask: np.ndarray | None, config: SliceConfig) -> tuple[Square, float]:
    """The square to show, and the fraction of it that is lung; NaN where the mask may be of something else."""
    if config.view == "whole":
        return Square.whole(shape), np.nan
    if config.view == "lungs" and mask is not None:
        if not mask.any():
            raise SeriesRejected(Reason.NO_LUNGS, "the mask is empty")
        square = Square.around(mask, shape)
        return square, float(_nearest(mask, shape, square, config.size).mean())
    raise LungsynthError(f"slices.view {config.view} is not for pictures: set it to whole or lungs")


def _label(job: SeriesJob, classes: tuple[str, ...]) -> str:
    """The image's own label, or else its patient's."""
    own = job.slice_labels["label"]
    label = str(own.iloc[0]) if len(own) else job.label
    if label not in classes:
        raise LungsynthError(f"the label {label!r} is none of the dataset's classes {', '.join(classes)}")
    return label


def _table(job: SeriesJob, picture: Picture, label: str, *, lung_fraction: float, spacing_mm: float) -> pd.DataFrame:
    row = {
        "patient": job.patient_key,
        "series_uid": job.series_uid,
        "sop_uid": picture.sop_uid or job.series_uid,
        "label": label,
        "evidence": job.evidence,
        "split": job.split,
        "spacing_mm": spacing_mm,
        "pixel_mm": picture.pixel_mm,
        "lung_fraction": lung_fraction,
        "manufacturer": job.manufacturer,
    }
    return pd.DataFrame([row]).reindex(columns=list(COLUMNS)).astype(COLUMNS)


def _preview(grey: np.ndarray, mask: np.ndarray | None, square: Square, *, caption: str, label: str) -> Preview:
    shown = np.zeros((PREVIEW, PREVIEW), bool) if mask is None else _nearest(mask, grey.shape, square, PREVIEW)
    return Preview(_resized(grey, square, PREVIEW), outline(shown.view(np.uint8)), caption, label)


def _resized(grey: np.ndarray, square: Square, size: int) -> np.ndarray:
    """The square, antialiased and without overshoot; black lies beyond the image: uint8, size×size."""
    y0, x0 = int(np.floor(square.top)), int(np.floor(square.left))
    y1, x1 = int(np.ceil(square.top + square.side)), int(np.ceil(square.left + square.side))
    region = np.zeros((y1 - y0, x1 - x0), dtype=np.float32)
    inside = grey[max(y0, 0) : y1, max(x0, 0) : x1]
    region[max(-y0, 0) :, max(-x0, 0) :][: inside.shape[0], : inside.shape[1]] = inside
    left, top = square.left - x0, square.top - y0
    box = (left, top, left + square.side, top + square.side)
    resized = Image.fromarray(region).resize((size, size), Image.Resampling.HAMMING, box)
    result: np.ndarray = np.rint(np.asarray(resized)).clip(0, 255).astype(np.uint8)
    return result


def _nearest(mask: np.ndarray, shape: tuple[int, ...], square: Square, size: int) -> np.ndarray:
    """The square of a mask (bool, of any size) that lies on an image of `shape`, by nearest pixel: bool, size×size."""
    steps = (np.arange(size) + 0.5) * square.side / size
    rows, columns = (
        np.floor((start + steps) * side / extent).astype(int)
        for start, side, extent in zip((square.top, square.left), mask.shape, shape, strict=True)
    )
    inside = ((rows >= 0) & (rows < mask.shape[0]))[:, None] & ((columns >= 0) & (columns < mask.shape[1]))
    result: np.ndarray = mask[rows.clip(0, mask.shape[0] - 1)][:, columns.clip(0, mask.shape[1] - 1)] & inside
    return result
