"""The layouts in which pictures are published, what lies among them, and which mask is whose."""

import hashlib
import os
from pathlib import Path
from urllib.request import url2pathname

import pandas as pd
import pytest
from picture_sets import SPLITS, lay, select, story
from PIL import Image

from lungsynth.cohort.cohort import Cohort
from lungsynth.cohort.pictures import PictureCohortConfig, select_pictures
from lungsynth.cohort.splits import SplitConfig
from lungsynth.errors import LungsynthError


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Six pictures of two classes."""
    return lay(
        tmp_path / "set", *(f"{label}/{number}_{label}.png" for label in ("COVID", "Normal") for number in "012")
    )


def places(cohort: Cohort, root: Path) -> set[str]:
    """Where the images lie, below `root`."""
    return {str(Path(url2pathname(url.removeprefix("file://"))).relative_to(root)) for url in cohort.images["url"]}


def mask_of(cohort: Cohort, root: Path) -> dict[str, str]:
    """The place of each image's mask by that of the image."""
    place = {
        row.series_uid: str(Path(url2pathname(row.url.removeprefix("file://"))).relative_to(root))
        for row in cohort.series.itertuples()
    }
    masks = cohort.series[cohort.series["role"] == "mask"]
    return {place[row.source_series_uid]: place[row.series_uid] for row in masks.itertuples()}


@pytest.mark.parametrize(
    "stray",
    [
        *("COVID/.ipynb_checkpoints/0_COVID-checkpoint.png", "@eaDir/x.png", "Normal/@eaDir/0.png/THUMB.jpg"),
        *("__MACOSX/COVID/._0.png", "lost+found/7.png", "$RECYCLE.BIN/S-1-5/9.png", ".Trash-0/files/1.png"),
        *("COVID/Thumbs.db", "COVID/.hidden.png", "#recycle/8.png", "System Volume Information/5.jpg"),
    ],
)
def test_what_is_hidden_or_a_systems_own_is_never_data(root, stray, caplog):
    cohort = select(lay(root, stray))
    assert cohort.classes == ("COVID", "Normal")
    assert len(cohort.images) == 6
    assert story(cohort)["files in the folder, masks apart"] == 7
    assert story(cohort)["not hidden, and no system's own"] == 6
    assert "passed over" not in caplog.text  # every disk has some


@pytest.mark.parametrize("name", ["masks", "Masks", "MASKS", "mask", "lung masks", "Segmentation"])
def test_masks_at_the_root_are_no_class(root, name):
    lay(root, *(f"{name}/{label}/{number}_{label}.png" for label in ("COVID", "Normal") for number in "01"))
    cohort = select(root)
    assert cohort.classes == ("COVID", "Normal")
    assert mask_of(cohort, root)["COVID/0_COVID.png"] == f"{name}/COVID/0_COVID.png"
    assert story(cohort)["with a mask"] == 4


@pytest.mark.parametrize(
    ("image", "mask"),
    [
        ("{label}/images/{name}.png", "{label}/masks/{name}.png"),  # Kaggle's COVID-19 Radiography Database
        ("{label}/Images/{name}.png", "{label}/lung masks/{name}.png"),
        ("images/{label}/{name}.png", "masks/{label}/{name}.png"),
        ("train/{label}/images/{name}.png", "train/{label}/masks/{name}.png"),
        ("train/images/{label}/{name}.png", "train/masks/{label}/{name}.png"),
        ("{label}/patient{name}/images/a.png", "{label}/patient{name}/masks/a.png"),
        ("{label}/CXR_{name}.png", "mask/CXR_{name}_mask.png"),  # Shenzhen
        ("{label}/{name}.png", "{label}/{name}_mask.png"),  # BUSI
        ("{label}/{name}.jpg", "{label}/{name}_seg.png"),
    ],
)
def test_known_layouts_give_classes_and_pairs(tmp_path, image, mask):
    taken = [{"label": label, "name": f"{label[0]}{number}"} for label in ("COVID", "Normal") for number in range(3)]
    expected = {image.format(**one): mask.format(**one) for one in taken}
    cohort = select(lay(tmp_path, *expected, *expected.values()))
    assert cohort.classes == ("COVID", "Normal")
    assert mask_of(cohort, tmp_path) == expected


@pytest.mark.parametrize("names", [("train", "test", "val"), ("Training", "Testing"), ("fold_1", "fold_2"), ("train",)])
def test_published_splits_are_pooled_aloud(tmp_path, names, caplog):
    lay(tmp_path, *(f"{split}/{label}/{n}.png" for split in names for label in ("a", "b") for n in range(3)))
    cohort = select(lay(tmp_path, "train/stray.png") if names == ("train",) else tmp_path)
    assert cohort.classes == ("a", "b")
    assert len(cohort.images) == 6 * len(names)
    assert f"holds the published splits {', '.join(sorted(names))}: they are pooled" in caplog.text
    assert story(cohort).get("in the folder of a class", 6 * len(names)) == 6 * len(names)


