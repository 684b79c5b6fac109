"""Small pictures on disk, and the cohorts that are made of them."""

from pathlib import Path

import numpy as np
from PIL import Image

from lungsynth.cohort.cohort import Cohort
from lungsynth.cohort.pictures import PictureCohortConfig, select_pictures
from lungsynth.cohort.splits import SplitConfig

SPLITS = SplitConfig(method="ranked")


def synthetic(path: Path, seed: int) -> Path:
    """A small picture of noise, other than that of any other seed."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.random.default_rng(seed).integers(0, 256, (12, 10), dtype=np.uint8)).save(path)
    return path


def lay(root: Path, *names: str) -> Path:
    """A file at each of these places below `root`, each of another content; nobody decodes it here."""
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(name.encode("utf-8", "surrogateescape"))
    return root


def select(folder: Path, **fields: object) -> Cohort:
    """The cohort of a folder of pictures."""
    return select_pictures(PictureCohortConfig(folder=folder, **fields), SPLITS)


def story(cohort: Cohort) -> dict[str, int]:
    """The funnel: what was left after each rule."""
    return dict(zip(cohort.funnel["rule"], cohort.funnel["series"], strict=True))
