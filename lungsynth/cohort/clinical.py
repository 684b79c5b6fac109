"""IDC's clinical tables as Parquet: its public export on S3, fetched once, or a local folder."""

import json
import logging
import shutil
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path

import pandas as pd
import pyarrow as pa
from pyarrow import fs
from pyarrow.dataset import dataset
from pyarrow.fs import FileInfo, S3FileSystem
from pyarrow.parquet import read_metadata
from pydantic import Field, field_validator

from lungsynth.config import Config
from lungsynth.errors import LungsynthError, one_line
from lungsynth.files import whole_folder
from lungsynth.locks import alone

log = logging.getLogger(__name__)
EXPORT = "idc-open-metadata/bigquery_export"
MISSING = ".M"
"""What stands for a value that is missing."""
SOURCE = "source.json"


class ClinicalTables(Config):
    """Where the Parquet files of the clinical tables lie: IDC's public export, unless `folder` is given."""

    folder: Path | None = Field(None, description="folder that holds TABLE.parquet or TABLE/*.parquet")
    version: int | None = Field(None, ge=11, description="data version of IDC; that of the packaged index if not given")
    endpoint: str | None = Field(None, description="URL of another S3 server with the same bucket; AWS if not given")
    cache: Path = Field(Path("data/clinical"), description="folder that keeps what was fetched, by version")

    @field_validator("endpoint")
    @classmethod
    def _is_url(cls, value: str | None) -> str | None:
        if value is not None and not value.startswith(("http://", "https://")):
            raise ValueError("give the endpoint with its scheme, such as https://s3.example.org")
        return value


def read_clinical(table: str, columns: Sequence[str], tables: ClinicalTables) -> pd.DataFrame:
    """These columns of a clinical table, all as text; the export is fetched where the cache has no copy.

    Raises:
        LungsynthError: the table or a column is missing, a file is no Parquet, or the server gives no answer.
    """
    files = _local(table, tables.folder) if tables.folder is not None else _cached(table, tables)
    try:
        data = dataset(files, format="parquet")
        require_columns(table, columns, data.schema.names, where=str(files[0].parent))
        return as_text(data.to_table(columns=list(columns)))
    except (pa.ArrowException, OSError) as error:
        raise LungsynthError(f"cannot read the clinical table {files[0]}: {one_line(error)}; fetch it anew") from None


def require_columns(table: str, columns: Sequence[str], present: Sequence[str], *, where: str) -> None:
    """Raise an error that names the columns which the clinical table lacks, if any."""
    missing = [name for name in columns if name not in present]
    if missing:
        raise LungsynthError(
            f"the clinical table {table} in {where} lacks the column(s) {', '.join(missing)}: give another version"
        )


def as_text(table: pa.Table) -> pd.DataFrame:
    """All columns as text, stripped: IDC holds numbers as text beside `.M` and `.N`, and a mirror may not."""
    text = table.cast(pa.schema([(name, pa.string()) for name in table.column_names]))
    frame = text.to_pandas(types_mapper={pa.string(): pd.StringDtype()}.get)
    result: pd.DataFrame = frame.apply(lambda column: column.str.strip())
    return result


def number(text: pd.Series) -> pd.Series:
    """Whole numbers of a clinical column; `.M`, `.N` and all other texts become missing."""
    values = pd.to_numeric(text.where(text.str.fullmatch(r"-?\d+(\.0*)?").fillna(False)))
    return values.astype("Int64")


def _local(table: str, folder: Path) -> list[Path]:
    single = folder / f"{table}.parquet"
    files = [single] if single.is_file() else sorted((folder / table).glob("*.parquet"))
    if not files:
        raise LungsynthError(
            f"{folder} holds no clinical table {table}: put {table}.parquet or {table}/*.parquet there"
        )
    return files


def _cached(table: str, tables: ClinicalTables) -> list[Path]:
    version = tables.version or _packaged_version()
    folder = tables.cache / f"idc_v{version}_clinical" / table
    key = f"{EXPORT}/idc_v{version}_clinical/{table}"
    if not folder.is_dir() or _has_changed(key, folder, tables.endpoint):
        before = _noted(folder)
        with alone(folder.with_name(f".{table}.lock"), folder, "set labels.clinical.tables.cache to another folder"):
            if not folder.is_dir() or _noted(folder) == before:  # else another run has just fetched it
                _fetch(key, folder, tables.endpoint)
    return _local(table, folder.parent)


def _noted(folder: Path) -> dict[str, int] | None:
    """Names and sizes of the files from which the copy was made, where known."""
    path = folder / SOURCE
    return json.loads(path.read_text()) if path.exists() else None


def _has_changed(key: str, folder: Path, endpoint: str | None) -> bool:
    """Whether a mirror's files differ from those in the cache; IDC's own versions never change.

    If the mirror does not answer, the answer is no.
    """
    if endpoint is None:
        return False
    try:
        listed = {file.base_name: file.size for file in _listed(_bucket(endpoint, attempts=1), key)}
    except (pa.ArrowException, OSError) as error:
        log.warning("%s could not be asked for s3://%s again (%s): the copy stays", endpoint, key, one_line(error))
        return False
    return bool(listed) and listed != _noted(folder)


def _listed(bucket: S3FileSystem, key: str) -> list[FileInfo]:
    files = bucket.get_file_info(fs.FileSelector(key, allow_not_found=True))
    return [file for file in files if file.base_name.endswith(".parquet")]


def _packaged_version() -> int:
    """IDC's data version is the major version of the package that ships its index."""
    return int(version("idc-index-data").partition(".")[0])


def _fetch(key: str, folder: Path, endpoint: str | None) -> None:
    """Copy the Parquet files under `key` into `folder`, which appears when all of them are whole."""
    try:
        bucket = _bucket(endpoint)
        files = _listed(bucket, key)
        if not files:
            raise LungsynthError(f"there is no s3://{key}/*.parquet: name another `version` of IDC, or a `folder`")
        with whole_folder(folder) as part:
            for index, file in enumerate(files):  # by number: names from elsewhere never become paths
                _copy(bucket, file, part / f"{index:06d}.parquet")
            (part / SOURCE).write_text(json.dumps({file.base_name: file.size for file in files}))
            if folder.is_dir():
                shutil.rmtree(folder)
    except (pa.ArrowException, OSError) as error:
        raise LungsynthError(
            f"cannot fetch s3://{key}/: {one_line(error)}; try again, or name a copy in labels.clinical.tables.folder"
        ) from None


def _bucket(endpoint: str | None, attempts: int = 4) -> S3FileSystem:
    scheme, _, host = (endpoint or "https://").partition("://")
    return fs.S3FileSystem(
        anonymous=True,
        region="us-east-1",
        scheme=scheme,
        endpoint_override=host.rstrip("/") or None,
        connect_timeout=10,
        request_timeout=60,
        retry_strategy=fs.AwsStandardS3RetryStrategy(max_attempts=attempts),
    )


def _copy(bucket: S3FileSystem, file: FileInfo, target: Path) -> None:
    with bucket.open_input_stream(file.path) as source, target.open("wb") as copy:
        shutil.copyfileobj(source, copy, 1 << 20)
    if target.stat().st_size != file.size:
        raise pa.ArrowInvalid(f"{file.base_name} came with {target.stat().st_size} of {file.size} bytes")
    read_metadata(target)  # an error page or a torn file is no Parquet
