"""Shards at a URL: machines that share no disk build each shard once, and take what others have built."""

from collections.abc import Iterable
from pathlib import Path

from lungsynth.dataset.store import Shard
from lungsynth.dataset.undelivered import NOTE
from lungsynth.remote import below, names, on_disk, pull, push
from lungsynth.slicing.series import SliceConfig

WHOLE = "shard.json"
"""The file that is written last: where it is, the shard is whole."""


def take_shards(shards: Iterable[str], config: SliceConfig) -> None:
    """Copy the tables of these shards, and of those that replaced them, from the root's URL; slices stay there.

    Raises:
        LungsynthError: the store cannot be read.
    """
    if isinstance(config.root, Path):
        return
    wanted, url, folder = set(shards), below(config.root, "shards"), on_disk(config.root) / "shards"
    files = [name for name in names(url) if name.partition("/")[0].partition(".")[0] in wanted]
    whole = {name.partition("/")[0] for name in files if name.endswith(f"/{WHOLE}")}
    new = {shard for shard in whole if not (folder / shard / WHOLE).exists()}
    tables = [name for name in files if name.partition("/")[0] in new and not name.endswith((".safetensors", WHOLE))]
    notes = [name for name in files if name.partition("/")[0] in whole - new and name.endswith(NOTE)]
    pull(url, folder, tables + notes)
    pull(url, folder, [f"{shard}/{WHOLE}" for shard in new])


def take_slices(shard: Shard, config: SliceConfig) -> None:
    """Copy the slices of a shard, where they lie at the root's URL alone.

    Raises:
        LungsynthError: the store cannot be read.
    """
    if isinstance(config.root, str):
        url = below(config.root, "shards", shard.folder.name)
        missing = {name for name in names(url) if name.endswith(".safetensors")}
        pull(url, shard.folder, {name for name in missing if not (shard.folder / name).exists()})


def give_shard(shard: Shard, config: SliceConfig) -> None:
    """Copy a new shard to the root's URL. The copies of its slices on this disk go: they may be many.

    Raises:
        LungsynthError: the store cannot be written.
    """
    if isinstance(config.root, str):
        files = [path for path in shard.folder.iterdir() if path.is_file()]
        push(shard.folder, below(config.root, "shards", shard.folder.name), [path.name for path in files], last=WHOLE)
        for path in files:
            if path.suffix == ".safetensors":
                path.unlink()


def give_notes(shards: Iterable[Shard], config: SliceConfig) -> None:
    """Copy the notes of shards about undelivered series to the root's URL.

    Raises:
        LungsynthError: the store cannot be written.
    """
    if isinstance(config.root, str):
        noted = [f"{shard.folder.name}/{NOTE}" for shard in shards if (shard.folder / NOTE).exists()]
        push(on_disk(config.root) / "shards", below(config.root, "shards"), noted)
