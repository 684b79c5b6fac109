"""Folders of pictures in the layouts in which they are published: classes, splits, masks.

A picture's place is its path without folders such as `images/` and `masks/`, which name no class and no patient. So
`COVID/images/a.png`, `COVID/masks/a.png` and `masks/COVID/a.png` have the same place, which pairs masks and images.
"""

import logging
import re
import unicodedata
from collections import defaultdict
from functools import partial
from pathlib import Path
from typing import NamedTuple

import pandas as pd

from lungsynth.cohort.identity import folded, normalised
from lungsynth.cohort.picture_walk import AGAIN, HIDDEN, NO_CLASS, NOWHERE, OTHER, SUFFIXES, Walk, is_system, walk
from lungsynth.errors import LungsynthError
from lungsynth.text import printable, readable

log = logging.getLogger(__name__)

IMAGES = {"images", "image", "imgs", "img"}
MASKS = re.compile(r".*masks?|segmentations?|ground[ _-]?truths?", re.IGNORECASE)
MASK_STEM = re.compile(r"(.+?)[ _-](?:masks?|seg|segmentation)(?:[ _-]?\d+)?", re.IGNORECASE)
"""`a_mask.png`, in a folder of masks or beside `a.png`."""
SPLIT = re.compile(
    r"(train|training|test|testing|val|valid|validation|dev|eval|holdout|fold|split)([ _-]?(set|data|\d+))?",
    re.IGNORECASE,
)
REMEDY = "lay each mask where its image lies, as in masks/CLASS/NAME.png for CLASS/NAME.png"


class Picture(NamedTuple):
    """A file and its place: `dirs` are the folders that count, the first of them the class."""

    path: Path
    dirs: tuple[str, ...]
    stem: str

    @property
    def key(self) -> tuple[str, ...]:
        """The place by which a mask finds its image, in one form of Unicode: macOS decomposes umlauts in archives."""
        return tuple(unicodedata.normalize("NFC", part) for part in (*self.dirs, readable(self.stem)))


def pictures_in_folder(root: Path, classes: tuple[str, ...]) -> tuple[pd.DataFrame, list[tuple[str, int]]]:
    """Every picture below a class folder, and what was left out: (rule, files left after it), in order.

    Read are `CLASS/…`, `CLASS/images/…` with `CLASS/masks/…`, `images/CLASS/…` with `masks/CLASS/…`, and all of them
    below `train/`, `test/` and the like, which are pooled.

    Raises:
        LungsynthError: there is no such folder, nothing in it is an image, or it cannot be told which level is that of
            the classes or which mask belongs to which image.
    """
    root = root.absolute()
    if not root.is_dir():
        raise LungsynthError(f"{root}: no such folder; set cohort.folder to the one that holds the class folders")
    level = _level_of_classes(root, classes)
    contents = walk(root, partial(_label, level=level))
    images, masks = _apart(contents.files, root)
    loose = sum(len(image.dirs) <= level for image in images)
    images = [image for image in images if len(image.dirs) > level]
    contents.left_out[NO_CLASS] += loose
    if not images:
        kinds = ", ".join(SUFFIXES)
        raise LungsynthError(
            f"{root}: no images; expected {root.name}/CLASS/ with {kinds} files{_told(contents, ', but ')}"
        )
    _tell(contents, {image.dirs[level] for image in images}, level)
    of_image = _pairs(images, masks, root)
    rows = [
        (image.path, _name(image.path, root), image.dirs[level], pd.NA, of_image.get(index, pd.NA))
        for index, image in enumerate(images)
    ]
    return pd.DataFrame(rows, columns=["path", "place", "label", "patient", "mask"]), _steps(contents, len(images))


def _level_of_classes(root: Path, classes: tuple[str, ...]) -> int:
    """Which of a picture's `dirs` is its class: the first, or, below published splits, the second.

    Where `classes` are given, it is the level at which one of them is a folder.
    """
    places = [root, *(path for path in _folders(root) if path.name.casefold() in IMAGES)]
    names = sorted({path.name for place in places for path in _folders(place) if _counts(path.name)})
    below = sorted({path.name for place in places for folder in _folders(place) for path in _folders(folder)})
    asked = set(map(folded, classes))
    if {folded(normalised(name)) for name in names} & asked:
        return 0
    if {folded(normalised(name)) for name in below if _counts(name)} & asked:
        log.warning(
            "%s has the classes below %s, which are pooled; patients are dealt anew to train, val and test",
            printable(str(root)),
            printable(", ".join(names)),
        )
        return 1
    splits = [name for name in names if SPLIT.fullmatch(name)]
    if not splits:
        return 0
    if len(splits) < len(names):
        other = next(name for name in names if name not in splits)
        raise LungsynthError(
            f"{root} holds {', '.join(splits)} beside {other}: it cannot be told whether folders are classes or "
            "published splits; list cohort.classes, or move what is neither away"
        )
    log.warning(
        "%s holds the published splits %s: they are pooled, and patients are dealt anew to train, val and test",
        printable(str(root)),
        ", ".join(splits),
    )
    return 1


def _folders(folder: Path) -> list[Path]:
    try:
        return [path for path in folder.iterdir() if path.is_dir() and not is_system(path.name)]
    except OSError:
        return []  # the walk says so


def _counts(name: str) -> bool:
    return name.casefold() not in IMAGES and not MASKS.fullmatch(name)


