"""Reads a user's arrays from an `.npz` file, and checks them before training."""

import difflib
import hashlib
import logging
import os
import zipfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

import numpy as np

from lungsynth.dataset.vocabulary import SPLITS
from lungsynth.errors import LungsynthError, reason

log = logging.getLogger(__name__)

NAMES = ("images", "labels", "splits", "masks")
PIECE = 64
"""Slices that are checked together: an array may fill the memory, so no copy of it is made."""


@dataclass(frozen=True)
class Arrays:
    """Images uint8 N×H×W, class codes int64 N, split codes int64 N, masks uint8 N×H×W of 0 and 1 or none."""

    images: np.ndarray
    labels: np.ndarray
    splits: np.ndarray
    masks: np.ndarray | None
    sha256: str


def read_arrays(path: Path) -> Arrays:
    """The arrays of a file in the form of `Arrays`; unambiguous deviations are converted, with a warning.

    Raises:
        LungsynthError: the file is not an `.npz` file, or an array has another form.
    """
    arrays = _load(path)
    images = _images(path, arrays["images"])
    for name, array in arrays.items():
        if array.ndim == 0 or len(array) != len(images):
            raise LungsynthError(f"{path}: has {len(images)} images, but {array.shape[0] if array.ndim else 1} {name}")
    labels = _codes(path, "labels", arrays["labels"])
    if labels.min() != 0:
        _refuse(path, "labels", f"go from {labels.min()} to {labels.max()}: count classes from 0")
    splits = _splits(path, arrays["splits"]) if "splits" in arrays else np.zeros(len(labels), np.uint8)
    masks = _masks(path, arrays["masks"], images) if "masks" in arrays else None
    return Arrays(images, labels, splits, masks, _sha256(images, labels, splits, masks))


def _load(path: Path) -> dict[str, np.ndarray]:
    """The arrays of the file whose names are in `NAMES`."""
    remedy = "write one by np.savez(FILE, images=…, labels=…)"
    try:
        with path.open("rb") as opened:  # which numpy leaves open, where the archive is damaged
            file = np.load(opened)
            if isinstance(file, np.ndarray):
                raise LungsynthError(f"{path}: is one array, {_described(file)}, and no .npz file; {remedy}")
            arrays = {name: file[name] for name in _names(path, list(file), remedy)}
    except MemoryError:
        raise LungsynthError(f"{path}: does not fit into memory; train from the folder of a slice dataset") from None
    except OSError as error:
        raise LungsynthError(f"{path}: cannot be read ({reason(error)}); {remedy}") from error
    except (ValueError, EOFError, RuntimeError, zipfile.BadZipFile, zlib.error) as error:
        why = " ".join(str(error).split())
        if "allow_pickle" in why:
            why = "an array of Python objects" if why.startswith("Object arrays") else "no archive"
        raise LungsynthError(f"{path}: is no .npz file of numbers, or damaged ({why}); {remedy}") from error
    for name, array in arrays.items():
        if not isinstance(array, np.ndarray):  # in a zip archive of another kind
            _refuse(path, name, f"are no array; {remedy}")
    return arrays


def _names(path: Path, there: list[str], remedy: str) -> list[str]:
    """Those of `NAMES` that are there; a misspelt one is an error, since it would be ignored."""
    for name in there:
        close = difflib.get_close_matches(name, NAMES, n=1)
        if name not in NAMES and close and close[0] not in there:
            _refuse(path, name, f"is unknown; did you mean {close[0]}?")
    if absent := [name for name in NAMES[:2] if name not in there]:
        some = ", ".join([*there[:5], *["…"] * (len(there) > 5)])
        raise LungsynthError(f"{path}: has no array {absent[0]} ({some or 'it is empty'}); {remedy}")
    return [name for name in NAMES if name in there]


def _images(path: Path, images: np.ndarray) -> np.ndarray:
    if images.size == 0 or images.dtype.kind not in "biuf":
        _refuse(path, "images", f"are {_described(images)}: write some as uint8 N×H×W")
    if images.ndim != 3:
        hint = _without_axis(images, "images")
        _refuse(path, "images", f"are {_described(images)}, and not N×H×W{hint}")
    if images.dtype == np.uint8 and any(piece.max() > 1 for piece in _pieces(images)):
        return images
    low, high = _range(images)
    if images.dtype.kind == "f" and low >= 0 and high <= 1:
        hint = "(255 * images).round().astype(np.uint8)"
    elif images.dtype.kind == "f" and low >= -1 and high <= 1:
        hint = "(127.5 * (images + 1)).round().astype(np.uint8)"
    elif low >= 0 and 1 < high <= 255:
        hint = "images.astype(np.uint8)"
    else:
        hint = "them so, black as 0 and white as 255"
    _refuse(path, "images", f"are {images.dtype} from {low:g} to {high:g}, and not uint8 from 0 to 255: write {hint}")


def _without_axis(array: np.ndarray, name: str) -> str:
    """How to remove an axis of one channel."""
    if array.ndim == 4 and array.shape[1] == 1:
        return f": write {name}[:, 0]"
    return f": write {name}[..., 0]" if array.ndim == 4 and array.shape[3] == 1 else ""


