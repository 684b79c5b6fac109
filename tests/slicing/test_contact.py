"""What a contact sheet shows, of any number of shards."""

import numpy as np
import pandas as pd
import pytest

from lungsynth.dataset.store import COLUMNS, HU_BINS, write_shard
from lungsynth.slicing import contact
from lungsynth.slicing.contact import KEPT, SHOWN, Kind, figures_of, merged_figures, previews_a_series, spread
from lungsynth.slicing.series import Preview, SeriesSlices

SPLITS = ("train", "val", "test")


def kinds(*counts):
    """Rows of (split, label, patient, how many)."""
    return [Kind(split, label, patient) for split, label, patient, count in counts for _ in range(count)]


def test_every_kind_comes_before_any_comes_again_and_every_patient_of_it():
    many = [("train", "non-cancer", f"n{n}", 50) for n in range(30)]
    few = [("train", "cancer", "c", 9), ("val", "non-cancer", "v", 20), ("test", "cancer", "t", 1)]
    table = kinds(*many, *few)
    chosen = pd.DataFrame([table[place] for place in spread(table, 24)])
    assert len(chosen) == 24
    counts = chosen.groupby(["split", "label"]).size().to_dict()
    assert counts == {
        ("test", "cancer"): 1,
        ("train", "cancer"): 8,
        ("train", "non-cancer"): 8,
        ("val", "non-cancer"): 7,
    }
    assert chosen.loc[chosen["label"].eq("non-cancer") & chosen["split"].eq("train"), "patient"].nunique() == 8
    assert list(dict.fromkeys(chosen["split"])) == ["train", "val", "test"]
    assert spread(table, 24) == spread(table, 24)


@pytest.mark.parametrize("rows", [0, 1, 5])
def test_all_are_shown_where_they_are_few(rows):
    table = kinds(("val", "cancer", "a", rows))
    assert sorted(spread(table, 24)) == list(range(rows))


def shard_of(folder, number, series, previews):
    """A shard whose series have so many previews each; a preview's grey is its shard's number."""
    image, outline = np.full((224, 224), number, np.uint8), np.zeros((224, 224), bool)
    slices, rows = {}, []
    for n in range(series):
        split, label, uid = SPLITS[(number + n) % 3], ("cancer", "non-cancer")[n % 2], f"1.{number}.{n}"
        shown = [Preview(image, outline, f"{number} {label}, {split}", label) for _ in range(previews)]
        hu = np.ones(len(HU_BINS) - 1, np.int64)
        slices[uid] = SeriesSlices(np.empty((0, 8, 8), np.uint8), None, pd.DataFrame(), (), hu, shown)
        rows.append((uid, split, f"p{number}.{n}"))
    images = pd.DataFrame(rows, columns=["series_uid", "split", "patient_key"])
    empty = pd.DataFrame(columns=list(COLUMNS))
    pictures = figures_of(slices, {}, images)
    return write_shard(folder / str(number), np.empty((0, 8, 8), np.uint8), empty, figures=pictures)


@pytest.mark.parametrize(
    ("shards", "series", "shown"), [(1, 1, 24), (1, 11, 24), (1, 40, 24), (2, 16, 48), (70, 2, 48), (3, 0, 0)]
)
def test_a_sheet_has_its_slices_whatever_the_number_of_shards(tmp_path, monkeypatch, shards, series, shown):
    made = [shard_of(tmp_path, number, series, previews_a_series(max(1, series))) for number in range(shards)]
    found = merged_figures(made)
    assert sum(found[f"hu_{split}"].sum() for split in SPLITS) == shards * series * (len(HU_BINS) - 1)
    assert len(found.get("captions", ())) == len(found.get("images", ())) == shown
    if shown:
        assert KEPT <= shown <= SHOWN
        greys = found["images"][:, 0, 0]
        assert [int(caption.split()[0]) for caption in found["captions"]] == greys.tolist()
        assert [caption.partition(" ")[2] for caption in found["captions"]] == [
            f"{label}, {split}" for label, split in zip(found["label"], found["split"], strict=True)
        ]
        assert len(set(found["patient"])) == min(shards * series, shown)
        again = merged_figures(made)
        assert all((array == again[name]).all() for name, array in found.items())


def test_no_more_shards_are_opened_for_their_pictures_than_a_sheet_needs(tmp_path, monkeypatch):
    monkeypatch.setattr(contact, "SHARDS_SHOWN", 2)
    made = [shard_of(tmp_path, number, 2, 24) for number in range(5)]
    assert len(set(merged_figures(made)["images"][:, 0, 0])) == 2