def test_splits_beside_classes_are_refused_unless_the_classes_are_named(root):
    lay(root, "test/COVID/9.png")
    with pytest.raises(LungsynthError, match=r"holds test beside COVID: .* list cohort.classes, or move"):
        select(root)
    assert len(select(root, classes=["Normal", "COVID"]).images) == 6


@pytest.mark.parametrize("places", [("site A", "site B"), ("chest_xray",), ("train", "extra")])
def test_classes_that_are_named_are_found_a_level_below(tmp_path, places, caplog):
    lay(tmp_path, *(f"{place}/{label}/{number}.png" for place in places for label in "ab" for number in range(3)))
    cohort = select(tmp_path, classes=["b", "a"])
    assert len(cohort.images) == 6 * len(places)
    assert f"has the classes below {', '.join(sorted(places))}, which are pooled" in caplog.text


def test_a_folder_that_holds_itself_once_more_is_refused(tmp_path):
    lay(tmp_path, "train/a/0.png", "test/b/1.png", "chest_xray/train/a/0.png", "__MACOSX/train/a/._0.png")
    with pytest.raises(LungsynthError, match="holds test, train beside chest_xray"):
        select(tmp_path)


def test_links_are_followed_once(tmp_path, caplog):
    root = lay(tmp_path / "set", "a/0.png", "a/1.png", "b/2.png")
    store = lay(tmp_path / "store", "more/3.png", "more/4.png", "5.png")
    (root / "b" / "more").symlink_to(store / "more")
    (root / "b" / "again").symlink_to(store / "more")
    (root / "b" / "deep").mkdir()
    (root / "b" / "deep" / "up").symlink_to(root)
    (root / "b" / "itself").symlink_to(root / "b" / "itself")
    (root / "b" / "gone.png").symlink_to(root / "nowhere.png")
    (root / "b" / "5.png").symlink_to(store / "5.png")
    (root / "b" / "five.png").symlink_to(store / "5.png")
    (store / "more" / "back").symlink_to(tmp_path)
    cohort = select(root)
    assert places(cohort, root) == {"a/0.png", "a/1.png", "b/2.png", "b/again/3.png", "b/again/4.png", "b/5.png"}
    assert "4 links that lead up or nowhere, 3 reached again by links" in caplog.text
    assert story(cohort)["of links that lead somewhere new"] == 9


def test_where_a_file_really_lies_comes_before_links(tmp_path):
    root = lay(tmp_path, "a/z/0.png", "b/1.png", "b/2.png")
    (root / "a" / "link").symlink_to(root / "a" / "z")
    assert places(select(root), root) == {"a/z/0.png", "b/1.png", "b/2.png"}


def test_a_link_from_class_to_class_gives_two_labels(tmp_path):
    root = lay(tmp_path, "a/0.png", "a/1.png", "b/2.png", "b/3.png", "b/both/4.png")
    (root / "a" / "link").symlink_to(root / "b" / "both")
    cohort = select(root)
    assert story(cohort)["images"] == 6
    assert story(cohort)["of one label wherever they lie"] == 4


def test_a_class_that_is_a_link_to_another_gives_two_labels(tmp_path):
    root = lay(tmp_path, "a/0.png", "a/1.png", "b/2.png", "b/3.png", "c/4.png", "c/5.png")
    (root / "d").symlink_to(root / "c")
    cohort = select(root)
    assert story(cohort)["images"] == 8
    assert cohort.classes == ("a", "b")


def test_a_folder_that_may_not_be_read_is_named(root, monkeypatch):
    lay(root, "COVID/closed/7.png")
    scandir = os.scandir

    def refuse(path: Path) -> object:
        if Path(path).name == "closed":
            raise PermissionError(13, "Permission denied")
        return scandir(path)

    monkeypatch.setattr("lungsynth.cohort.picture_walk.os.scandir", refuse)
    with pytest.raises(LungsynthError, match="folder «COVID/closed» in it cannot be read: Permission denied"):
        select(root)


def test_files_that_may_not_be_read_are_counted(root, monkeypatch):
    def refuse(path: Path) -> str:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("lungsynth.cohort.pictures.file_sha256", refuse)
    with pytest.raises(LungsynthError, match="6 of 6 files cannot be read: Permission denied") as caught:
        select(root)
    assert "0_COVID" not in str(caught.value)


def test_pictures_without_class_and_classes_without_pictures_are_told_of(root, caplog):
    (root / "Pneumonia" / "bitmaps").mkdir(parents=True)
    lay(root, "loose.png", "images/loose.png", "Pneumonia/bitmaps/3.bmp")
    cohort = select(root)
    assert cohort.classes == ("COVID", "Normal")
    assert list(story(cohort).items())[:3] == [
        ("files in the folder, masks apart", 9),
        ("PNG, JPEG, TIFF or DICOM by their suffix", 8),
        ("in the folder of a class", 6),
    ]
    assert "no image in the class folders Pneumonia" in caplog.text


