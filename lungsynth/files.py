"""Files and folders that appear under their names only when they are whole, by one rename."""

import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path


@contextmanager
def whole_file(path: Path, *, beside: Path | None = None) -> Iterator[Path]:
    """Yields a hidden name to write to, which takes the place of `path` once the block ends; none is left if it fails.

    Readers see the old file or the new one. Nothing is flushed: after a loss of power the file may be empty.

    Args:
        beside: the hidden name lies beside this path, by default beside `path`. Give the file's folder where others may
            be copying or listing it meanwhile.
    """
    part = _hidden(beside or path)
    try:
        yield part
        part.replace(path)
    except BaseException:
        with suppress(OSError):
            part.unlink(missing_ok=True)
        raise


@contextmanager
def whole_folder(folder: Path) -> Iterator[Path]:
    """Yields a hidden folder to fill, which becomes `folder` once the block ends; it is removed if that fails.

    Raises:
        OSError: `folder` is there by then, and not empty.
    """
    part = _hidden(folder)
    part.mkdir(parents=True)
    try:
        yield part
        part.rename(folder)
    finally:
        shutil.rmtree(part, ignore_errors=True)


def _hidden(path: Path) -> Path:
    """A name beside `path` that nobody else has; random, since pods share folders and process ids."""
    return path.with_name(f".{path.name}.{secrets.token_hex(4)}.part")