def _dirs(relative: Path) -> tuple[str, ...]:
    return tuple(readable(name) for name in relative.parts if _counts(name))


def _label(folder: Path, level: int) -> str:
    return "/".join(_dirs(folder)[level : level + 1])


def _apart(files: list[Path], root: Path) -> tuple[list[Picture], list[Picture]]:
    """Images and masks. Masks lie in a folder of masks, or beside the image after which they are named."""
    images: list[Picture] = []
    masks: list[Picture] = []
    stems: dict[Path, set[str]] = defaultdict(set)
    for path in files:
        stems[path.parent].add(path.stem)
    dirs = {folder: _dirs(folder.relative_to(root)) for folder in stems}
    of_masks = {folder for folder in stems if any(map(MASKS.fullmatch, folder.relative_to(root).parts))}
    for path in files:
        folder, stem = path.parent, path.stem
        named_after = MASK_STEM.fullmatch(stem)
        if folder in of_masks:
            masks.append(Picture(path, dirs[folder], stem))
        elif named_after and named_after[1] in stems[folder]:
            masks.append(Picture(path, dirs[folder], named_after[1]))
        else:
            images.append(Picture(path, dirs[folder], stem))
    return images, masks


def _pairs(images: list[Picture], masks: list[Picture], root: Path) -> dict[int, Path]:
    """The mask of each image that has one, by the image's index.

    A mask's folders may say less than its image's, as in `masks/a.png`, as long as that leaves one image.

    Raises:
        LungsynthError: several images may have the same mask, or several masks the same image.
    """
    by_stem: dict[str, list[int]] = defaultdict(list)
    for index, image in enumerate(images):
        by_stem[image.key[-1]].append(index)
    of_image: dict[int, list[Path]] = defaultdict(list)
    unclear, strays = [], 0
    for mask in masks:
        fitting = _fitting(mask, images, by_stem)
        if len(fitting) == 1:
            of_image[fitting[0]].append(mask.path)
        unclear += [fitting] if len(fitting) > 1 else []
        strays += not fitting
    if unclear:
        first = sorted({images[index].dirs[0] for index in unclear[0]})
        where = f"in {' and in '.join(first)}" if len(first) > 1 else f"in several places of {first[0]}"
        raise LungsynthError(
            f"{root}: {len(unclear)} of {len(masks)} masks fit several images each; those of the first one's name lie "
            f"{where}: {REMEDY}"
        )
    if several := sum(len(paths) > 1 for paths in of_image.values()):
        raise LungsynthError(
            f"{root}: {several} images have several masks each, such as a.png and a.tif or those of two folders: "
            "keep one, or name it in a table (cohort.table, cohort.columns.mask)"
        )
    if strays:
        log.warning("%d of %d masks below %s belong to no image: %s", strays, len(masks), printable(str(root)), REMEDY)
    return {index: paths[0] for index, paths in of_image.items()}


def _fitting(mask: Picture, images: list[Picture], by_stem: dict[str, list[int]]) -> list[int]:
    """The images with the mask's name whose folders include all of the mask's folders, in their order."""
    *dirs, stem = mask.key
    named_after = MASK_STEM.fullmatch(stem)
    candidates = by_stem.get(stem) or (by_stem.get(named_after[1]) if named_after else None) or []
    fitting = []
    for index in candidates:
        rest = iter(images[index].key[:-1])
        if all(name in rest for name in dirs):
            fitting.append(index)
    exact = [index for index in fitting if len(images[index].dirs) == len(dirs)]
    return exact if len(exact) == 1 else fitting


def _name(path: Path, root: Path) -> str:
    """The text that a pattern for patients is matched with: the path below the folder, without suffix."""
    return readable(path.relative_to(root).with_suffix("").as_posix())


def _steps(contents: Walk, images: int) -> list[tuple[str, int]]:
    """The funnel's first rows: the number of files before the first rule and after each rule that left some out."""
    rules = [rule for rule in (HIDDEN, OTHER, NOWHERE, AGAIN, NO_CLASS) if contents.left_out[rule]]
    left = images + sum(contents.left_out[rule] for rule in rules)
    steps = [("files in the folder, masks apart", left)] if rules else []
    for rule in rules:
        left -= contents.left_out[rule]
        steps.append((rule, left))
    return steps


def _told(contents: Walk, start: str) -> str:
    """How many files were left out, and why; nothing where there were none."""
    words = {
        HIDDEN: "{} hidden or a system's own",
        OTHER: "{} of other kinds",
        NOWHERE: "{} links that lead up or nowhere",
        AGAIN: "{} reached again by links",
        NO_CLASS: "{} in no class folder",
    }
    parts = [text.format(contents.left_out[rule]) for rule, text in words.items() if contents.left_out[rule]]
    return start + ", ".join(parts) if parts else ""


def _tell(contents: Walk, labels: set[str], level: int) -> None:
    shown = printable(str(contents.root))
    if set(+contents.left_out) - {HIDDEN}:
        kinds = ", ".join(SUFFIXES)
        log.warning("%s%s (pictures end in %s)", shown, _told(contents, ": passed over files: "), kinds)
    empty = sorted({dirs[level] for folder in contents.folders if len(dirs := _dirs(folder)) > level} - labels)
    if empty:
        log.warning("%s: no image in the class folders %s", shown, printable(", ".join(empty)))
