"""A local server that speaks as much of BigQuery's REST API as its Python client uses, and answers from DuckDB.

https://cloud.google.com/bigquery/docs/reference/rest: jobs.query, jobs.get, jobs.cancel, jobs.getQueryResults with
pages, tables.get, and errors as BigQuery words them. SQL is translated from BigQuery's dialect by sqlglot.
"""

import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, urlsplit

import duckdb
import sqlglot

ROOT = "/bigquery/v2/projects/"
TYPES = {"VARCHAR": "STRING", "BIGINT": "INTEGER", "HUGEINT": "INTEGER", "INTEGER": "INTEGER"}
TYPES |= {"DOUBLE": "FLOAT", "DATE": "DATE", "BOOLEAN": "BOOLEAN"}


class ApiError(Exception):
    """An answer that is no success: HTTP status, BigQuery's reason, message."""

    def __init__(self, status: int, reason: str, message: str) -> None:
        super().__init__(status, reason, message)

    def body(self) -> dict:
        status, reason, message = self.args
        details = [{"message": message, "domain": "global", "reason": reason}]
        return {"error": {"code": status, "message": message, "errors": details, "status": "ERROR"}}


@dataclass
class BigQueryServer:
    """`url` for clients; `requests` that came, as (method, path below the project).

    `faults` answer the next requests, one each; None lets one through. `polls` is how often a job says that it still
    runs before it has results.
    """

    url: str
    database: duckdb.DuckDBPyConnection
    requests: list[tuple[str, str]] = field(default_factory=list)
    authorizations: set[str | None] = field(default_factory=set)
    faults: list[ApiError | None] = field(default_factory=list)
    polls: int = 0
    jobs: dict[str, dict] = field(default_factory=dict)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def answer(self, method: str, project: str, path: str, query: dict[str, str], body: dict) -> dict:
        """The JSON that answers one request.

        Raises:
            ApiError: a fault was due, the request is wrong, or the API has no such method here.
        """
        self.requests.append((method, path))
        if self.faults and (fault := self.faults.pop(0)) is not None:
            raise fault
        if (method, path) == ("POST", "queries"):
            job = self._start(project, f"job-{len(self.jobs)}", body["query"])
            return self._page(job, {"maxResults": str(body["maxResults"])} if "maxResults" in body else {})
        if match := re.fullmatch(r"(queries|jobs)/(job-\d+)(/cancel)?", path):
            job = self.jobs[match[2]]
            if match[3]:
                return {"kind": "bigquery#jobCancelResponse", "job": self._job(job)}
            return self._page(job, query) if match[1] == "queries" else self._job(job)
        if method == "GET" and (match := re.fullmatch(r"datasets/(\w+)/tables/(\w+)", path)):
            return self._table(project, *match.groups())
        raise ApiError(501, "notImplemented", f"{method} {path}")

    def _start(self, project: str, job_id: str, sql: str) -> dict:
        relation = self._execute(sql)
        reference = {"projectId": project, "jobId": job_id, "location": "US"}
        job = {"reference": reference, "sql": sql, "polls": self.polls, "schema": _schema(relation), "error": None}
        try:
            job["rows"] = [{"f": [{"v": _value(cell)} for cell in row]} for row in relation.fetchall()]
        except duckdb.Error as error:  # what is wrong with the data shows only while the query runs
            job["error"] = ApiError(400, "invalidQuery", str(error))
        self.jobs[job_id] = job
        return job

    def _execute(self, sql: str) -> duckdb.DuckDBPyRelation:
        try:
            (translated,) = sqlglot.transpile(sql, read="bigquery", write="duckdb")
            return self.database.sql(translated)
        except sqlglot.errors.ParseError as error:
            raise ApiError(400, "invalidQuery", f"Syntax error: {error.errors[0]['description']}") from None
        except duckdb.CatalogException as error:
            raise ApiError(404, "notFound", f"Not found: {error}") from None
        except duckdb.Error as error:
            raise ApiError(400, "invalidQuery", str(error)) from None

    def _page(self, job: dict, query: dict[str, str]) -> dict:
        answer = {"kind": "bigquery#queryResponse", "jobReference": job["reference"]}
        if job["polls"]:
            job["polls"] -= 1
            return answer | {"jobComplete": False}
        if job["error"] is not None:
            raise job["error"]
        start, rows = int(query.get("pageToken", "page-0").removeprefix("page-")), job["rows"]
        end = start + int(query.get("maxResults", len(rows)))
        answer |= {"jobComplete": True, "schema": job["schema"], "totalRows": str(len(rows)), "rows": rows[start:end]}
        return answer | ({"pageToken": f"page-{end}"} if end < len(rows) else {})

    def _job(self, job: dict) -> dict:
        reference, status = job["reference"], {"state": "RUNNING" if job["polls"] else "DONE"}
        if job["error"] is not None and not job["polls"]:
            status["errorResult"] = job["error"].body()["error"]["errors"][0]
        destination = {"projectId": reference["projectId"], "datasetId": "_anonymous", "tableId": reference["jobId"]}
        return {
            "kind": "bigquery#job",
            "id": f"{reference['projectId']}:US.{reference['jobId']}",
            "jobReference": reference,
            "status": status,
            "configuration": {"jobType": "QUERY", "query": {"query": job["sql"], "destinationTable": destination}},
            "statistics": {"query": {"statementType": "SELECT"}},
        }

    def _table(self, project: str, dataset: str, table: str) -> dict:
        relation = self._execute(f"SELECT * FROM `{project}.{dataset}.{table}` LIMIT 0")
        reference = {"projectId": project, "datasetId": dataset, "tableId": table}
        return {"kind": "bigquery#table", "tableReference": reference, "type": "VIEW", "schema": _schema(relation)}


def _schema(relation: duckdb.DuckDBPyRelation) -> dict:
    columns = zip(relation.columns, relation.types, strict=True)
    return {"fields": [{"name": name, "type": TYPES[str(kind)], "mode": "NULLABLE"} for name, kind in columns]}


def _value(cell: object) -> str | None:
    return None if cell is None else str(cell)


@contextmanager
def serve(database: duckdb.DuckDBPyConnection) -> Iterator[BigQueryServer]:
    """Serve `database`, whose catalogs are projects and whose schemas are datasets, on loopback."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            self.reply({})

        def do_POST(self) -> None:
            self.reply(json.loads(self.rfile.read(int(self.headers["Content-Length"])) or "{}"))

        def reply(self, body: dict) -> None:
            url = urlsplit(self.path)
            project, _, path = url.path.removeprefix(ROOT).partition("/")
            query = {name: values[0] for name, values in parse_qs(url.query).items()}
            with peer.lock:
                peer.authorizations.add(self.headers["Authorization"])
                try:
                    status, answer = 200, peer.answer(self.command, project, path, query, body)
                except ApiError as error:
                    status, answer = error.args[0], error.body()
            data = json.dumps(answer).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        peer = BigQueryServer(f"http://127.0.0.1:{server.server_port}", database)
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield peer
        server.shutdown()
        thread.join()
