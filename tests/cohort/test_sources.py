"""The packaged index and BigQuery as sources: the same rows give the same table, and every error is one line."""

import os
import re
from collections.abc import Iterator
from pathlib import Path

import duckdb
import pandas as pd
import pyarrow as pa
import pytest
from bigquery_server import ApiError, BigQueryServer, serve
from invented_nlst import cancer, nodule, person
from pydantic import ValidationError

from lungsynth.cohort.bigquery import BigQueryConfig, BigQuerySource
from lungsynth.cohort.clinical import ClinicalTables
from lungsynth.cohort.idc import IdcCohortConfig, select_idc
from lungsynth.cohort.sources import SERIES_COLUMNS, IndexSource, typed_series
from lungsynth.cohort.splits import SplitConfig
from lungsynth.errors import LungsynthError

# google.api_core announces which Pythons it will stop supporting, years ahead.
pytestmark = pytest.mark.filterwarnings("ignore:You are using a Python version:FutureWarning")

QUERIES = Path(__file__).parents[2] / "configs" / "cohorts"
INDEX_SQL = (QUERIES / "nlst_index.sql").read_text()
BIGQUERY_SQL = (QUERIES / "nlst_bigquery.sql").read_text()
DATASET = "bigquery-public-data.idc_current"

# Each series of the index as so many instances of IDC's table `dicom_all`, whose columns have BigQuery's types. The
# transfer syntaxes and the bytes of a series are dealt to its instances.
DICOM_ALL = """
    SELECT collection_id, analysis_result_id, PatientID, StudyInstanceUID, StudyDate::DATE AS StudyDate,
        SeriesInstanceUID, SeriesInstanceUID || '.' || instance AS SOPInstanceUID, SeriesNumber, SeriesDescription,
        Modality, Manufacturer, PatientSex, PatientAge, license_short_name, source_DOI,
        (round(series_size_MB * 1e6)::BIGINT + instance) // instanceCount AS instance_size,
        rtrim(series_aws_url, '*') AS series_aws_url,
        list_extract(str_split(TransferSyntaxUID, ','),
                     1 + (instance % len(str_split(TransferSyntaxUID, ',')))) AS TransferSyntaxUID
    FROM series_of_index, unnest(range(instanceCount)) AS instances (instance)
"""


