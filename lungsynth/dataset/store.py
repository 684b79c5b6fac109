"""The slice dataset: uint8 slices in memory-mapped shards, and a table with one row for each slice."""

import json
import os
import shutil
import tempfile
import zipfile
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from safetensors.numpy import save_file

from lungsynth.dataset.mapped import MappedSlices, map_shards, write_slices
from lungsynth.dataset.rejection import Reason
from lungsynth.dataset.undelivered import Undelivered, read_notes, write_notes
from lungsynth.dataset.vocabulary import CLASSES, SPLITS
from lungsynth.errors import LungsynthError
from lungsynth.files import whole_folder
from lungsynth.hashing import array_sha256, combine, table_sha256

COLUMNS = {
    "patient": "string",  # pseudonymous key of the cohort
    "series_uid": "string",
    "sop_uid": "string",
    "position_mm": "float64",  # along the slice normal, patient coordinates; missing for pictures
    "label": "string",  # one of the dataset's classes
    "evidence": "string",  # what the label rests on: one of cohort.EVIDENCE
    "split": "string",  # train, val or test
    "spacing_mm": "float64",  # in-plane size of an output pixel; missing where unknown, like all that follow
    "pixel_mm": "float64",  # in-plane size of a pixel of the scan
    "slice_spacing_mm": "float64",  # distance of neighbouring slices of the scan
    "thickness_mm": "float64",
    "lung_fraction": "float64",  # fraction of the slice's pixels that is lung, 0 to 1
    "manufacturer": "string",
}
SERIES_COLUMNS = {
    "series_uid": "string",
    "patient": "string",  # pseudonymous key of the cohort
    "split": "string",
    "label": "string",  # the patient's
    "state": "string",  # built or rejected
    "reason": "string",  # of a rejection: one of rejection.Reason; else empty
    "detail": "string",  # numbers and file names behind the reason
    "notes": "string",  # oddities that were mended or are worth knowing, one a line
    "slices": "int64",
    "lesion_mm": "float64",  # longest in-plane diameter of the largest lesion; missing where unknown or there is none
}
HU_BINS = np.arange(-1024, 1025, 32)
"""Edges in HU of the histogram that a build keeps of each split's voxels."""


@dataclass(frozen=True)
class SliceMeta:
    """What all slices have in common.

    `size` is H = W in pixels; `window_hu` (low, high) maps linearly to 0 to 255, none for pictures, which have no HU;
    `view` is the part of the scan that a slice shows; `classes` are the labels in the order of their codes, the
    positive one last.
    """

    size: int
    window_hu: tuple[float, float] | None
    cohort_sha256: str
    view: str = "lungs"
    classes: tuple[str, ...] = CLASSES


@dataclass(frozen=True)
class Shard:
    """A folder with some of a dataset's slices and their tables; `rows` counts the slices, `sha256` hashes all of it.

    `undelivered` are the series that no store gave. The notes about them are the only file that ever changes.
    """

    folder: Path
    rows: int
    sha256: str
    undelivered: tuple[Undelivered, ...] = ()

    @classmethod
    def open(cls, folder: Path) -> "Shard | None":
        """The shard that `write_shard` left in `folder`, if there is one."""
        path = folder / "shard.json"
        return cls(folder, **json.loads(path.read_text()), undelivered=read_notes(folder)) if path.exists() else None

    def noted(self, notes: Iterable[Undelivered]) -> "Shard":
        """The shard with these notes of undelivered series; the folder's notes are rewritten where that is allowed."""
        shard = replace(self, undelivered=tuple(notes))
        with suppress(OSError):  # another user's cache, read-only
            write_notes(self.folder, shard.undelivered)
        return shard

    @property
    def series(self) -> pd.DataFrame:
        """One row for each of its series, built or rejected; see `SERIES_COLUMNS`."""
        return pd.read_parquet(self.folder / "series.parquet")

    def figures(self, prefix: str | None = None) -> dict[str, np.ndarray]:
        """Arrays for the report of a build: all, or those whose names begin with `prefix`."""
        return _read_figures(self.folder, prefix or "")


