"""The picture files below a folder; hidden files, other kinds and repetitions are left out and counted."""

import os
from collections import Counter, deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from lungsynth.errors import LungsynthError, reason

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
"""The rules that a file has to meet, in the words of the funnel."""


@dataclass
class Walk:
    """The picture files below `root`, by path; the folders, relative to `root`; the files left out, by rule."""

    root: Path
    files: list[Path] = field(default_factory=list)
    folders: list[Path] = field(default_factory=list)
    left_out: Counter[str] = field(default_factory=Counter)
    _seen: set[tuple[str, str]] = field(default_factory=set)

    def _is_new(self, real: str, group: str) -> bool:
        if (real, group) in self._seen:
            return False
        self._seen.add((real, group))
        return True

    def _add(self, path: Path, real: str, group: str) -> None:
        """A file that is really there."""
        if path.suffix.lower() not in SUFFIXES:
            self.left_out[OTHER] += 1
        elif not self._is_new(real, group):
            self.left_out[AGAIN] += 1
        else:
            self.files.append(path)


def walk(root: Path, group: Callable[[Path], str]) -> Walk:
    """Every picture below `root`, links followed.

    Links that lead up, in a circle or nowhere are left out. A file that is reached twice within a group counts once, at
    its real place if that is below `root`; in two groups it counts twice, since it has two labels. `group` gives the
    group of a folder relative to `root`.

    Raises:
        LungsynthError: a folder cannot be read.
    """
    contents = Walk(root)
    folders: deque[tuple[Path, tuple[str, ...]]] = deque([(root, ())])
    links: deque[tuple[Path, tuple[str, ...]]] = deque()  # each with the real folders on the way to it
    while folders or links:
        path, above = folders.popleft() if folders else links.popleft()
        real, place = os.path.realpath(path), path.relative_to(root)
        if not os.path.isdir(real):  # noqa: PTH112 - Path's own raises where a link leads to what may not be read
            _add_link(contents, path, real, group=group(place.parent))
        elif any(Path(one).is_relative_to(real) for one in above):
            contents.left_out[NOWHERE] += 1
        elif not contents._is_new(real, group(place)):
            contents.left_out[AGAIN] += _count(path)
        else:
            contents.folders.append(place)
            for entry in _entries(path, root):
                inner = Path(entry.path)
                if is_system(entry.name):
                    contents.left_out[HIDDEN] += _count(inner) if entry.is_dir(follow_symlinks=False) else 1
                elif entry.is_symlink():
                    links.append((inner, (*above, real)))
                elif entry.is_dir():
                    folders.append((inner, above))
                elif entry.is_file():
                    contents._add(inner, f"{real}/{entry.name}", group(place))
                else:
                    contents.left_out[OTHER] += 1
    contents.files.sort()
    return contents


def is_system(name: str) -> bool:
    """Whether a file or folder of this name is hidden or a system's own, and never data."""
    return name.startswith((".", "~$")) or name.casefold() in SYSTEM


def _add_link(contents: Walk, path: Path, real: str, *, group: str) -> None:
    """A link that leads to no folder."""
    if os.path.isfile(real):  # noqa: PTH113 - as above
        contents._add(path, real, group)
    else:
        contents.left_out[NOWHERE] += 1


def _entries(folder: Path, root: Path) -> Iterator[os.DirEntry[str]]:
    """The entries of a folder: files and folders by name, then links by name."""
    try:
        with os.scandir(folder) as entries:
            return iter(sorted(entries, key=lambda entry: (entry.is_symlink(), entry.name)))
    except OSError as error:
        place = "itself" if folder == root else f"«{folder.relative_to(root)}» in it"
        raise LungsynthError(
            f"{root}: the folder {place} cannot be read: {reason(error)}; give this user the right to, or move it away"
        ) from error


def _count(folder: Path) -> int:
    return sum(len(names) for _, _, names in os.walk(folder))