@pytest.fixture(scope="module")
def index(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Forty NLST patients of the packaged index, some with lesions, some whose series mix transfer syntaxes."""
    from idc_index_data import IDC_INDEX_PARQUET_FILEPATH

    path = tmp_path_factory.mktemp("index") / "index.parquet"
    with duckdb.connect() as connection:
        connection.read_parquet(str(IDC_INDEX_PARQUET_FILEPATH)).create_view("index")
        connection.sql("""
            WITH chosen AS (
                (SELECT DISTINCT PatientID FROM index WHERE analysis_result_id = 'nlstseg' ORDER BY 1 LIMIT 20)
                UNION (SELECT DISTINCT PatientID FROM index WHERE collection_id = 'nlst' ORDER BY 1 LIMIT 15)
                UNION (SELECT DISTINCT PatientID FROM index WHERE collection_id = 'nlst' AND Modality = 'CT'
                       AND TransferSyntaxUID LIKE '%,%' ORDER BY 1 LIMIT 5)
            )
            SELECT * FROM index WHERE PatientID IN (SELECT PatientID FROM chosen)
        """).write_parquet(str(path))
    return path


@pytest.fixture(scope="module")
def clinical(index: Path) -> Path:
    """A folder with invented clinical tables for those patients: two in three are free of cancer."""
    folder = index.parent
    with duckdb.connect() as connection:
        patients = connection.sql(f"SELECT DISTINCT PatientID FROM '{index}' ORDER BY 1").fetchall()
        segmented = f"SELECT DISTINCT PatientID FROM '{index}' WHERE analysis_result_id = 'nlstseg'"
        cases = {pid for (pid,) in connection.sql(segmented).fetchall()} | {patients[1][0], patients[-1][0]}
    people = [person(pid, "1", "100") if pid in cases else person(pid, "0") for (pid,) in patients]
    tables = {
        "nlst_prsn": people,
        "nlst_canc": [cancer(pid, "100") for pid in sorted(cases)],
        "nlst_ctab": [nodule(pid, "40") for pid in sorted(cases)],
    }
    for name, rows in tables.items():
        pd.DataFrame(rows, dtype="string").to_parquet(folder / f"{name}.parquet")
    return folder


@pytest.fixture(scope="module")
def server(index: Path, clinical: Path) -> Iterator[BigQueryServer]:
    with duckdb.connect() as database:
        database.execute("ATTACH ':memory:' AS \"bigquery-public-data\"")
        for name in ("idc_current", "idc_current_clinical"):
            database.execute(f'CREATE SCHEMA "bigquery-public-data".{name}')
        database.read_parquet(str(index)).create_view("series_of_index")
        database.execute(f'CREATE TABLE "bigquery-public-data".idc_current.dicom_all AS {DICOM_ALL}')
        for name in ("nlst_prsn", "nlst_canc", "nlst_ctab"):
            table = f'"bigquery-public-data".idc_current_clinical.{name}'
            database.execute(f"CREATE TABLE {table} AS SELECT * FROM '{clinical}/{name}.parquet'")
        with serve(database) as peer:
            yield peer


@pytest.fixture
def source(server: BigQueryServer) -> Iterator[BigQuerySource]:
    server.requests.clear()
    server.polls = 0
    with BigQuerySource(config(server)) as source:
        yield source


def config(server: BigQueryServer, **settings: object) -> BigQueryConfig:
    return BigQueryConfig(project="my-project", api_endpoint=server.url, **({"timeout_s": 20} | settings))


def test_both_sources_give_the_same_table(source, index):
    with IndexSource(index=index) as embedded:
        expected = embedded.series(INDEX_SQL, "the index")
    assert len(expected) > 400
    assert set(expected["modality"]) == {"CT", "SEG"}
    assert expected["transfer_syntax_uid"].str.contains(",").any()
    assert expected.dtypes.astype(str).to_dict() == SERIES_COLUMNS
    pd.testing.assert_frame_equal(source.series(BIGQUERY_SQL, "BigQuery"), expected)


def test_no_rows_are_a_table_too(source, index):
    with IndexSource(index=index) as embedded:
        expected = embedded.series(f"{INDEX_SQL} AND patient = 'nobody'", "the index")
    assert len(expected) == 0
    assert expected.dtypes.astype(str).to_dict() == SERIES_COLUMNS
    empty = BIGQUERY_SQL.replace("'nlst'", "'nobody'")
    pd.testing.assert_frame_equal(source.series(empty, "BigQuery"), expected)


def test_results_come_in_pages(server, source):
    whole = source.series(BIGQUERY_SQL, "one page")
    with BigQuerySource(config(server, page_rows=97)) as paged:
        server.requests.clear()
        pd.testing.assert_frame_equal(paged.series(BIGQUERY_SQL, "many pages"), whole)
    pages = [path for method, path in server.requests if path.startswith("queries")]
    assert len(pages) >= len(whole) / 97


def test_a_slow_query_is_waited_for(server, source):
    server.polls = 2
    assert len(source.series(BIGQUERY_SQL, "slow")) > 400


def test_another_server_is_asked_without_credentials(server, source, monkeypatch, tmp_path):
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(tmp_path / "must-not-be-read.json"))
    with BigQuerySource(config(server)) as anonymous:
        anonymous.clinical("nlst_prsn", ["age"])
    assert server.authorizations == {None}


def test_both_sources_give_the_same_clinical_tables(source, clinical):
    columns = ["dicom_patient_id", "candx_days", "can_scr"]
    with IndexSource(ClinicalTables(folder=clinical)) as embedded:
        expected = embedded.clinical("nlst_prsn", columns)
    assert list(expected.columns) == columns
    assert set(expected["candx_days"]) == {".N", "100"}
    pd.testing.assert_frame_equal(source.clinical("nlst_prsn", columns), expected)


def test_both_sources_give_the_same_cohort(server, index, clinical, tmp_path):
    same_rows = tmp_path / "same_rows.sql"
    same_rows.write_text(f"{INDEX_SQL} AND patient IN (SELECT PatientID FROM '{index}')")
    labels = {"lesion_seg": "nlstseg", "clinical": {"tables": {"folder": clinical}}}
    embedded = select_idc(IdcCohortConfig(query=same_rows, labels=labels), SplitConfig())
    labels = {"lesion_seg": "nlstseg", "clinical": {}}
    from_bigquery = select_idc(
        IdcCohortConfig(bigquery=config(server, page_rows=97), query=QUERIES / "nlst_bigquery.sql", labels=labels),
        SplitConfig(),
    )
    found = set(embedded.images[["label", "evidence"]].itertuples(index=False, name=None))
    assert found == {("cancer", "lesion_seg"), ("cancer", "clinical"), ("non-cancer", "clinical")}
    assert set(embedded.series["role"]) == {"image", "lesion"}
    for name in ("series", "slice_labels", "funnel"):
        pd.testing.assert_frame_equal(getattr(from_bigquery, name), getattr(embedded, name))
    assert from_bigquery.sha256 == embedded.sha256


def test_missing_clinical_columns_and_tables_are_named(source):
    with pytest.raises(LungsynthError, match=r"nlst_prsn in .*_clinical lacks the column\(s\) race, cigsmok:"):
        source.clinical("nlst_prsn", ["age", "race", "cigsmok"])
    with pytest.raises(LungsynthError, match=r"clinical table .*nlst_screen: .*Not found"):
        source.clinical("nlst_screen", ["study_yr"])


@pytest.mark.parametrize(
    ("sql", "message"),
    [
        ("SELECT FROM WHERE", r"the query: .*Syntax error.*; correct the SQL"),
        (f"SELECT colection_id FROM `{DATASET}.dicom_all`", r"the query: .*colection_id.*; correct the SQL"),
        ("SELECT 1 FROM `{dataset}.dicom_al`", r"the query: .*Not found: .*; check the names"),
        ("SELECT 1 AS series_uid", r"the query lacks the column\(s\) collection, analysis_result, patient"),
    ],
)
def test_wrong_sql_is_an_error_in_one_line(source, sql, message):
    with pytest.raises(LungsynthError, match=message) as error:
        source.series(sql, "the query")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("status", "reason", "advice"),
    [
        (403, "accessDenied", "needs the role BigQuery Job User"),
        (403, "quotaExceeded", "raise the project's quota"),
        (403, "billingNotEnabled", "enable billing"),
        (404, "notFound", "check the names"),
        (501, "notImplemented", "try again later"),
    ],
)
def test_refusals_say_what_to_do(server, source, status, reason, advice):
    server.faults.append(ApiError(status, reason, "Refused:\n for the test"))
    with pytest.raises(LungsynthError, match=rf"the query: .*Refused: for the test.*; .*{advice}") as error:
        source.series(BIGQUERY_SQL, "the query")
    assert "\n" not in str(error.value)


def test_passing_faults_are_retried(server, source):
    server.faults += [ApiError(403, "rateLimitExceeded", "slow down"), ApiError(503, "backendError", "a hiccup")]
    assert len(source.series(BIGQUERY_SQL, "the query")) > 400
    assert server.requests.count(("POST", "queries")) == 3


def test_a_fault_between_two_pages_loses_no_row(server, source):
    whole = source.series(BIGQUERY_SQL, "one page")
    server.faults += [None, None, None, ApiError(503, "backendError", "a hiccup")]
    with BigQuerySource(config(server, page_rows=97)) as paged:
        pd.testing.assert_frame_equal(paged.series(BIGQUERY_SQL, "many pages"), whole)
    assert not server.faults


def test_a_query_that_fails_while_it_runs_is_an_error(server, source):
    server.polls = 1
    with pytest.raises(LungsynthError, match=r"the query: .*Could not convert string.*; correct the SQL"):
        source.series("SELECT CAST(Modality AS INT64) AS series_uid FROM `{dataset}.dicom_all`", "the query")


def test_a_query_that_takes_too_long_is_an_error(server):
    server.polls = 10**9
    with (
        BigQuerySource(config(server, timeout_s=1)) as source,
        pytest.raises(LungsynthError, match=r"the query: no answer in time.*; try again, or raise timeout_s") as error,
    ):
        source.series(BIGQUERY_SQL, "the query")
    server.polls = 0
    assert "\n" not in str(error.value)


def test_lasting_faults_end_with_an_error(server):
    server.faults += [ApiError(503, "backendError", "down for the day")] * 50
    with (
        BigQuerySource(config(server, timeout_s=1)) as source,
        pytest.raises(LungsynthError, match=r"the query: .*down for the day; try again") as error,
    ):
        source.series(BIGQUERY_SQL, "the query")
    server.faults.clear()
    assert "\n" not in str(error.value)


def test_an_unreachable_server_is_an_error_in_one_line():
    config = BigQueryConfig(project="my-project", api_endpoint="http://127.0.0.1:9", timeout_s=1)
    with (
        BigQuerySource(config) as source,
        pytest.raises(LungsynthError, match=r"the query: .*refused.*; ") as error,
    ):
        source.series(BIGQUERY_SQL, "the query")
    assert "\n" not in str(error.value)


def test_no_credentials_say_how_to_get_them(monkeypatch, tmp_path):
    for name in [name for name in os.environ if name.startswith(("GOOGLE_", "CLOUDSDK_"))]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("NO_GCE_CHECK", "true")
    monkeypatch.setenv("CLOUDSDK_CONFIG", str(tmp_path))
    with pytest.raises(LungsynthError, match="gcloud auth application-default login"):
        BigQuerySource(BigQueryConfig(project="my-project"))


@pytest.mark.parametrize(
    "settings",
    [
        {"project": "my-project`"},
        {"project": "my-project", "dataset": "no_project"},
        {"project": "my-project", "dataset": "a-project.d` WHERE 1=1 --"},
        {"project": "my-project", "clinical_dataset": "a-project.d.table"},
        {"project": "my-project", "api_endpoint": "localhost:9050"},
    ],
)
def test_names_that_could_leave_their_quotes_are_refused(settings):
    with pytest.raises(ValidationError, match=re.escape(list(settings)[-1])):
        BigQueryConfig(**settings)


def rows(**changes: list[object]) -> pa.Table:
    columns = {name: ["text", "text"] for name in SERIES_COLUMNS}
    columns |= {"series_uid": ["1.2.4", "1.2.3"], "study_uid": ["1.2", "1.2"]}
    columns |= {"instances": [120, 2], "bytes": [10, None], "url": ["s3://a-bucket/0aa-1/", "s3://a-bucket/0bb-2/"]}
    return pa.table(columns | changes)


def test_patients_of_two_collections_are_no_twins():
    assert len(typed_series(rows(patient=["7", "007"], collection=["nlst", "lidc_idri"]), "the query")) == 2


def test_ages_sexes_and_missing_values_are_read():
    table = typed_series(rows(age=["061Y", "030M"], sex=["M", "O"], doi=["", " 10.1/2 "]), "the query")
    assert table["series_uid"].tolist() == ["1.2.3", "1.2.4"]
    assert table["age"].tolist() == [2, 61]
    assert table["sex"].isna().tolist() == [True, False]
    assert table["doi"].isna().tolist() == [False, True]
    assert table["doi"][0] == "10.1/2"
    assert table["bytes"].isna().tolist() == [True, False]
    assert typed_series(rows(age=[61, None]), "the query")["age"].isna().tolist() == [True, False]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"patient": ["7", "007"]}, r"returns 1 patient\(s\) by names that differ in case or leading zeros alone"),
        ({"series_uid": ["1.2.3", "1.2.3"]}, r"returns the series 1\.2\.3 more than once"),
        ({"series_uid": ["1.2.3", "../1"]}, r"returns '\.\./1' as series_uid"),
        ({"url": ["s3://a/b/", "file:///etc/"]}, r"returns 's3://a/b/' as url|'file:///etc/' as url"),
        ({"patient": ["a", None]}, r"returns 1 row\(s\) without patient"),
        ({"instances": ["some", "2"]}, r"returns 'some' as instances: it must be a whole number"),
        ({"doi": [["a"], ["b"]]}, r"returns the column doi as list"),
    ],
)
def test_wrong_tables_are_errors(changes, message):
    with pytest.raises(LungsynthError, match=f"the query {message}"):
        typed_series(rows(**changes), "the query")


@pytest.mark.parametrize(
    ("sql", "message"),
    [
        ("SELECT * FROM seris", r"no valid SQL over the IDC index: Catalog Error"),
        ("SELECT * FROM series WHERE patient::INT = 'x'", r"no valid SQL over the IDC index: Conversion Error"),
        ("CREATE TABLE nothing (a INT)", r"returns no rows: end it with a SELECT"),
        ("SELECT * FROM index", r"lacks the column\(s\) collection, analysis_result"),
    ],
)
def test_wrong_sql_over_the_index_is_an_error_in_one_line(index, sql, message):
    with IndexSource(index=index) as source, pytest.raises(LungsynthError, match=f"the query {message}|{message}") as e:
        source.series(sql, "the query")
    assert "\n" not in str(e.value)
