"""The files of a folder: what is hidden, the system's, of another kind or reached twice is left out, and counted."""

import os
from collections import Counter, deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from lungsynth.errors import LungsynthError

SUFFIXES = (".png", ".jpg", ".jpeg", ".tif", ".tiff", ".dcm")
SYSTEM = {
    *("__macosx", "thumbs.db", "ehthumbs.db", "desktop.ini", "$recycle.bin", "recycler", "system volume information"),
    *("@eadir", "@tmp", "@recycle", "@recently-snapshot", "#recycle", "#snapshot", "lost+found", "found.000"),
    *("network trash folder", "temporary items", "__pycache__"),
}
"""Names, in lower case, of what macOS, Windows, disk stations and tools leave behind; such folders hold thumbnails."""
HIDDEN, OTHER, AGAIN, NOWHERE, NO_CLASS = (
    "not hidden, and no system's own",
    "PNG, JPEG, TIFF or DICOM by their suffix",
    "reached once, though links lead there again",
    "of links that lead somewhere new",
    "in the folder of a class",
)
"""What keeps a file, in the words of the funnel."""


@dataclass(frozen=True)
class Walk:
    """The picture files below `root`, in the order of their paths; the folders, and how many files did not count, why.

    `folders` are relative to `root`, and each was looked into.
    """

    root: Path
    files: list[Path] = field(default_factory=list)
    folders: list[Path] = field(default_factory=list)
    left_out: Counter[str] = field(default_factory=Counter)


def walk(root: Path, group: Callable[[Path], str]) -> Walk:
    """Every picture below `root`, links followed.

    A link that leads up, in a circle or nowhere is left out. What is reached twice counts once within a `group`, which
    is that of a path relative to `root`, and first where it really lies: in two groups it has two labels.

    Raises:
        LungsynthError: a folder cannot be read.
    """
    found = Walk(root)
    seen: set[tuple[str, str]] = set()
    folders: deque[tuple[Path, tuple[str, ...]]] = deque([(root, (os.path.realpath(root),))])
    links: deque[tuple[Path, tuple[str, ...]]] = deque()
    while folders or links:
        folder, above = (folders or links).popleft()
        if folder != root:
            if (reached := (os.path.realpath(folder), group(folder.relative_to(root)))) in seen:
                found.left_out[AGAIN] += _count(folder)
                continue
            seen.add(reached)
            found.folders.append(folder.relative_to(root))
        for entry in _entries(folder, root):
            path = Path(entry.path)
            if is_system(entry.name):
                found.left_out[HIDDEN] += _count(path) if entry.is_dir(follow_symlinks=False) else 1
            elif entry.is_dir(follow_symlinks=False):
                folders.append((path, above))
            elif os.path.isdir(path):  # noqa: PTH112 - Path's own raises where a link leads to what may not be read
                target = os.path.realpath(path)
                chain = (*above, os.path.realpath(folder))
                if any(Path(one).is_relative_to(target) for one in chain):
                    found.left_out[NOWHERE] += 1
                else:
                    links.append((path, chain))
            else:
                _add_file(entry, found, seen, group)
    found.files.sort()
    return found


def is_system(name: str) -> bool:
    """Whether a file or folder of this name is hidden or a system's own, and never data."""
    return name.startswith((".", "~$")) or name.casefold() in SYSTEM


def _add_file(entry: os.DirEntry, found: Walk, seen: set[tuple[str, str]], group: Callable[[Path], str]) -> None:
    path = Path(entry.path)
    if entry.is_symlink() and not os.path.exists(path):  # noqa: PTH110 - as above
        found.left_out[NOWHERE] += 1
    elif path.suffix.lower() not in SUFFIXES or not os.path.isfile(path):  # noqa: PTH113 - as above
        found.left_out[OTHER] += 1
    elif (reached := (os.path.realpath(path), group(path.relative_to(found.root)))) in seen:
        found.left_out[AGAIN] += 1
    else:
        seen.add(reached)
        found.files.append(path)


def _entries(folder: Path, root: Path) -> Iterator[os.DirEntry]:
    """What lies in a folder: by name, what is really there before links."""
    try:
        with os.scandir(folder) as entries:
            return iter(sorted(entries, key=lambda entry: (entry.is_symlink(), entry.name)))
    except OSError as error:
        place = "itself" if folder == root else f"«{folder.relative_to(root)}» in it"
        raise LungsynthError(
            f"{root}: the folder {place} cannot be read: {error.strerror}; give this user the right to, or move it away"
        ) from error


def _count(folder: Path) -> int:
    return sum(len(names) for _, _, names in os.walk(folder))
