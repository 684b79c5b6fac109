"""Files at URLs (`s3://…`, `gs://…`): what machines that share no disk have in common.

Credentials, regions and endpoints are those of the environment, as the file systems of fsspec read it.
"""

import hashlib
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import Annotated, Any

import fsspec
from pydantic import Field

from lungsynth.errors import LungsynthError, one_line
from lungsynth.files import whole_file

Url = Annotated[str, Field(pattern=r"^\w+://.+")]
Place = Url | Path
"""A folder: a URL, or a path on a disk."""
AT_ONCE = 8
"""Files on their way at once."""
EXTRAS = {"s3": "s3", "s3a": "s3", "gs": "gcp", "gcs": "gcp"}
"""Extras of this package by scheme."""


def place(text: str) -> Place:
    """The folder that `text` names."""
    return text if "://" in text else Path(text)


def on_disk(folder: Place) -> Path:
    """The folder on this machine's disk: itself, or of a URL the one for what is copied from and to it."""
    if isinstance(folder, Path):
        return folder
    return Path("data/remote") / hashlib.sha256(folder.encode()).hexdigest()[:12]


def below(url: str, *parts: str) -> str:
    """The URL of what lies in the folder `url`."""
    return "/".join([url.rstrip("/"), *parts])


def names(url: str) -> set[str]:
    """Paths of all files below the folder `url`, relative to it; none where there is no such folder.

    Raises:
        LungsynthError: the store cannot be asked.
    """
    with _answering(url) as (files, root):
        files.invalidate_cache()  # another machine may have written meanwhile
        return {str(PurePosixPath(path).relative_to(PurePosixPath(root))) for path in files.find(root)}


def exists(url: str) -> bool:
    """Whether there is a file `url`.

    Raises:
        LungsynthError: the store cannot be asked.
    """
    with _answering(url) as (files, path):
        files.invalidate_cache()
        return bool(files.exists(path))


def pull(url: str, folder: Path, wanted: Iterable[str]) -> int:
    """Copy these files below `url` into `folder`, each whole, several at once; give their bytes.

    Raises:
        LungsynthError: a file is not there, or the store does not give it.
    """

    def one(name: str) -> int:
        if ".." in PurePosixPath(name).parts:
            raise LungsynthError(f"{below(url, name)}: this name leads out of the folder; remove that file")
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        with _named(below(url, name)), whole_file(folder / name, beside=folder) as part:
            files.get_file(below(root, name), str(part))
            return part.stat().st_size

    with _answering(url) as (files, root), ThreadPoolExecutor(AT_ONCE) as pool:
        return sum(pool.map(one, wanted))


def push(folder: Path, url: str, wanted: Iterable[str], *, last: str | None = None) -> int:
    """Copy these files of `folder` to `url`, several at once, and then the file `last`; give their bytes.

    Object stores show a file only when it is whole. Readers who look for `last` first find all others.

    Raises:
        LungsynthError: the store does not take them.
    """

    def one(name: str) -> int:
        with _named(below(url, name)):
            files.put_file(str(folder / name), below(root, name))
        return (folder / name).stat().st_size

    with _answering(url) as (files, root), ThreadPoolExecutor(AT_ONCE) as pool:
        return sum(pool.map(one, (name for name in wanted if name != last))) + (one(last) if last else 0)


def remove(url: str) -> None:
    """Remove the folder `url`, if it is there.

    Raises:
        LungsynthError: the store refuses.
    """
    with _answering(url) as (files, root):
        if files.exists(root):
            files.rm(root, recursive=True)


@contextmanager
def _answering(url: str) -> Iterator[tuple[Any, str]]:
    """The file system of `url` and the path in it."""
    with _named(url):
        yield fsspec.url_to_fs(url)


@contextmanager
def _named(url: str) -> Iterator[None]:
    """Errors in one line that begins with `url`, whichever library raises them."""
    scheme = url.partition("://")[0]
    try:
        yield
    except LungsynthError:
        raise
    except ImportError as error:
        extra = EXTRAS.get(scheme)
        remedy = f"pip install 'lungsynth[{extra}]'" if extra else f"install the package of {scheme}://"
        raise LungsynthError(f"{url}: {one_line(error)}: {remedy}") from None
    except Exception as error:  # each store's library has its own kinds
        raise LungsynthError(
            f"{url}: {one_line(error)}; see whether the store is up, the name is right and the credentials hold, and "
            "run again: what is finished is kept"
        ) from error
