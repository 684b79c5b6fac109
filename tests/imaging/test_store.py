"""The slice dataset on disk."""

import numpy as np
import pandas as pd
import pytest

from lungsynth.errors import LungsynthError
from lungsynth.imaging.store import REJECTED_COLUMNS, SliceDataset, SliceMeta

META = SliceMeta(8, (-1350.0, 150.0), "abc")
REJECTED = pd.DataFrame([("1.2", "no_lungs", "0.00 litres")], columns=list(REJECTED_COLUMNS))


TABLE = pd.DataFrame(
    {
        "patient": ["p0", "p1"] * 3,
        "series_uid": ["1.1", "1.2"] * 3,
        "sop_uid": [f"1.1.{i}" for i in range(6)],
        "position_mm": 2.5 * np.arange(6),
        "label": ["cancer", "non-cancer"] * 3,
        "split": ["train", "val", "test"] * 2,
        "spacing_mm": 1.5,
        "thickness_mm": 2.5,
        "lung_fraction": 0.2,
        "manufacturer": "GE",
    }
)
IMAGES = np.random.default_rng(0).integers(0, 256, (6, 8, 8), dtype=np.uint8)


def test_what_was_written_is_read(tmp_path):
    SliceDataset.write(tmp_path / "new" / "set", IMAGES, TABLE, REJECTED, META)
    dataset = SliceDataset(tmp_path / "new" / "set")
    assert isinstance(dataset.images, np.memmap)
    assert np.array_equal(dataset.images, IMAGES)
    assert dataset.labels.tolist() == [1, 0, 1, 0, 1, 0]
    assert dataset.rows("val").tolist() == [1, 4]
    assert dataset.rejected["reason"].tolist() == ["no_lungs"]
    assert dataset.meta == META


def test_hash_sees_pixels_table_and_metadata(tmp_path):
    def sha256(name, images=IMAGES, table=TABLE, meta=META):
        return SliceDataset.write(tmp_path / name, images, table, REJECTED, meta).sha256

    changed = IMAGES.copy()
    changed[5, 7, 7] ^= 1
    hashes = [
        sha256("a"),
        sha256("b", images=changed),
        sha256("c", table=TABLE.assign(split="train")),
        sha256("d", meta=SliceMeta(8, (-1000.0, 150.0), "abc")),
    ]
    assert len(set(hashes)) == 4
    assert sha256("e") == hashes[0]


def test_a_folder_in_use_is_not_overwritten(tmp_path):
    SliceDataset.write(tmp_path / "set", IMAGES, TABLE, REJECTED, META)
    with pytest.raises(LungsynthError, match="not empty"):
        SliceDataset.write(tmp_path / "set", IMAGES, TABLE, REJECTED, META)
