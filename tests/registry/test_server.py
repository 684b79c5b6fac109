"""The MLflow server: whether it answers, as whom it is asked, and what its errors show."""

import socket
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from mlflow import MlflowClient
from mlflow.exceptions import MlflowException

from lungsynth.errors import LungsynthError
from lungsynth.registry.check import experiment_of
from lungsynth.registry.connection import RegistryConfig, answering, connect


def test_silent_server_is_an_error_that_names_it_without_its_password():
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{closed.getsockname()[1]}"
    config = RegistryConfig(tracking_uri=f"http://someone:secret@{address}")
    silent = pytest.raises(LungsynthError, match=f"MLflow at http://{address} does not answer")
    with silent as caught, connect(config):
        pytest.fail("it is there")
    assert "secret" not in str(caught.value)


@pytest.fixture
def server():
    """Address of a live server on this machine that answers all with 404; and what it was asked."""
    asked = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            asked.append(self.headers["Host"])
            self.send_error(404)

        def log_message(self, *_):
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as found:
        threading.Thread(target=found.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
        yield f"127.0.0.1:{found.server_port}", asked
        found.shutdown()


@pytest.mark.parametrize("user", ["", "someone:secret@", "someone:s%40c:ret@", "someone:p@ss@"])
def test_live_server_answers_whoever_asks(user, server):
    address, asked = server
    uri = f"http://{user}{address}"
    assert answering(uri) == uri  # MLflow needs the password
    assert asked == [address]


@pytest.mark.parametrize("uri", ["http://someone:secret@host:port", "https://someone:se@cret@127.0.0.1:port"])
def test_address_that_is_none_is_an_error_without_its_password(uri):
    with pytest.raises(LungsynthError, match=r"MLflow at https?://[a-z0-9.]+:port does not answer") as caught:
        answering(uri)
    chain = [caught.value, caught.value.__cause__]
    assert not any("cret" in str(error) for error in chain)


def test_mlflows_own_errors_are_shown_without_a_password(config):
    message = "API request to http://someone:secret@host/api failed, as did http://host"
    refused = pytest.raises(LungsynthError, match=r": API request to http://host/api failed, as did http://host$")
    with refused, connect(config):
        raise MlflowException(message)


def test_first_runs_that_start_at_once_share_their_experiment(config, monkeypatch):
    client = MlflowClient(config.tracking_uri)
    look, others = MlflowClient.get_experiment_by_name, []

    def late(*arguments):
        found = look(*arguments)
        if not others:  # between this look and the making
            others.append(client.create_experiment(config.experiment))
        return found

    monkeypatch.setattr(MlflowClient, "get_experiment_by_name", late)
    assert experiment_of(client, config) == others[0]


def test_experiment_that_cannot_be_made_is_an_error(config):
    with pytest.raises(MlflowException, match="Invalid"):
        experiment_of(MlflowClient(config.tracking_uri), config.model_copy(update={"experiment": ""}))


def test_file_that_is_no_database_is_an_error_that_names_it(tmp_path):
    (tmp_path / "mlflow.db").write_text("no database")
    config = RegistryConfig(tracking_uri=f"sqlite:///{tmp_path}/mlflow.db")
    refused = pytest.raises(LungsynthError, match=f"MLflow at {config.tracking_uri}: .*not a database")
    with refused, connect(config):
        pytest.fail("it is one")
