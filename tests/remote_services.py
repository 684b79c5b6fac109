"""What stands around a remote run, on loopback: ZenML server, S3, MLflow server, Kubernetes; and stacks of them."""

import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlencode
from urllib.request import Request, urlopen

import boto3
import pytest
from minicluster import MiniCluster, podman_is_missing

BIN = Path(sys.executable).parent
REGISTER = Path(__file__).with_name("register_stacks.py")


@dataclass
class Services:
    """A cluster and all servers. `environment` is that of a user's shell on the laptop."""

    cluster: MiniCluster
    environment: dict[str, str]
    s3: Any
    """boto3's client; the bucket `lungsynth` is for roots, `zenml` and `mlflow` for artifacts."""


@pytest.fixture(scope="session")
def services(tmp_path_factory: pytest.TempPathFactory, s3_endpoint: str) -> Iterator[Services]:
    """All of it, once; about 30 s. Tests skip where containers cannot run."""
    if why := podman_is_missing():
        pytest.skip(f"no containers: {why}")
    state = tmp_path_factory.mktemp("services")
    aws = {"AWS_ENDPOINT_URL": s3_endpoint, "AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test"}
    aws |= {"AWS_DEFAULT_REGION": "us-east-1", "MLFLOW_S3_ENDPOINT_URL": s3_endpoint}
    s3 = boto3.client("s3", endpoint_url=s3_endpoint, aws_access_key_id="test", aws_secret_access_key="test")
    for bucket in ("zenml", "mlflow", "lungsynth"):
        s3.create_bucket(Bucket=bucket)
    quiet = {"ZENML_ANALYTICS_OPT_IN": "false", "MLFLOW_DISABLE_TELEMETRY": "true", "OMP_NUM_THREADS": "1"}
    quiet |= {"ZENML_LOGGING_COLORS_DISABLED": "true"}
    hidden = ("ZENML_REPOSITORY_PATH", "ZENML_CONFIG_PATH")
    base = {key: value for key, value in os.environ.items() if key not in hidden} | quiet | aws
    with (
        zenml_server(state / "zenml", base) as (zenml, api_key),
        mlflow_server(state / "mlflow", base) as mlflow,
        MiniCluster(state / "cluster", aws | quiet) as cluster,
    ):
        environment = base | {
            "ZENML_STORE_URL": zenml,
            "ZENML_STORE_API_KEY": api_key,
            "ZENML_CONFIG_PATH": str(state / "home"),
            "MLFLOW_TRACKING_URI": mlflow,
            "KUBECONFIG": str(cluster.kubeconfig),
            "LUNGSYNTH_STORE": "s3://lungsynth",
            "LUNGSYNTH_IMAGE": "127.0.0.1:5001/lungsynth:test",
        }
        done = subprocess.run(
            [sys.executable, str(REGISTER)], env=environment, cwd=state, text=True, stderr=subprocess.STDOUT, stdout=-1
        )
        assert done.returncode == 0, done.stdout
        yield Services(cluster, environment, s3)


@contextmanager
def zenml_server(home: Path, environment: dict[str, str]) -> Iterator[tuple[str, str]]:
    """A ZenML server on SQLite; gives its URL and the API key of a service account."""
    url = f"http://127.0.0.1:{(port := free_port())}"
    own = {"ZENML_CONFIG_PATH": str(home), "ZENML_SERVER_AUTO_ACTIVATE": "1", "ZENML_SERVER": "1"}
    own |= {"ZENML_DEFAULT_USER_NAME": "default", "ZENML_DEFAULT_USER_PASSWORD": "zenml"}
    program = [sys.executable, "-m", "uvicorn", "zenml.zen_server.zen_server_api:app", "--port", str(port)]
    with started([*program, "--log-level", "warning"], environment | own, home, f"{url}/health"):
        form = urlencode({"username": "default", "password": "zenml"}).encode()
        token = _post(f"{url}/api/v1/login", form)["access_token"]
        account = _post(f"{url}/api/v1/service_accounts", {"name": "tester", "active": True}, token)["id"]
        key = _post(f"{url}/api/v1/service_accounts/{account}/api_keys", {"name": "tests"}, token)
        yield url, key["body"]["key"]


@contextmanager
def mlflow_server(home: Path, environment: dict[str, str]) -> Iterator[str]:
    """An MLflow server on SQLite whose artifacts lie in S3, where clients need no credentials for it."""
    url = f"http://127.0.0.1:{(port := free_port())}"
    program = [str(BIN / "mlflow"), "server", "--host", "127.0.0.1", "--port", str(port), "--workers", "1"]
    stores = [f"--backend-store-uri=sqlite:///{home}/mlflow.db", "--artifacts-destination=s3://mlflow"]
    with started([*program, *stores], environment, home, f"{url}/health"):
        yield url


@contextmanager
def started(command: list[str], environment: dict[str, str], home: Path, health: str) -> Iterator[None]:
    """Run a server until the block ends; the block begins when `health` answers."""
    home.mkdir(parents=True, exist_ok=True)
    with (home / "log").open("wb") as log:
        process = subprocess.Popen(command, env=environment, cwd=home, stdout=log, stderr=log, start_new_session=True)
        try:
            deadline = time.monotonic() + 120
            while not _answers(health):
                hopeless = process.poll() is not None or time.monotonic() > deadline
                assert not hopeless, (home / "log").read_text()[-3000:]
                time.sleep(0.2)
            yield
        finally:
            os.killpg(process.pid, 15)
            process.wait(timeout=30)


def free_port() -> int:
    """A port of loopback that nobody uses now."""
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        port: int = one.getsockname()[1]
    return port


def _answers(url: str) -> bool:
    try:
        with urlopen(url, timeout=5):
            return True
    except OSError:
        return False


def _post(url: str, content: bytes | dict[str, object], token: str | None = None) -> dict[str, object]:
    data = content if isinstance(content, bytes) else json.dumps(content).encode()
    headers = {} if isinstance(content, bytes) else {"Content-Type": "application/json"}
    headers |= {"Authorization": f"Bearer {token}"} if token else {}
    with urlopen(Request(url, data, headers), timeout=60) as answer:
        return json.loads(answer.read())
