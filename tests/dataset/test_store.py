"""The slice dataset on disk: shards, mapped side by side."""

import gc
import json
import pickle

import numpy as np
import pandas as pd
import pytest
import safetensors.numpy
import torch

from lungsynth.dataset.store import SERIES_COLUMNS, SliceDataset, SliceMeta, assemble, write_shard
from lungsynth.errors import LungsynthError

META = SliceMeta(8, (-1350.0, 150.0), "abc")
SERIES = pd.DataFrame(
    [("1.2", "p1", "val", "cancer", "rejected", "no_lungs", "0.00 litres", "", 0, 12.5)], columns=list(SERIES_COLUMNS)
)


def table_of(rows, split="train"):
    return pd.DataFrame(
        {
            "patient": [f"p{i % 2}" for i in range(rows)],
            "series_uid": [f"1.{i % 2}" for i in range(rows)],
            "sop_uid": [f"1.1.{i}" for i in range(rows)],
            "position_mm": 2.5 * np.arange(rows),
            "label": [("cancer", "non-cancer")[i % 2] for i in range(rows)],
            "evidence": "phantom",
            "split": split,
            "spacing_mm": 1.5,
            "pixel_mm": 0.7,
            "slice_spacing_mm": 2.5,
            "thickness_mm": 2.5,
            "lung_fraction": 0.2,
            "manufacturer": "GE",
        }
    )


def images_of(rows, size=8, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (rows, size, size), dtype=np.uint8)


TABLE, IMAGES = table_of(6).assign(split=["train", "val", "test"] * 2), images_of(6)


def in_shards(folder, counts, size):
    """A dataset of one shard per count, and the same slices as one plain array."""
    parts = [images_of(count, size, seed) for seed, count in enumerate(counts)]
    places = [folder / f"shard{number}" for number in range(len(counts))]
    shards = [
        write_shard(place, part, table_of(len(part)), masks=part // 200, series=SERIES)
        for place, part in zip(places, parts, strict=True)
    ]
    return assemble(folder / "set", shards, SliceMeta(size, None, "abc"), masks=True), np.concatenate(parts)


def test_what_was_written_is_read(tmp_path):
    SliceDataset.write(tmp_path / "new" / "set", IMAGES, TABLE, meta=META, series=SERIES)
    dataset = SliceDataset(tmp_path / "new" / "set")
    assert np.array_equal(dataset.images, IMAGES)
    assert dataset.masks is None
    assert dataset.labels.tolist() == [1, 0, 1, 0, 1, 0]
    assert dataset.rows("val").tolist() == [1, 4]
    assert dataset.rejected["reason"].tolist() == ["no_lungs"]
    assert dataset.meta == META
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["set"]


def test_codes_repeat_the_table(tmp_path):
    dataset = SliceDataset.write(tmp_path / "set", IMAGES, TABLE, meta=META)
    codes = safetensors.numpy.load_file(tmp_path / "set" / "labels.safetensors")
    assert codes["labels"].tolist() == dataset.labels.tolist()
    assert codes["splits"].tolist() == [0, 1, 2] * 2
    assert json.loads((tmp_path / "set" / "dataset.json").read_text())["sha256"] == dataset.sha256


@pytest.mark.parametrize("size", [8, 24, 64, 100])
def test_shards_are_indexed_as_one_array(tmp_path, size):
    dataset, plain = in_shards(tmp_path, [5, 0, 9, 1], size)
    images = dataset.images
    assert images.shape == plain.shape
    assert np.array_equal(images, plain)
    for key in (0, -1, 13, slice(3, 12, 2), np.array([14, 0, 5, 5, -2]), np.arange(15) % 2 == 0, [4, 5]):
        assert np.array_equal(images[key], plain[key]), key
    assert np.array_equal(dataset.masks, plain // 200)
    with pytest.raises(IndexError):
        images[15]
    with pytest.raises(ValueError, match="read-only"):
        images[3][0, 0] = 1


def test_random_batches_become_tensors(tmp_path):
    dataset, plain = in_shards(tmp_path, [40, 30], 16)
    picks = torch.randint(70, (8,), generator=torch.Generator().manual_seed(0))
    assert torch.equal(torch.from_numpy(dataset.images[picks.numpy()]), torch.from_numpy(plain)[picks])


def test_a_dataset_travels_to_another_process_as_its_folder(tmp_path):
    dataset, plain = in_shards(tmp_path, [40, 30], 64)
    assert dataset.images[69].any()
    sent = pickle.dumps((dataset, dataset.images))
    assert len(sent) < 2000
    again, images = pickle.loads(sent)
    assert np.array_equal(again.images[[69, 0]], plain[[69, 0]])
    assert np.array_equal(images[69], plain[69])


def test_a_slice_outlives_its_dataset(tmp_path):
    dataset, plain = in_shards(tmp_path, [4, 3], 64)
    one = dataset.images[6]
    del dataset
    gc.collect()
    assert np.array_equal(one, plain[6])


def test_any_safetensors_reader_opens_a_shard(tmp_path):
    write_shard(tmp_path / "shard", IMAGES, TABLE)
    assert np.array_equal(safetensors.numpy.load_file(tmp_path / "shard" / "images.safetensors")["slices"], IMAGES)


def test_a_shard_cut_short_is_named(tmp_path):
    dataset, _ = in_shards(tmp_path, [4, 3], 64)
    [file] = (dataset.folder / "shards" / "shard1").glob("images*")
    file.chmod(0o644)
    with file.open("r+b") as opened:
        opened.truncate(1000)
    with pytest.raises(LungsynthError, match=r"shard1/images\.safetensors has 1000 bytes.*build the slices again"):
        _ = dataset.images
    file.unlink()
    with pytest.raises(LungsynthError, match=r"shard1/images\.safetensors.*No such file"):
        _ = SliceDataset(dataset.folder).images


def test_hash_sees_pixels_tables_and_metadata(tmp_path):
    def sha256(name, images=IMAGES, table=TABLE, meta=META, **more):
        return SliceDataset.write(tmp_path / name, images, table, meta=meta, **more).sha256

    changed = IMAGES.copy()
    changed[5, 7, 7] ^= 1
    hashes = [
        sha256("a"),
        sha256("b", images=changed),
        sha256("c", table=TABLE.assign(split="train")),
        sha256("d", meta=SliceMeta(8, (-1000.0, 150.0), "abc")),
        sha256("e", masks=IMAGES // 200),
        sha256("f", series=SERIES),
        sha256("g", meta=SliceMeta(8, (-1350.0, 150.0), "abc", classes=("normal", "pneumonia"))),
    ]
    assert len(set(hashes)) == len(hashes)
    assert sha256("again") == hashes[0]


def test_a_folder_in_use_is_not_overwritten(tmp_path):
    SliceDataset.write(tmp_path / "set", IMAGES, TABLE, meta=META)
    with pytest.raises(LungsynthError, match="there already"):
        SliceDataset.write(tmp_path / "set", IMAGES, TABLE, meta=META)
    with pytest.raises(LungsynthError, match="no slice dataset"):
        _ = SliceDataset(tmp_path).meta
