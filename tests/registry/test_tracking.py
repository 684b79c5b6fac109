"""A training's lines arrive in MLflow while it runs, in one run even if it was interrupted, and never stop it."""

import logging
from threading import Event

import pytest
from mlflow import MlflowClient

from lungsynth.registry import tracking
from lungsynth.registry.connection import RegistryConfig
from lungsynth.registry.tracking import TAG, tracked

LINES = [{"kimg": 0.5, "loss_d": 1.25}, {"kimg": 1.0, "loss_d": 0.75, "kid_val": 3.0}]


@pytest.fixture
def tracking_on(config):
    return config.model_copy(update={"track_training": True})


def runs(config):
    client = MlflowClient(config.tracking_uri)
    experiment = client.get_experiment_by_name(config.experiment)
    return [] if experiment is None else client.search_runs([experiment.experiment_id])


def course(config, run, name):
    history = MlflowClient(config.tracking_uri).get_metric_history(run.info.run_id, name)
    return sorted((point.step, point.value) for point in history)


def test_lines_arrive_while_the_training_runs(tracking_on, monkeypatch):
    send_one, sent = tracking._send, Event()
    monkeypatch.setattr(tracking, "_send", lambda *line: send_one(*line) or sent.set())
    with tracked(tracking_on, "key", {"training.batch": 32}) as send:
        send(LINES[0])
        assert sent.wait(30)
        found = runs(tracking_on)
        assert found[0].info.status == "RUNNING"
        assert found[0].data.metrics["loss_d"] == 1.25
        send(LINES[1])

    [run] = runs(tracking_on)
    assert run.info.status == "FINISHED"
    assert run.data.params == {"training.batch": "32"}
    assert run.data.tags[TAG] == "key"
    assert course(tracking_on, run, "loss_d") == [(500, 1.25), (1000, 0.75)]
    assert course(tracking_on, run, "kid_val") == [(1000, 3.0)]


@pytest.mark.parametrize(("error", "status"), [(ValueError, "FAILED"), (KeyboardInterrupt, "KILLED")])
def test_an_interrupted_training_goes_on_in_its_run(tracking_on, error, status):
    def interrupted():
        with tracked(tracking_on, "key", {"seed": 0}) as send:
            send(LINES[0])
            raise error

    with pytest.raises(error):
        interrupted()
    assert [run.info.status for run in runs(tracking_on)] == [status]
    with tracked(tracking_on, "key", {"seed": 0}) as send:
        send(LINES[1])
    [run] = runs(tracking_on)
    assert run.info.status == "FINISHED"
    assert course(tracking_on, run, "loss_d") == [(500, 1.25), (1000, 0.75)]


def test_other_trainings_have_runs_of_their_own(tracking_on):
    for key in ("one", "two", "two"):
        with tracked(tracking_on, key, {}) as send:
            send(LINES[0])
    assert sorted(run.data.tags[TAG] for run in runs(tracking_on)) == ["one", "two", "two"]


def test_a_server_that_is_away_costs_one_warning(caplog):
    away = RegistryConfig(tracking_uri="http://127.0.0.1:9", track_training=True)
    with caplog.at_level(logging.WARNING), tracked(away, "key", {}) as send:
        for line in LINES:
            send(line)
    [record] = [record for record in caplog.records if record.name == tracking.__name__]
    assert "127.0.0.1:9 does not answer" in record.message


def test_lines_wait_for_a_server_that_comes_back(tracking_on, monkeypatch):
    answers, asked = tracking.answering, Event()

    def away_at_first(uri):
        if not asked.is_set():
            asked.set()
            raise OSError("away")
        return answers(uri)

    monkeypatch.setattr(tracking, "answering", away_at_first)
    with tracked(tracking_on, "key", {}) as send:
        send(LINES[0])
        assert asked.wait(30)
        send(LINES[1])
    [run] = runs(tracking_on)
    assert course(tracking_on, run, "loss_d") == [(500, 1.25), (1000, 0.75)]


def test_off_by_default(config):
    with tracked(config, "key", {}) as send:
        assert send is None
    assert runs(config) == []