@dataclass(frozen=True)
class SliceDataset:
    """A folder with `dataset.json`, `slices.parquet`, `series.parquet` and `shards/NAME/{images,masks}.safetensors`.

    `labels.safetensors` repeats the classes and splits of the table as codes: training reads them without pandas.
    """

    folder: Path

    @cached_property
    def meta(self) -> SliceMeta:
        """Size, window, view, classes and the cohort's hash."""
        fields = self._manifest["meta"]
        window = fields["window_hu"] and tuple(fields["window_hu"])
        return SliceMeta(**fields | {"window_hu": window, "classes": tuple(fields["classes"])})

    @cached_property
    def images(self) -> MappedSlices:
        """uint8 slices, N×H×W, memory-mapped read-only."""
        return self._mapped("images")

    @cached_property
    def masks(self) -> MappedSlices | None:
        """uint8 masks of the lungs (0 or 1), N×H×W, where the dataset was built with them."""
        return self._mapped("masks") if self._manifest["masks"] else None

    @cached_property
    def table(self) -> pd.DataFrame:
        """One row a slice, in the order of `images`; see `COLUMNS`."""
        return pd.read_parquet(self.folder / "slices.parquet")

    @cached_property
    def series(self) -> pd.DataFrame:
        """One row for each series of the cohort, built or rejected; see `SERIES_COLUMNS`."""
        return pd.read_parquet(self.folder / "series.parquet")

    @property
    def undelivered(self) -> tuple[Undelivered, ...]:
        """Series that no store gave, with the stores' last answers."""
        return read_notes(self.folder)

    @cached_property
    def labels(self) -> np.ndarray:
        """int64 class codes, N: the index in `meta.classes`."""
        codes = {name: code for code, name in enumerate(self.meta.classes)}
        return self.table["label"].map(codes).to_numpy(np.int64)

    @cached_property
    def figures(self) -> dict[str, np.ndarray]:
        """Arrays for the report of the build, as `slicing.shards` collects them."""
        return _read_figures(self.folder)

    def rows(self, *splits: str) -> np.ndarray:
        """Indices of the slices of these splits, ascending."""
        return np.flatnonzero(self.table["split"].isin(splits).to_numpy())

    @property
    def sha256(self) -> str:
        """Hash of pixels, tables and metadata, from the hashes of the shards: the key of all that is made from it."""
        return _sha256(self.meta, self._manifest["shards"])

    @property
    def rejected(self) -> pd.DataFrame:
        """The rows of `series` that gave no slices."""
        return self.series[self.series["state"] == "rejected"]

    @cached_property
    def _manifest(self) -> dict[str, Any]:
        path = self.folder / "dataset.json"
        try:
            manifest: dict[str, Any] = json.loads(path.read_text())
            return manifest
        except (OSError, ValueError) as error:
            raise LungsynthError(f"{self.folder} is no slice dataset: cannot read dataset.json ({error})") from None

    def _mapped(self, what: str) -> MappedSlices:
        return map_shards(self.folder, self._manifest, what)

    def __reduce__(self) -> tuple[Any, ...]:
        return SliceDataset, (self.folder,)  # maps its own files wherever it is unpickled

    @classmethod
    def write(
        cls,
        folder: Path,
        images: np.ndarray,
        table: pd.DataFrame,
        *,
        meta: SliceMeta,
        masks: np.ndarray | None = None,
        series: pd.DataFrame | None = None,
    ) -> "SliceDataset":
        """Write a dataset of one shard into `folder`, which must be new."""
        with tempfile.TemporaryDirectory() as scratch:
            shard = write_shard(Path(scratch) / "only", images, table, masks=masks, series=series)
            return assemble(folder, [shard], meta, masks=masks is not None)


