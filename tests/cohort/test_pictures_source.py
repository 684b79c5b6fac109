"""Pictures in class folders, tables and Hugging Face datasets become a cohort in which no image leaks."""

import logging
import re
import sys
from pathlib import Path

import pandas as pd
import pytest
import yaml
from picture_sets import SPLITS, select, story, synthetic
from pydantic import ValidationError

from lungsynth.cohort.huggingface import HuggingFaceCohortConfig, select_huggingface
from lungsynth.cohort.pictures import PictureCohortConfig, select_pictures
from lungsynth.errors import LungsynthError

REVISION = "0" * 40


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Eight synthetic radiographs of six patients in two classes: patients 0 and 3 have two."""
    for seed in range(8):
        label = "pneumonia" if seed % 2 else "normal"
        synthetic(tmp_path / "set" / label / f"person{seed % 6 if seed < 6 else (seed - 6) * 3}_{seed}.png", seed)
    return tmp_path / "set"


@pytest.fixture
def table(folder: Path) -> pd.DataFrame:
    rows = [(str(path.relative_to(folder)), path.parent.name, path.stem[:7]) for path in sorted(folder.rglob("*.png"))]
    return pd.DataFrame(rows, columns=["path", "label", "patient"])


def test_class_folders_become_rows_with_content_hashes_and_file_urls(folder):
    cohort = select(folder, license="CC BY 4.0", doi="10.1/x", collection="toys")
    assert cohort.classes == ("normal", "pneumonia")
    assert len(cohort.series) == 8
    for row in cohort.series.itertuples():
        assert row.series_uid.startswith("image-")
        path = Path.from_uri(row.url) if hasattr(Path, "from_uri") else Path(row.url.removeprefix("file://"))
        assert (path.parent.name, path.stat().st_size) == (row.label, row.bytes)
    constant = cohort.series[["collection", "modality", "role", "evidence", "license", "doi"]].drop_duplicates()
    assert constant.to_numpy().tolist() == [["toys", "DX", "image", "folder", "CC BY 4.0", "10.1/x"]]


def test_without_patients_each_image_is_one_and_the_log_says_so(folder, caplog):
    cohort = select(folder)
    assert cohort.series["patient_key"].nunique() == 8
    assert "splits are by image" in caplog.text


def test_pattern_makes_patients_who_stay_on_one_side(folder, caplog):
    with caplog.at_level(logging.INFO):
        cohort = select(folder, patient_pattern=r"(person\d+)_")
    assert sorted(cohort.series["patient"].value_counts()) == [1, 1, 1, 1, 2, 2]
    assert (cohort.series.groupby("patient")["split"].nunique() == 1).all()
    assert "by image" not in caplog.text
    assert "person" not in caplog.text


def test_a_patient_of_both_classes_is_positive_and_each_image_keeps_its_label(folder):
    synthetic(folder / "normal" / "person1_99.png", 99)
    cohort = select(folder, patient_pattern=r"(person\d+)_")
    both = cohort.series[cohort.series["patient"] == "person1"]
    assert list(both["label"]) == ["pneumonia", "pneumonia"]
    (own,) = cohort.slice_labels.itertuples()
    assert own.label == "normal"
    assert own.series_uid in set(both["series_uid"])


def test_patterns_that_do_not_fit_are_errors_that_name_no_file(folder):
    with pytest.raises(LungsynthError, match=r"fits 3 of the 8 file names") as caught:
        select(folder, patient_pattern=r"(person[01])_")
    assert "person1_1" not in str(caught.value)
    for wrong in ("person", "(person"):
        with pytest.raises(ValidationError, match="patient_pattern"):
            PictureCohortConfig(folder=folder, patient_pattern=wrong)


def test_configured_classes_give_the_codes_and_leave_others_out(folder):
    synthetic(folder / "unclear" / "x.png", 50)
    cohort = select(folder, classes=["pneumonia", "normal"])
    assert cohort.classes == ("pneumonia", "normal")
    assert story(cohort)["of a class that was asked for"] == 8
    with pytest.raises(LungsynthError, match=r"0 tuberculosis"):
        select(folder, classes=["normal", "tuberculosis"])


def test_copies_under_two_labels_are_dropped_and_others_kept_once(folder, caplog):
    original = folder / "normal" / "person0_0.png"
    (folder / "pneumonia" / "person9_9.png").write_bytes(original.read_bytes())
    twin = folder / "pneumonia" / "person1_1.png"
    (folder / "pneumonia" / "person8_8.png").write_bytes(twin.read_bytes())
    cohort = select(folder, patient_pattern=r"(person\d+)_")
    assert story(cohort) == {
        "images": 10,
        "of one label wherever they lie": 8,
        "one copy of each": 8,
        "one copy of what several patients have": 7,
    }
    assert "1 pictures lie under several patients, 2 in all" in caplog.text
    assert "person" not in caplog.text
    assert cohort.series["series_uid"].is_unique
    assert not cohort.series["patient"].isin(["person8", "person9"]).any()


def test_masks_are_found_by_place_or_stem_and_images_without_are_left_out(folder):
    images = sorted(folder.rglob("*.png"))
    for image in images[:6]:
        place = (
            folder / "masks" / image.relative_to(folder) if image.stem[-1] in "02" else folder / "masks" / image.name
        )
        synthetic(place, 0)
    cohort = select(folder)
    assert story(cohort)["with a mask"] == 6
    masks, found = cohort.series[cohort.series["role"] == "mask"], cohort.images
    assert len(masks) == len(found) == 6
    assert set(masks["source_series_uid"]) == set(found["series_uid"])
    assert masks["series_uid"].is_unique  # though they are all alike
    by_image = masks.set_index("source_series_uid")
    for row in found.itertuples():
        assert Path(row.url).stem == Path(by_image.loc[row.series_uid, "url"]).stem
        assert by_image.loc[row.series_uid, "split"] == row.split


def test_hidden_files_and_other_kinds_are_passed_over_aloud(folder, caplog):
    (folder / "normal" / ".DS_Store").write_bytes(b"x")
    (folder / "normal" / "notes.txt").write_bytes(b"x")
    (folder / "normal" / "person1.PNG").write_bytes((synthetic(folder.parent / "p.png", 70)).read_bytes())
    cohort = select(folder)
    assert len(cohort.series) == 9
    assert "passed over files: 1 hidden or a system's own, 1 of other kinds" in caplog.text
    assert list(story(cohort).values())[:4] == [11, 10, 9, 9]
    assert cohort.funnel["patients"].isna().tolist() == [True] * 3 + [False] * 3


@pytest.mark.parametrize("kind", ["csv", "parquet"])
def test_table_gives_paths_labels_patients_and_masks(folder, table, kind):
    masks = [str(synthetic(folder / "elsewhere" / f"{number}.png", 80)) for number in range(8)]
    table = table.rename(columns={"path": "file"}).assign(seg=masks)
    path = folder / f"rows.{kind}"
    table.to_parquet(path) if kind == "parquet" else table.to_csv(path, index=False)
    columns = {"path": "file", "mask": "seg"}
    cohort = select_pictures(PictureCohortConfig(table=path, columns=columns), SPLITS)
    assert len(cohort.images) == 8
    assert cohort.images["patient"].nunique() == 6
    assert (cohort.series["role"] == "mask").sum() == 8


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda rows: rows.drop(columns="patient"),
            "no column 'patient', only path, label: set cohort.columns.patient",
        ),
        (lambda rows: rows.assign(path=["nowhere.png", *rows["path"][1:]]), "the file of row 1 does not exist"),
        (lambda rows: rows.assign(label=[*rows["label"][:-1], None]), "row 8 has no value in the column 'label'"),
        (lambda rows: rows[:0], "the table has no rows"),
        (lambda rows: rows.assign(label="normal"), "at least two classes are needed, there are 8 normal"),
        (lambda rows: rows.assign(label=[*rows["label"][:-1], "a/b"]), "class name 'a/b' cannot be used"),
    ],
)
def test_tables_that_do_not_do_are_errors_of_one_line(folder, table, change, message):
    path = folder / "rows.csv"
    change(table).to_csv(path, index=False)
    with pytest.raises(LungsynthError, match=message) as caught:
        select_pictures(PictureCohortConfig(table=path), SPLITS)
    assert "\n" not in str(caught.value)


def test_unreadable_tables_and_empty_folders_are_errors(tmp_path):
    (tmp_path / "rows.parquet").write_bytes(b"no table")
    with pytest.raises(LungsynthError, match="not a readable CSV or Parquet table"):
        select_pictures(PictureCohortConfig(table=tmp_path / "rows.parquet"), SPLITS)
    with pytest.raises(LungsynthError, match="no images"):
        select(tmp_path)
    with pytest.raises(LungsynthError, match="no such folder"):
        select(tmp_path / "nowhere")
    with pytest.raises(ValidationError, match="either folder or table"):
        PictureCohortConfig()


@pytest.fixture
def hub_folder(folder: Path) -> Path:
    """A local Hugging Face dataset: the synthetic radiographs in a train and a test split of Parquet files."""
    datasets = pytest.importorskip("datasets")
    home = folder.parent / "dataset"
    files = sorted(folder.rglob("*.png"))
    features = datasets.Features(
        {
            "image": datasets.Image(),
            "label": datasets.ClassLabel(names=["NORMAL", "PNEUMONIA"]),
            "subject": datasets.Value("int64"),
        }
    )
    home.mkdir()
    for split, part in (("train", files[::2]), ("test", files[1::2])):
        rows = {
            "image": [{"bytes": file.read_bytes(), "path": file.name} for file in part],
            "label": [int(file.parent.name == "pneumonia") for file in part],
            "subject": [int(file.stem[6]) for file in part],
        }
        datasets.Dataset.from_dict(rows, features=features).to_parquet(home / f"{split}-00000-of-00001.parquet")
    return home


def hub(dataset: Path | str, **fields: object) -> HuggingFaceCohortConfig:
    return HuggingFaceCohortConfig(dataset=str(dataset), **fields)


def test_local_hugging_face_dataset_gives_the_same_images_as_its_folder(folder, hub_folder, tmp_path):
    config = hub(hub_folder, cache=tmp_path / "cache", patient_column="subject")
    cohort = select_huggingface(config, SPLITS)
    assert cohort.classes == ("NORMAL", "PNEUMONIA")
    assert set(cohort.series["series_uid"]) == set(select(folder).series["series_uid"])
    assert cohort.series["patient"].nunique() == 6
    exported = {Path(url.removeprefix("file://")) for url in cohort.series["url"]}
    assert all(path.is_relative_to(tmp_path / "cache") for path in exported)

    before = {path: path.stat().st_mtime_ns for path in exported}
    by_name = select_huggingface(
        config.model_copy(update={"patient_column": None, "patient_pattern": r"(person\d+)_"}), SPLITS
    )
    assert by_name.series["patient"].nunique() == 6
    assert before == {path: path.stat().st_mtime_ns for path in exported}


def test_one_split_or_one_parquet_file_can_be_taken(hub_folder, tmp_path):
    test = select_huggingface(hub(hub_folder, cache=tmp_path / "cache", splits=["test"]), SPLITS)
    (file,) = hub_folder.glob("test-*")
    again = select_huggingface(hub(file, cache=tmp_path / "cache"), SPLITS)
    assert len(test.series) == 4
    assert test.sha256 == again.sha256


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"image_column": "scan"}, "no column 'scan', only image, label, subject: set cohort.image_column"),
        ({"splits": ["val"]}, "has no split 'val', only"),
    ],
)
def test_unknown_columns_and_splits_are_named(hub_folder, tmp_path, fields, message):
    with pytest.raises(LungsynthError, match=message):
        select_huggingface(hub(hub_folder, cache=tmp_path / "cache", **fields), SPLITS)


def test_without_the_package_the_error_says_what_to_install(hub_folder, monkeypatch):
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(LungsynthError, match=r"pip install 'lungsynth\[huggingface\]'"):
        select_huggingface(hub(hub_folder), SPLITS)


def test_a_hub_that_does_not_answer_is_an_error_of_one_line(tmp_path, monkeypatch):
    datasets = pytest.importorskip("datasets")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
    with pytest.raises(LungsynthError, match="nobody/nothing cannot be had") as caught:
        select_huggingface(hub("nobody/nothing", revision=REVISION, cache=tmp_path), SPLITS)
    assert "\n" not in str(caught.value)


def test_a_dataset_of_the_hub_needs_its_commit():
    for revision in (None, "main"):
        with pytest.raises(ValidationError, match="revision"):
            hub("nobody/nothing", revision=revision)


@pytest.mark.parametrize(
    ("name", "patient"),
    [
        ("person1000_bacteria_2931", "person1000"),
        ("person1_virus_6", "person1"),
        ("IM-0115-0001", "IM-0115"),
        ("NORMAL2-IM-1440-0001-0002", "NORMAL2-IM-1440"),
    ],
)
def test_the_shipped_pattern_tells_the_patients_of_the_pneumonia_set(name, patient):
    config = yaml.safe_load((Path(__file__).parents[2] / "configs" / "cxr_dcgan.yaml").read_text())
    pattern = HuggingFaceCohortConfig(**config["parameters"]["cohort"]).patient_pattern
    assert re.match(pattern, name)[1] == patient
