"""The whole pipeline on radiographs in a folder, with classes of their own; cut short. The pictures are made up."""

import json

import numpy as np
import pytest
import yaml
from PIL import Image

from lungsynth.errors import LungsynthError
from pipelines.zenml_config import read_run_file
from steps import STEPS


@pytest.fixture(scope="module")
def radiographs(tmp_path_factory):
    """60 made-up radiographs of 30 patients, with masks: dark lungs, one with a white patch in pneumonia."""
    folder, rng = tmp_path_factory.mktemp("cxr"), np.random.default_rng(0)
    y, x = np.mgrid[:60, :80] / 80 - np.array([0.375, 0.5])[:, None, None]
    for patient in range(30):
        kind = ("NORMAL", "PNEUMONIA")[patient % 2]
        for place in (folder / kind, folder / "masks" / kind):
            place.mkdir(parents=True, exist_ok=True)
        lungs = ((np.abs(x) - 0.2) / 0.14) ** 2 + (y / 0.3) ** 2 < 1
        for number in range(2):
            grey = np.where(lungs, 60.0, 190.0)
            if patient % 2:
                grey[np.hypot(x - 0.2, y - 0.1) < 0.08] = 200
            noisy = (grey + rng.normal(0, 8, grey.shape)).clip(0, 255).astype(np.uint8)
            Image.fromarray(noisy).save(folder / kind / f"person{patient}_{number}.png")
            Image.fromarray(lungs).save(folder / "masks" / kind / f"person{patient}_{number}.png")
    (folder / "NORMAL" / "person98_0.png").write_bytes(b"\x89PNG, and then nothing")
    Image.fromarray(lungs).save(folder / "masks" / "NORMAL" / "person98_0.png")
    return folder


def test_radiographs_become_a_verdict(project, run_pipeline, radiographs, cut_short):
    content = yaml.safe_load((project / "configs" / "cxr_dcgan.yaml").read_text())
    content["parameters"] |= {"splits": {"method": "ranked"}}
    content["parameters"]["cohort"] = {
        "source": "pictures",
        "collection": "made-up",
        "folder": str(radiographs),
        "classes": ["NORMAL", "PNEUMONIA"],
        "patient_pattern": r"(person\d+)",
    }
    cut_short(content)
    path = project / "cxr.yaml"
    path.write_text(yaml.safe_dump(content))
    done = run_pipeline("-c", str(path))
    assert done.returncode == 0, done.stdout
    assert "60 slices of 61 series" in done.stdout
    outputs = project / "outputs" / "latest"
    assert json.loads((outputs / "verdict.json").read_text())["outcome"] in ("reject", "underpowered", "blocked")
    page = (outputs / "report.html").read_text()
    assert "PNEUMONIA" in page
    assert "unreadable" in page
    assert "person1_" not in page


def test_classes_of_another_cohort_are_refused(project, run_pipeline, radiographs):
    content = yaml.safe_load((project / "cxr.yaml").read_text())
    content["parameters"]["generator"]["classes"] = ["non-cancer", "cancer"]
    path = project / "other.yaml"
    path.write_text(yaml.safe_dump(content))
    done = run_pipeline("-c", str(path))
    assert done.returncode == 1
    assert "generator.classes are non-cancer, cancer and the slices' NORMAL, PNEUMONIA" in done.stdout
    assert "Traceback" not in done.stdout


def test_pairs_with_masks_are_judged_by_what_they_do_for_a_segmenter(project, run_pipeline, radiographs, cut_short):
    content = yaml.safe_load((project / "configs" / "cxr_gan_seg.yaml").read_text())
    content["parameters"]["cohort"] |= {
        "collection": "made-up",
        "folder": str(radiographs),
        "classes": ["NORMAL", "PNEUMONIA"],
        "patient_pattern": r"(person\d+)",
    }
    network = content["parameters"]["generator"] | {"classes": ["NORMAL", "PNEUMONIA"]}
    cut_short(content)
    narrow = {"size": 32, "nz": 8, "nw": 8, "mapping_layers": 2, "channel_base": 128, "channel_max": 16}
    content["parameters"]["generator"] = network | narrow
    content["parameters"]["utility"] |= {"unet_width": 4, "ratios": [1.0]}
    path = project / "seg.yaml"
    path.write_text(yaml.safe_dump(content))
    done = run_pipeline("-c", str(path))
    assert done.returncode == 0, done.stdout
    outputs = project / "outputs" / "latest"
    names = [metric["name"] for metric in json.loads((outputs / "scorecard.json").read_text())["metrics"]]
    assert {"dice/real", "dice/real+classical", "dice/real+classical+synthetic@1"} <= set(names)
    assert not [name for name in names if name.startswith("auroc/")]
    verdict = json.loads((outputs / "verdict.json").read_text())
    assert verdict["outcome"] in ("reject", "underpowered", "blocked")
    page = (outputs / "report.html").read_text()
    assert "Does it help segmenters?" in page
    assert "Youden" not in page
    assert "dice/real+classical" in done.stdout


@pytest.mark.parametrize(
    ("section", "line"),
    [
        ({"slices": {"masks": False}}, "generator.masks needs slices with masks to learn from: set slices.masks: true"),
        ({"generator": {"masks": False}}, "segmentation needs a generator of pairs: set generator.masks: true"),
    ],
)
def test_a_segmentation_without_masks_is_refused_at_once(project, section, line):
    content = yaml.safe_load((project / "seg.yaml").read_text())
    for name, fields in section.items():
        content["parameters"][name] |= fields
    path = project / "unmasked.yaml"
    path.write_text(yaml.safe_dump(content))
    with pytest.raises(LungsynthError, match=line):
        read_run_file(path, STEPS)