def write_shard(
    folder: Path,
    images: np.ndarray,
    table: pd.DataFrame,
    *,
    masks: np.ndarray | None = None,
    series: pd.DataFrame | None = None,
    figures: Mapping[str, np.ndarray] | None = None,
    undelivered: Sequence[Undelivered] = (),
) -> Shard:
    """Write slices (uint8, N×H×W), their masks and tables into the new folder `folder`, as a whole.

    If another process has written the shard meanwhile, that one is returned. `figures` are arrays for the report of a
    build; the hash leaves them out.
    """
    series = pd.DataFrame(columns=list(SERIES_COLUMNS)) if series is None else series
    table = table[list(COLUMNS)].astype(COLUMNS)
    series = series[list(SERIES_COLUMNS)].astype(SERIES_COLUMNS)
    arrays = [array_sha256(array) for array in (images, masks) if array is not None]
    # The hash leaves out what a store answered: it must not depend on the wording of an error.
    hashed = series.assign(detail=series["detail"].mask(series["reason"] == Reason.NOT_FETCHED, ""))
    sha256 = combine([*arrays, table_sha256(table), table_sha256(hashed)])
    try:
        with whole_folder(folder) as part:
            write_slices(part / "images.safetensors", images)
            if masks is not None:
                write_slices(part / "masks.safetensors", masks)
            table.to_parquet(part / "slices.parquet", index=False)
            series.to_parquet(part / "series.parquet", index=False)
            _write_figures(part, figures or {})
            write_notes(part, undelivered)
            shard = {"rows": len(images), "sha256": sha256}
            (part / "shard.json").write_text(json.dumps(shard))
    except OSError:
        if (there := Shard.open(folder)) is None:
            raise
        return there
    return Shard(folder, len(images), sha256, tuple(undelivered))


def assemble(
    folder: Path,
    shards: Sequence[Shard],
    meta: SliceMeta,
    *,
    masks: bool = False,
    figures: Mapping[str, np.ndarray] | None = None,
    root: str | None = None,
) -> SliceDataset:
    """Make one dataset of several shards, with `masks` or without, by hard links where the file system allows them.

    Where the shards lie at the URL `root`, the dataset is their list and tables; the slices are copied when needed.

    Raises:
        LungsynthError: `folder` is there already.
    """
    if folder.exists():
        raise LungsynthError(f"{folder} is there already: name a new folder for the slices, or remove this one")
    with whole_folder(folder) as part:
        for shard in () if root else shards:
            (part / "shards" / shard.folder.name).mkdir(parents=True)
            for file in shard.folder.glob("*.safetensors"):
                link_or_copy(file, part / "shards" / shard.folder.name / file.name)
        for name in ("slices", "series"):
            tables = [pd.read_parquet(shard.folder / f"{name}.parquet") for shard in shards]
            pd.concat(tables, ignore_index=True).to_parquet(part / f"{name}.parquet", index=False)
        listed = [{"name": shard.folder.name, "rows": shard.rows, "sha256": shard.sha256} for shard in shards]
        manifest = {"sha256": _sha256(meta, listed), "meta": asdict(meta), "masks": masks, "shards": listed}
        manifest |= {"root": root} if root else {}
        _write_codes(part, meta)
        _write_figures(part, figures or {})
        write_notes(part, [one for shard in shards for one in shard.undelivered])
        (part / "dataset.json").write_text(json.dumps(manifest, indent=1))
    return SliceDataset(folder)


def _sha256(meta: SliceMeta, shards: Sequence[Mapping[str, Any]]) -> str:
    return combine([repr(meta), *(shard["sha256"] for shard in shards)])


def _write_codes(folder: Path, meta: SliceMeta) -> None:
    """Write class codes int64 N and split codes uint8 N of the table in `folder`: places in `classes` and `SPLITS`."""
    table = pd.read_parquet(folder / "slices.parquet", columns=["label", "split"])
    labels = pd.Index(meta.classes).get_indexer(pd.Index(table["label"])).astype(np.int64)
    splits = pd.Index(SPLITS).get_indexer(pd.Index(table["split"])).astype(np.uint8)
    save_file({"labels": labels, "splits": splits}, folder / "labels.safetensors")


def _write_figures(folder: Path, figures: Mapping[str, np.ndarray]) -> None:
    # As numpy's savez_compressed, but three times as fast: noise is no smaller at higher compression levels.
    with zipfile.ZipFile(folder / "pictures.npz", "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        for name, array in figures.items():
            with archive.open(f"{name}.npy", "w", force_zip64=True) as file:
                np.lib.format.write_array(file, np.asarray(array), allow_pickle=False)


def _read_figures(folder: Path, prefix: str = "") -> dict[str, np.ndarray]:
    """The arrays whose names begin with `prefix`; the others stay compressed on disk."""
    with np.load(folder / "pictures.npz") as arrays:
        return {name: arrays[name] for name in arrays if name.startswith(prefix)}


def link_or_copy(source: str | Path, target: str | Path) -> None:
    """A second name for the file; a copy where the target lies on another disk."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)