def test_a_folder_of_loose_pictures_says_what_is_expected(tmp_path):
    lay(tmp_path / "set", "0.png", "images/1.png", "notes.txt")
    with pytest.raises(LungsynthError, match=r"no images; expected set/CLASS/.* but 1 of other kinds, 2 in no class"):
        select(tmp_path / "set")


def test_one_mask_for_the_images_of_two_classes_is_an_error(tmp_path):
    lay(tmp_path, "COVID/0.png", "Normal/0.png", "Normal/1.png", "masks/0.png", "masks/1.png")
    with pytest.raises(
        LungsynthError, match=r"1 of 2 masks fit several images each; .* lie in COVID and in Normal: lay"
    ):
        select(tmp_path)


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (("a/p1/0.png", "a/p2/0.png", "masks/a/0.png"), "lie in several places of a"),
        (("a/0.png", "a/0.jpg", "masks/a/0.png"), "1 of 1 masks fit several images"),
        (("train/a/0.png", "test/a/0.png", "masks/a/0.png"), "1 of 1 masks fit several images"),
        (("a/0.png", "b/1.png", "masks/a/0.png", "masks/a/0.tif"), "1 images have several masks each"),
        (("a/0.png", "b/1.png", "masks/a/0.png", "masks/0.png"), "1 images have several masks each"),
        (("a/images/0.png", "a/lung masks/0.png", "a/infection masks/0.png"), "1 images have several masks each"),
        (("a/0.png", "a/0_mask.png", "a/0_mask_1.png"), "1 images have several masks each"),
    ],
)
def test_pairs_that_are_not_one_to_one_are_errors(tmp_path, names, message):
    with pytest.raises(LungsynthError, match=message):
        select(lay(tmp_path, *names))


def test_masks_of_no_image_are_told_of_and_images_without_one_counted(root, caplog):
    masks = ("masks/COVID/0_COVID.png", "masks/1_Normal.png", "masks/2_Normal.png")
    lay(root, *masks, "masks/of nobody.png", "masks/Normal/0_COVID.png")
    cohort = select(root)
    assert story(cohort)["with a mask"] == 3
    assert "2 of 5 masks" in caplog.text
    assert "belong to no image" in caplog.text
    assert "nobody" not in caplog.text


def test_masks_pair_though_an_archive_spells_umlauts_another_way(tmp_path):
    lay(tmp_path, "a/Mu\u0308ller.png", "b/x.png", "b/y.png")
    lay(tmp_path / "masks", "a/M\u00fcller.png", "b/x.png", "b/y.png")
    assert len(mask_of(select(tmp_path), tmp_path)) == 3


def test_in_a_table_only_an_empty_mask_may_serve_several_images(tmp_path):
    lay(tmp_path, *(f"{number}.png" for number in range(4)))
    Image.new("L", (4, 4)).save(tmp_path / "empty.png")
    Image.new("L", (4, 4), 255).save(tmp_path / "full.png")
    rows = pd.DataFrame({"path": [f"{n}.png" for n in range(4)], "label": list("aabb"), "patient": list("1234")})
    for mask, error in (("empty", None), ("full", "the images of rows 1 and 2 have the same mask")):
        rows.assign(mask=f"{mask}.png").to_csv(tmp_path / "rows.csv", index=False)
        config = PictureCohortConfig(table=tmp_path / "rows.csv", columns={"mask": "mask"})
        if error is None:
            assert (select_pictures(config, SPLITS).series["role"] == "mask").sum() == 4
        else:
            with pytest.raises(LungsynthError, match=error):
                select_pictures(config, SPLITS)


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"folder": ".", "patient_pattern": r"(person\d+)_"}, "469fd6adece22870"),
        ({"folder": "."}, "f706bb7f1b939737"),
        ({"table": "rows.csv"}, "3344f929833a66bf"),
    ],
)
def test_clean_sets_give_the_cohorts_of_earlier_releases(tmp_path, fields, expected):
    """Patients, keys, labels, splits and masks, to the bit: a release that moved patients would spoil `test`."""
    rows = []
    for number in range(40):
        label = "PNEUMONIA" if number % 2 else "NORMAL"
        for place in (Path(label), Path("masks", label)):
            (tmp_path / place).mkdir(parents=True, exist_ok=True)
            name = place / f"person{number // 2:03d}_{number}.png"
            (tmp_path / name).write_bytes(f"{place.parent == Path()} {number}".encode())
        rows.append((f"{label}/person{number // 2:03d}_{number}.png", label, f"person{number // 2:03d}"))
    pd.DataFrame(rows, columns=["path", "label", "patient"]).to_csv(tmp_path / "rows.csv", index=False)
    placed = {name: tmp_path / value if name != "patient_pattern" else value for name, value in fields.items()}
    cohort = select_pictures(PictureCohortConfig(**placed), SplitConfig(method="ranked"))
    columns = ["series_uid", "patient", "patient_key", "label", "split", "role", "source_series_uid"]
    lines = [" ".join(map(str, row)) for row in cohort.series[columns].itertuples(index=False)]
    assert hashlib.sha256("\n".join(lines).encode()).hexdigest()[:16] == expected
