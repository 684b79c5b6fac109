"""Sources of a cohort's rows: the index that `idc-index-data` ships, or IDC's public tables in BigQuery.

A run's SQL is in a file. Over the packaged index it is DuckDB's dialect and sees two views: `index`, as it is
packaged, and `series`, the same rows under the names of `SERIES_COLUMNS`. Over BigQuery, `{dataset}` stands for the
configured dataset. Either way it returns one row a series, CT and segmentations alike, with all of `SERIES_COLUMNS`.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

import duckdb
import pandas as pd
import pyarrow as pa

from lungsynth.cohort.clinical import ClinicalTables, read_clinical
from lungsynth.cohort.identity import normalised_column, twins_of
from lungsynth.errors import LungsynthError

SERIES_COLUMNS = {
    "collection": "string",
    "analysis_result": "string",  # missing for original images
    "patient": "string",  # PatientID
    "study_uid": "string",
    "study_date": "string",  # YYYY-MM-DD
    "series_uid": "string",
    "series_number": "string",
    "series_description": "string",
    "modality": "string",
    "manufacturer": "string",
    "sex": "string",  # M or F, else missing; a query may return any PatientSex
    "age": "Int64",  # whole years, else missing; a query may return years or PatientAge, such as 061Y
    "license": "string",
    "doi": "string",
    "instances": "Int64",
    "bytes": "Int64",
    "url": "string",  # s3://bucket/crdc_series_uuid/
    "transfer_syntax_uid": "string",  # several are joined by commas
}
"""What `Source.series` returns, in this order, whatever the source: missing values are NA, never empty text."""

REQUIRED = ("collection", "patient", "study_uid", "series_uid", "modality", "instances", "url")
UID = r"[0-9]+(\.[0-9]+)*"  # series UIDs come to name folders, so they are checked here (PS3.5 section 9.1)
URL = r"s3://[a-z0-9][a-z0-9.-]*/[0-9a-f-]+/"
AGE = r"(\d{1,3})([YMWD]?)"  # PS3.5 section 6.2, value representation AS; years where no unit is given
UNITS_PER_YEAR = {"": 1, "Y": 1, "M": 12, "W": 52, "D": 365}

# IDC's megabyte is decimal, so the bytes come out exact.
INDEX_AS_SERIES = """
    CREATE VIEW series AS SELECT
        collection_id AS collection, analysis_result_id AS analysis_result, PatientID AS patient,
        StudyInstanceUID AS study_uid, StudyDate AS study_date, SeriesInstanceUID AS series_uid,
        SeriesNumber AS series_number, SeriesDescription AS series_description, Modality AS modality,
        Manufacturer AS manufacturer, PatientSex AS sex, PatientAge AS age, license_short_name AS license,
        source_DOI AS doi, instanceCount AS instances, round(series_size_MB * 1e6)::BIGINT AS bytes,
        rtrim(series_aws_url, '*') AS url, TransferSyntaxUID AS transfer_syntax_uid
    FROM index
