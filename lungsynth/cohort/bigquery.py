"""IDC's public tables in BigQuery as the source of a cohort."""

import concurrent.futures
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pandas as pd
import pyarrow as pa
import requests
from pydantic import Field

from lungsynth.cohort.clinical import ClinicalTables, as_text, read_clinical, require_columns
from lungsynth.cohort.sources import typed_series
from lungsynth.config import Config
from lungsynth.errors import LungsynthError, one_line

if TYPE_CHECKING:
    from google.cloud.bigquery import Client

# Both are put into SQL between backquotes; these patterns allow no backquote.
PROJECT = r"([a-z0-9.-]+:)?[a-z][a-z0-9-]{4,28}[a-z0-9]"
DATASET = rf"^{PROJECT}\.[A-Za-z0-9_]{{1,1024}}$"
PLACEHOLDER = "{dataset}"

ADVICE = {
    "invalidQuery": "correct the SQL",
    "invalid": "correct the SQL",
    "notFound": "check the names of project, dataset and tables",
    "accessDenied": "the account needs the role BigQuery Job User in that project, and read access to the tables",
    "quotaExceeded": "wait, raise the project's quota, or use the packaged index",
    "rateLimitExceeded": "wait and try again, or use the packaged index",
    "billingNotEnabled": "enable billing for the project, or use the packaged index",
}
"""What to do, by the reason that BigQuery gives: https://cloud.google.com/bigquery/docs/error-messages."""


class BigQueryConfig(Config):
    """Which project pays, and which tables it queries."""

    project: str = Field(pattern=f"^{PROJECT}$", description="Google Cloud project that runs and pays for the queries")
    dataset: str = Field("bigquery-public-data.idc_current", pattern=DATASET, description="project.dataset of IDC")
    clinical_dataset: str = Field(
        "bigquery-public-data.idc_current_clinical", pattern=DATASET, description="project.dataset of clinical tables"
    )
    api_endpoint: str | None = Field(
        None, pattern=r"^https?://\S+$", description="another server of this API, which is asked without credentials"
    )
    timeout_s: float = Field(
        600,
        gt=0,
        description="s for one query with its retries, and for its result [chosen here: outlasts a queue of queries]",
    )
    page_rows: int = Field(20_000, ge=1, description="rows in one answer [BigQuery: an answer has at most 20 MB]")


class BigQuerySource:
    """IDC in BigQuery; clinical tables come from there too, unless `tables` names another place."""

    def __init__(self, config: BigQueryConfig, tables: ClinicalTables | None = None) -> None:
        self._config = config
        self._tables = tables
        with _one_line_errors("BigQuery"):
            self._client = _client(config)

    def series(self, sql: str, what: str) -> pd.DataFrame:
        """See `Source.series`."""
        return typed_series(self._query(sql.replace(PLACEHOLDER, self._config.dataset), what), what)

    def clinical(self, table: str, columns: Sequence[str]) -> pd.DataFrame:
        """See `Source.clinical`."""
        if self._tables is not None:
            return read_clinical(table, columns, self._tables)
        name = f"{self._config.clinical_dataset}.{table}"
        what = f"the clinical table {name}"
        from google.cloud.bigquery.retry import DEFAULT_RETRY  # half a second

        with _one_line_errors(what):
            schema = self._client.get_table(name, retry=DEFAULT_RETRY.with_timeout(self._config.timeout_s)).schema
        require_columns(table, columns, [field.name for field in schema], where=self._config.clinical_dataset)
        return as_text(self._query(f"SELECT {', '.join(columns)} FROM `{name}`", what))

    def _query(self, sql: str, what: str) -> pa.Table:
        from google.cloud.bigquery.retry import DEFAULT_JOB_RETRY, DEFAULT_RETRY  # half a second

        timeout = self._config.timeout_s
        with _one_line_errors(what):
            rows = self._client.query_and_wait(
                sql,
                api_timeout=timeout,
                wait_timeout=timeout,
                retry=DEFAULT_RETRY.with_timeout(timeout),
                job_retry=DEFAULT_JOB_RETRY.with_timeout(timeout),
                page_size=self._config.page_rows,
            )
            return rows.to_arrow(create_bqstorage_client=False, timeout=timeout)

    def __enter__(self) -> "BigQuerySource":
        return self

    def __exit__(self, *error: object) -> None:
        self._client.close()


def _client(config: BigQueryConfig) -> "Client":
    from google.auth.credentials import AnonymousCredentials  # half a second
    from google.cloud.bigquery import Client

    if config.api_endpoint is None:
        return Client(project=config.project)
    # Credentials of Google never go to another server.
    return Client(
        project=config.project,
        credentials=AnonymousCredentials(),
        client_options={"api_endpoint": config.api_endpoint},
    )


@contextmanager
def _one_line_errors(what: str) -> Iterator[None]:
    """Turn errors of the client and the network into one line that says what to do."""
    from google.api_core import exceptions as api  # its client takes half a second to import
    from google.auth import exceptions as auth

    try:
        yield
    except auth.DefaultCredentialsError as error:
        raise LungsynthError(
            f"BigQuery needs credentials: {one_line(error)}; run `gcloud auth application-default login` or set "
            "GOOGLE_APPLICATION_CREDENTIALS to a key file, or use the packaged index"
        ) from None
    except auth.GoogleAuthError as error:
        raise LungsynthError(f"Google refuses the credentials: {one_line(error)}; log in anew") from None
    except (TimeoutError, concurrent.futures.TimeoutError, requests.Timeout) as error:
        raise LungsynthError(f"{what}: no answer in time: {one_line(error)}; try again, or raise timeout_s") from None
    except (requests.RequestException, ConnectionError) as error:
        raise LungsynthError(f"{what}: cannot reach BigQuery: {one_line(error)}; check network and endpoint") from None
    except api.RetryError as error:
        last: BaseException = error  # the query's retries wrap those of its requests
        while isinstance(last, api.RetryError) and last.cause is not None:
            last = last.cause
        raise LungsynthError(
            f"{what}: gave up after retries: {one_line(last)}; try again, or raise timeout_s"
        ) from None
    except api.GoogleAPICallError as error:
        reason = error.errors[0].get("reason", "") if error.errors else ""
        raise LungsynthError(f"{what}: {one_line(error)}; {ADVICE.get(reason, 'try again later')}") from None
