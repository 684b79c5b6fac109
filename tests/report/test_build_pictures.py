"""The pictures of a build: contact sheet, rejected cases, histograms."""

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from lungsynth.dataset.store import COLUMNS, HU_BINS, SERIES_COLUMNS, SliceDataset, SliceMeta, assemble, write_shard
from lungsynth.report.build import (
    ACROSS,
    EMPTY,
    MOST,
    OUTLINE,
    PICTURES,
    TILE,
    contact_sheet,
    draw_build,
    histograms,
    rejected_sheet,
)

LONG = "1.3.6.1.4.1.14519.5.2.1.6279.6001.262721256650280657946440242654.dcm: a gap of 12 mm"


def slices(count: int) -> pd.DataFrame:
    table = pd.DataFrame({"series_uid": [f"1.{n}" for n in range(count)], "split": "train", "label": "cancer"})
    numbers = {name: 0.7 for name, kind in COLUMNS.items() if kind == "float64"}
    return table.assign(**numbers).reindex(columns=list(COLUMNS)).astype(COLUMNS)


def series(*reasons: str) -> pd.DataFrame:
    """One built series, and one rejected for each reason; their UIDs are 1.0, 1.1, …"""
    blank = dict.fromkeys(SERIES_COLUMNS, "") | {"split": "val", "label": "cancer", "slices": 0, "lesion_mm": None}
    rows = [blank | {"series_uid": "1.9", "state": "built", "slices": 9}]
    for number, reason in enumerate(reasons):
        rows.append(blank | {"series_uid": f"1.{number}", "state": "rejected", "reason": reason, "detail": LONG})
    return pd.DataFrame(rows)


def count(sheet: Image.Image, colour: tuple[int, int, int]) -> int:
    return int((np.asarray(sheet) == colour).all(axis=-1).sum())


def test_contact_sheet_shows_slices_with_outlines():
    previews = np.full((7, TILE, TILE), 100, np.uint8)
    outlines = np.zeros((7, TILE, TILE), bool)
    outlines[:, 50] = True
    sheet = contact_sheet(previews, outlines, ["cancer, train\n300 mm wide"] * 7, slices=900, patients=5)
    assert count(sheet, OUTLINE) == 7 * TILE
    assert count(sheet, (100, 100, 100)) >= 7 * TILE * (TILE - 1)
    assert sheet.width > ACROSS * TILE
    assert sheet.height > 2 * TILE
    empty = contact_sheet(previews[:0], outlines[:0], [], slices=0)
    assert empty.height < 100


def test_rejected_sheet_shows_every_reason_before_any_twice():
    table = series(*["no_lungs"] * MOST, "missing_slices", "not_fetched")
    pictures = {f"1.{n}": np.full((100, 200), 100, np.uint8) for n in range(MOST + 1)}
    sheet = rejected_sheet(table, pictures)
    assert sheet.height > MOST // ACROSS * TILE
    # 24 places: the one without a picture, as its reason has no other, and 23 with pictures of half a tile.
    assert count(sheet, (100, 100, 100)) == pytest.approx((MOST - 1) * TILE * TILE / 2, rel=0.01)
    assert count(sheet, EMPTY) > 0.9 * (TILE * TILE + (MOST - 1) * TILE * TILE / 2)


def test_rejected_sheet_says_so_where_there_is_none():
    sheet = rejected_sheet(series(), {})
    assert sheet.height < 100
    assert np.asarray(sheet).min() < 100  # something is written


def test_histograms_are_drawn_of_any_number_of_series(tmp_path):
    full = np.ones(len(HU_BINS) - 1, np.int64)
    for number in (0, 1, 50):
        path = tmp_path / f"{number}.png"
        histograms(slices(number), {"train": full, "val": 0 * full} if number else {}, path)
        with Image.open(path) as picture:
            assert picture.width > 1000


def test_everything_is_written_once(tmp_path):
    pictures = {
        "hu_train": np.ones(len(HU_BINS) - 1, np.int64),
        "images": np.arange(40, dtype=np.uint8)[:, None, None] * np.ones((32, 32), np.uint8),
        "outlines": np.zeros((40, 32, 32), bool),
        "captions": np.array([f"cancer, train\n{n}" for n in range(40)]),
        "rejected": np.full((1, 256, 256), 9, np.uint8),
        "rejected_uids": np.array(["1.0"]),
    }
    images = np.zeros((40, 8, 8), np.uint8)
    shard = write_shard(tmp_path / "shard", images, slices(40), series=series("no_lungs"), figures=pictures)
    dataset = assemble(tmp_path / "set", [shard], SliceMeta(8, (-1350, 150), "abc"), figures=pictures)
    draw_build(dataset)
    drawn = {name: (dataset.folder / name).read_bytes() for name in PICTURES}
    assert all(content.startswith(b"\x89PNG") for content in drawn.values())
    draw_build(assemble(tmp_path / "again", [shard], SliceMeta(8, (-1350, 150), "abc"), figures=pictures))
    assert (tmp_path / "again" / "contact_sheet.png").read_bytes() == drawn["contact_sheet.png"]


def test_a_dataset_without_pictures_is_drawn_too(tmp_path):
    images = np.zeros((4, 8, 8), np.uint8)
    draw_build(SliceDataset.write(tmp_path / "set", images, slices(4), meta=SliceMeta(8, None, "abc")))
    assert all((tmp_path / "set" / name).exists() for name in PICTURES)