def _masks(path: Path, masks: np.ndarray, images: np.ndarray) -> np.ndarray:
    if masks.shape != images.shape:
        hint = _without_axis(masks, "masks")
        _refuse(path, "masks", f"are {_described(masks)}, and not {_shape(images.shape)} as the images{hint}")
    if masks.dtype.kind not in "biuf":
        _refuse(path, "masks", f"are {_described(masks)}, and not numbers 0 and 1")
    if masks.dtype == bool:
        masks = masks.view(np.uint8)
    low, high = _range(masks)
    if high == 0 and low == 0:
        _refuse(path, "masks", "are 0 everywhere, and not 1 where something is")
    if high not in (1, 255) or not all(((piece == 0) | (piece == high)).all() for piece in _pieces(masks)):
        values = np.unique(np.concatenate([np.unique(piece)[:5] for piece in _pieces(masks)]))
        some = ", ".join([*(f"{value:g}" for value in values[:4]), *["…"] * (len(values) > 4)])
        what = f"are {masks.dtype} from {low:g} to {high:g} (among them {some})"
        _refuse(path, "masks", f"{what}, and not 0 and 1 alone: write masks > 0, or masks == THE_LABEL")
    if high == 255:
        _say(path, "masks of 0 and 255 are taken for 0 and 1")
    if masks.dtype == np.uint8 and high == 1:
        return masks
    return np.concatenate([(piece != 0).astype(np.uint8) for piece in _pieces(masks)])


def _splits(path: Path, splits: np.ndarray) -> np.ndarray:
    """Codes of the splits; numbers keep their type."""
    allowed = ", ".join(f"{code} ({name})" for code, name in enumerate(SPLITS))
    if splits.dtype == bool:
        _refuse(path, "splits", f"are true and false; allowed: {allowed}")
    if splits.dtype.kind in "US":
        words = [word.strip() for word in _column(path, "splits", _text(splits)).tolist()]
        if unknown := sorted({*words} - {*SPLITS}):
            _refuse(path, "splits", f"hold {unknown[0]!r}; allowed: {', '.join(SPLITS)}")
        codes = np.array([SPLITS.index(word) for word in words])
    else:
        codes = _codes(path, "splits", splits).astype(splits.dtype)
    present = np.unique(codes).tolist()
    if unknown := [code for code in present if code not in range(len(SPLITS))]:
        _refuse(path, "splits", f"hold {unknown[0]:g}; allowed: {allowed}")
    if 0 not in present:
        _refuse(path, "splits", f"hold {' and '.join(SPLITS[int(code)] for code in present)}, but no train: {allowed}")
    return codes


def _codes(path: Path, name: str, array: np.ndarray) -> np.ndarray:
    """Whole numbers int64 N, which may have come as floats or N×1."""
    if array.dtype.kind in "US":
        words = ", ".join(map(repr, np.unique(_text(array))[:3].tolist()))
        _refuse(path, name, f"are text ({words}): write numbers, 0 for the first of generator.classes")
    if array.dtype.kind not in "biuf":
        _refuse(path, name, f"are {_described(array)}, and not one number a slice")
    codes = _column(path, name, array)
    wrong = codes[~np.isfinite(codes) | (codes != np.floor(codes))] if codes.dtype.kind == "f" else codes[:0]
    if len(wrong):
        _refuse(path, name, f"hold {wrong[0]:g}, in {len(wrong)} places, and not whole numbers alone")
    return codes.astype(np.int64)


def _column(path: Path, name: str, array: np.ndarray) -> np.ndarray:
    """An array N; N×1 is converted."""
    if array.ndim == 2 and array.shape[1] == 1:
        _say(path, f"{name}, {_shape(array.shape)}, are taken for {len(array)} values")
        return array[:, 0]
    if array.ndim != 1:
        one_hot = array.ndim == 2 and array.dtype.kind in "biuf" and (np.sort(array)[:, -2:] == (0, 1)).all()
        hint = f": write {name}.argmax(axis=1)" if one_hot else ""
        _refuse(path, name, f"are {_described(array)}, and not one value a slice{hint}")
    return array


def _text(array: np.ndarray) -> np.ndarray:
    return np.char.decode(array, "utf-8", "replace") if array.dtype.kind == "S" else array


def _pieces(array: np.ndarray) -> Iterator[np.ndarray]:
    return (array[start : start + PIECE] for start in range(0, len(array), PIECE))


def _range(array: np.ndarray) -> tuple[float, float]:
    """Least and greatest value; NaN if the array has one."""
    low, high = zip(*((piece.min(), piece.max()) for piece in _pieces(array)), strict=True)
    return float(np.min(low)), float(np.max(high))


def _shape(shape: tuple[int, ...]) -> str:
    return "×".join(map(str, shape)) or "(one value)"


def _described(array: np.ndarray) -> str:
    return f"{array.dtype} {_shape(array.shape)}"


def _say(path: Path, what: str) -> None:
    """Warn, in the first of several processes only."""
    if os.environ.get("RANK", "0") == "0":
        log.warning("%s: %s", path, what)


def _refuse(path: Path, name: str, what: str) -> NoReturn:
    raise LungsynthError(f"{path}: {name} {what}")


def _sha256(images: np.ndarray, labels: np.ndarray, splits: np.ndarray, masks: np.ndarray | None) -> str:
    digest = hashlib.sha256()
    for array in (images, labels, splits, *([] if masks is None else [masks])):
        digest.update(f"{array.dtype.str}{array.shape}".encode())
        digest.update(np.ascontiguousarray(array).data)
    return digest.hexdigest()
