"""Arrays of one's own: what is promised of them is read as it is, what means the same is taken, the rest refused."""

import logging
import pickle
import zipfile

import numpy as np
import pytest

from lungsynth.errors import LungsynthError
from lungsynth.training.arrays import PIECE
from lungsynth.training.data import Slices
from lungsynth.training.read import read

N = 2 * PIECE + 6  # more than one piece
IMAGES = np.random.default_rng(0).integers(0, 256, (N, 8, 8), np.uint8)
LABELS = np.arange(N) % 2
SPLITS = np.arange(N) % 3
MASKS = (IMAGES > 128).astype(np.uint8)
WORDS = np.array(["train", "val", "test"])
LATE = np.where(np.arange(N) == N - 1, 1, 0)  # what only the last piece shows


def written(folder, **arrays):
    """A file of good arrays, with `arrays` in their place; one that is None is left out."""
    content = {"images": IMAGES, "labels": LABELS, "splits": SPLITS, "masks": MASKS} | arrays
    np.savez(folder / "own.npz", **{name: array for name, array in content.items() if array is not None})
    return folder / "own.npz"


def test_what_was_promised_is_read_as_it_is(tmp_path):
    data = read(written(tmp_path))
    assert np.array_equal(data.images, IMAGES)
    assert np.array_equal(data.labels, LABELS)
    assert np.array_equal(data.splits, SPLITS)
    assert np.array_equal(data.masks, MASKS)
    # The hash that such a file has had: interrupted trainings are found again by it.
    assert data.sha256.startswith("9f388c4d09bb")


@pytest.mark.parametrize(
    ("arrays", "said"),
    [
        ({"masks": 255 * MASKS}, "masks of 0 and 255 are taken for 0 and 1"),
        ({"masks": 255.0 * MASKS}, "masks of 0 and 255 are taken for 0 and 1"),
        ({"masks": MASKS.astype(bool)}, None),
        ({"masks": MASKS.astype(np.float32)}, None),
        ({"masks": MASKS.astype(np.int64)}, None),
        ({"labels": LABELS[:, None]}, f"labels, {N}×1, are taken for {N} values"),
        ({"labels": LABELS.astype(float)}, None),
        ({"labels": LABELS.astype(bool)}, None),
        ({"splits": WORDS[SPLITS]}, None),
        ({"splits": WORDS[SPLITS].astype(bytes)}, None),
        ({"splits": WORDS[SPLITS][:, None]}, f"splits, {N}×1, are taken for {N} values"),
        ({"splits": SPLITS.astype(float)}, None),
        ({"patients": SPLITS}, None),
    ],
)
def test_what_means_the_same_is_taken_for_it_and_said_once(tmp_path, caplog, arrays, said):
    data = read(written(tmp_path, **arrays))
    assert np.array_equal(data.labels, LABELS)
    assert np.array_equal(data.splits, SPLITS)
    assert np.array_equal(data.masks, MASKS)
    assert (data.labels.dtype, data.masks.dtype) == (np.int64, np.uint8)
    assert [record.message.partition("own.npz: ")[2] for record in caplog.records] == ([said] if said else [])


def test_other_processes_leave_it_to_the_first_to_say(tmp_path, caplog, monkeypatch):
    monkeypatch.setenv("RANK", "1")
    with caplog.at_level(logging.DEBUG):
        read(written(tmp_path, masks=255 * MASKS))
    assert not caplog.records