"""


class Source(Protocol):
    """A source of series and clinical tables; as a context manager it closes its connection."""

    def series(self, sql: str, what: str) -> pd.DataFrame:
        """The rows of the query `sql`: exactly `SERIES_COLUMNS`, typed, sorted by series_uid.

        `what` names the query in messages, such as «the query configs/cohorts/nlst_index.sql».

        Raises:
            LungsynthError: the SQL is wrong, a column is missing or of the wrong kind, a series comes twice, or the
                source gives no answer.
        """

    def clinical(self, table: str, columns: Sequence[str]) -> pd.DataFrame:
        """These columns of one of IDC's clinical tables, such as `nlst_prsn`, all as text.

        Raises:
            LungsynthError: there is no such table or column, or no answer.
        """

    def __enter__(self) -> "Source": ...

    def __exit__(self, *error: object) -> None: ...


class IndexSource:
    """The packaged index in DuckDB, and the clinical tables from Parquet.

    `idc_index.IDCClient` holds the same index in pandas: a query takes it 18 s and 3.1 GB, and this 0.4 s and 0.2 GB.
    `index` is another file of the same columns, such as a later release of `idc-index-data`.
    """

    def __init__(self, tables: ClinicalTables | None = None, index: Path | None = None) -> None:
        if index is None:
            from idc_index_data import IDC_INDEX_PARQUET_FILEPATH  # its import reads a dozen schema files

            index = IDC_INDEX_PARQUET_FILEPATH
        self._tables = tables or ClinicalTables()
        self._connection = duckdb.connect()
        self._connection.read_parquet(str(index)).create_view("index")
        self._connection.execute(INDEX_AS_SERIES)

    def series(self, sql: str, what: str) -> pd.DataFrame:
        """See `Source.series`."""
        try:
            relation = self._connection.sql(sql)
            if relation is None:
                raise LungsynthError(f"{what} returns no rows: end it with a SELECT")
            return typed_series(relation.to_arrow_table(), what)
        except duckdb.Error as error:
            reason = " ".join(str(error).partition("\nLINE ")[0].split())
            raise LungsynthError(f"{what} is no valid SQL over the IDC index: {reason}") from None

    def clinical(self, table: str, columns: Sequence[str]) -> pd.DataFrame:
        """See `Source.clinical`."""
        return read_clinical(table, columns, self._tables)

    def __enter__(self) -> "IndexSource":
        return self

    def __exit__(self, *error: object) -> None:
        self._connection.close()


def typed_series(table: "pa.Table", what: str) -> pd.DataFrame:
    """The Arrow table of a query as `Source.series` returns it.

    Raises:
        LungsynthError: a column is missing or of the wrong kind, a required value is missing, a UID or URL is none, or
            a series comes twice.
    """
    missing = [name for name in SERIES_COLUMNS if name not in table.column_names]
    if missing:
        raise LungsynthError(f"{what} lacks the column(s) {', '.join(missing)}: select them under these names")
    columns = {name: _text(table[name], name, what) for name in SERIES_COLUMNS}
    for name in ("collection", "patient", "manufacturer"):
        columns[name] = normalised_column(columns[name])
    columns["sex"] = columns["sex"].where(columns["sex"].isin(["M", "F"]))
    columns["age"] = _years(columns["age"])
    for name in ("instances", "bytes"):
        columns[name] = _whole(columns[name], name, what)
    series = pd.DataFrame(columns)
    _check(series, what)
    return series.sort_values("series_uid", ignore_index=True)


def _text(column: pa.ChunkedArray, name: str, what: str) -> pd.Series:
    try:
        text = column.cast(pa.string()).to_pandas(types_mapper={pa.string(): pd.StringDtype()}.get)
    except pa.ArrowException:
        raise LungsynthError(f"{what} returns the column {name} as {column.type}: return text or a number") from None
    text = text.str.strip()
    result: pd.Series = text.mask(text == "")
    return result


def _years(text: pd.Series) -> pd.Series:
    parts = text.str.extract(f"^{AGE}$")
    return parts[0].astype("Int64") // parts[1].map(UNITS_PER_YEAR).astype("Int64")


def _whole(text: pd.Series, name: str, what: str) -> pd.Series:
    number = pd.to_numeric(text, errors="coerce").astype("Float64")
    strange = text[text.notna() & ~(number % 1 == 0).fillna(False)]
    if len(strange):
        raise LungsynthError(f"{what} returns {strange.iloc[0]!r} as {name}: it must be a whole number")
    return number.astype("Int64")


def _check(series: pd.DataFrame, what: str) -> None:
    for name in REQUIRED:
        if empty := int(series[name].isna().sum()):
            raise LungsynthError(f"{what} returns {empty} row(s) without {name}: leave such rows out")
    for name, pattern in (("series_uid", UID), ("study_uid", UID), ("url", URL)):
        strange = series.loc[~series[name].str.fullmatch(pattern), name]
        if len(strange):
            raise LungsynthError(f"{what} returns {strange.iloc[0][:80]!r} as {name}: it is none")
    alike = [name for group in twins_of(series["patient"].unique()) for name in group]  # in any collections
    patients = series.loc[series["patient"].isin(alike), ["collection", "patient"]].drop_duplicates()
    if twins := twins_of(patients["collection"] + " " + patients["patient"]):
        raise LungsynthError(
            f"{what} returns {len(twins)} patient(s) by names that differ in case or leading zeros alone, such as "
            f"«{twins[0][0]}» and «{twins[0][1]}»: spell each in one way in the SQL"
        )
    if len(twice := series.loc[series["series_uid"].duplicated(), "series_uid"]):
        raise LungsynthError(f"{what} returns the series {twice.iloc[0]} more than once: return one row a series")