@pytest.mark.parametrize(
    ("arrays", "says"),
    [
        (
            {"masks": MASKS * np.float32(0.5)},
            "masks are float32 from 0 to 0.5 (among them 0, 0.5), and not 0 and 1 alone",
        ),
        ({"masks": IMAGES % 3}, "masks are uint8 from 0 to 2 (among them 0, 1, 2)"),
        ({"masks": IMAGES}, "masks are uint8 from 0 to 255 (among them 0, 1, 2, 3, …)"),
        ({"masks": MASKS + LATE[:, None, None]}, "masks are int64 from 0 to 2 (among them 0, 1, 2)"),
        ({"masks": MASKS.astype(int) - 1}, "masks are int64 from -1 to 0"),
        ({"masks": np.where(MASKS, np.nan, 0)}, "masks are float64 from nan to nan"),
        ({"masks": 0 * MASKS}, "masks are 0 everywhere"),
        ({"masks": MASKS[:, None]}, f"masks are uint8 {N}×1×8×8, and not {N}×8×8 as the images: write masks[:, 0]"),
        ({"masks": MASKS[..., None]}, "write masks[..., 0]"),
        ({"masks": MASKS[:, :4]}, f"masks are uint8 {N}×4×8, and not {N}×8×8 as the images"),
        ({"masks": MASKS[:5]}, f"has {N} images, but 5 masks"),
        ({"masks": np.full(MASKS.shape, "a")}, "and not numbers 0 and 1"),
        ({"images": IMAGES / 255}, "from 0 to 1, and not uint8 from 0 to 255: write (255 * images).round()"),
        (
            {"images": IMAGES / 127.5 - 1},
            "from -1 to 1, and not uint8 from 0 to 255: write (127.5 * (images + 1)).round()",
        ),
        ({"images": IMAGES.astype(int)}, "images are int64 from 0 to 255, and not uint8"),
        ({"images": IMAGES.astype(np.uint16) * 16}, "images are uint16 from 0 to 4080, and not uint8"),
        ({"images": np.where(IMAGES, IMAGES, np.nan)}, "images are float64 from nan to nan"),
        ({"images": MASKS}, "images are uint8 from 0 to 1, and not uint8 from 0 to 255"),
        ({"images": MASKS.astype(bool)}, "images are bool from 0 to 1"),
        ({"images": IMAGES[:, None]}, "write images[:, 0]"),
        ({"images": IMAGES[..., None]}, "write images[..., 0]"),
        ({"images": np.stack([IMAGES] * 3, 1)}, f"images are uint8 {N}×3×8×8, and not N×H×W"),
        ({"images": IMAGES.reshape(N, -1)}, f"images are uint8 {N}×64, and not N×H×W"),
        ({"images": IMAGES[:0]}, "images are uint8 0×8×8: write some"),
        ({"images": np.uint8(3)}, "images are uint8 (one value), and not N×H×W"),
        ({"images": np.full(N, "a")}, "images are <U1"),
        (
            {"labels": np.eye(2)[LABELS]},
            f"labels are float64 {N}×2, and not one value a slice: write labels.argmax(axis=1)",
        ),
        ({"labels": np.full((N, 2), 0.5)}, f"labels are float64 {N}×2, and not one value a slice"),
        (
            {"labels": WORDS[LABELS]},
            "labels are text ('train', 'val'): write numbers, 0 for the first of generator.classes",
        ),
        ({"labels": LABELS + 1}, "labels go from 1 to 2: count classes from 0"),
        ({"labels": LABELS - 1}, "labels go from -1 to 0: count classes from 0"),
        ({"labels": LABELS / 2}, f"labels hold 0.5, in {N // 2} places"),
        ({"labels": np.where(LATE, np.nan, LABELS)}, "labels hold nan, in 1 places"),
        ({"labels": LABELS.astype("M8[D]")}, "labels are datetime64[D]"),
        ({"labels": np.array([0, "a"] * (N // 2), object)}, "an array of Python objects"),
        ({"labels": LABELS[:5]}, f"has {N} images, but 5 labels"),
        ({"labels": 3}, f"has {N} images, but 1 labels"),
        ({"labels": None}, "has no array labels (images, splits, masks)"),
        ({"splits": SPLITS + 1}, "splits hold 3; allowed: 0 (train), 1 (val), 2 (test)"),
        ({"splits": LABELS + 1}, "splits hold val and test, but no train"),
        ({"splits": SPLITS - 1}, "splits hold -1; allowed: "),
        ({"splits": np.array(["train", "valid", "test"])[SPLITS]}, "splits hold 'valid'; allowed: train, val, test"),
        ({"splits": SPLITS > 0}, "splits are true and false; allowed: 0 (train)"),
        ({"splits": np.where(SPLITS, np.nan, 0)}, "splits hold nan"),
        ({"splits": None, "split": SPLITS}, "split is unknown; did you mean splits?"),
        ({"masks": None, "Mask": MASKS}, "Mask is unknown; did you mean masks?"),
    ],
)
def test_what_was_not_promised_is_one_line_that_shows_it(tmp_path, arrays, says):
    with pytest.raises(LungsynthError) as error:
        read(written(tmp_path, **arrays))
    assert says in str(error.value)
    assert "own.npz: " in str(error.value)
    assert "\n" not in str(error.value)
    assert len(str(error.value).partition("own.npz")[2]) < 200


def _cut(path):
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])


def _spoil(path):
    content = path.read_bytes()
    path.write_bytes(content[:500] + bytes(50) + content[550:])


def _single(path):
    with path.open("wb") as file:
        np.save(file, IMAGES)


def _foreign(path):
    with zipfile.ZipFile(path, "w") as archive:
        for name in ("images", "labels"):
            archive.writestr(name, "text")


@pytest.mark.parametrize(
    ("damage", "says"),
    [
        (_cut, "is no .npz file of numbers, or damaged (File is not a zip file)"),
        (_spoil, "is no .npz file of numbers, or damaged (Bad CRC-32"),
        (_foreign, "images are no array"),
        (lambda path: path.write_bytes(b""), "is no .npz file of numbers, or damaged (No data left in file)"),
        (
            lambda path: path.write_bytes(pickle.dumps({"images": 1})),
            "is no .npz file of numbers, or damaged (no archive)",
        ),
        (_single, f"is one array, uint8 {N}×8×8, and no .npz file"),
        (lambda path: np.savez(path), "has no array images (it is empty)"),
    ],
)
def test_a_file_that_is_no_archive_of_arrays_is_one_line(tmp_path, damage, says):
    path = written(tmp_path)
    damage(path)
    with pytest.raises(LungsynthError) as error:
        read(path)
    assert f"own.npz: {says}" in str(error.value)
    assert "\n" not in str(error.value)


def test_masks_that_came_another_way_do_not_wrap_round_to_black():
    rows = np.arange(N)
    assert Slices(IMAGES, LABELS, rows, MASKS).planes(rows[:3])[:, 1].max() == 255
    with pytest.raises(LungsynthError, match="training data: masks hold 255, and not 0 and 1 alone"):
        Slices(IMAGES, LABELS, rows, 255 * MASKS).planes(rows[:3])
