"""The course of a training, sent to MLflow while it runs."""

import logging
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from queue import SimpleQueue

from mlflow import MlflowClient
from mlflow.entities import Metric, Param

from lungsynth.registry.check import experiment_of
from lungsynth.registry.connection import RegistryConfig, answering, one_line
from lungsynth.text import printable

TAG = "training_key"
"""Of a training's run: by it a training that was interrupted finds the run to go on with."""
LAST_WAIT_S = 30.0
"""How long the end of a training waits for a server that has not taken all lines yet."""

Row = dict[str, float]
log = logging.getLogger(__name__)


@contextmanager
def tracked(config: RegistryConfig, key: str, params: Mapping[str, object]) -> Iterator[Callable[[Row], None] | None]:
    """Gives the function that sends a line of a training's log, with its `kimg`, to the training's run in MLflow.

    It returns at once: a thread does the sending. Where the server cannot be reached or refuses, a warning says so
    once, the training goes on, and lines wait until the next one comes. None where `config.track_training` is off.

    Args:
        key: of the training, the same whenever it is the same training. A run of this key that has not ended is gone on
            with.
        params: of a new run, by their names.
    """
    if not config.track_training:
        yield None
        return
    lines: SimpleQueue[Row | str] = SimpleQueue()
    sender = threading.Thread(target=_send_all, args=(lines, config, key, params), daemon=True)
    sender.start()
    status = "KILLED"
    try:
        yield lines.put
        status = "FINISHED"
    except Exception:
        status = "FAILED"
        raise
    finally:
        lines.put(status)
        sender.join(LAST_WAIT_S)


def _send_all(lines: "SimpleQueue[Row | str]", config: RegistryConfig, key: str, params: Mapping[str, object]) -> None:
    """Send lines until the run's last status comes."""
    waiting: list[Row | str] = []
    run_id, warned = "", False
    while not (waiting and isinstance(waiting[-1], str)):
        waiting.append(lines.get())
        while not lines.empty():
            waiting.append(lines.get())
        try:
            client = MlflowClient(answering(config.tracking_uri))
            run_id = run_id or _run_of(client, config, key, params)
            while waiting:
                _send(client, run_id, waiting[0])
                if isinstance(waiting.pop(0), str):
                    return
        except Exception as error:  # of whatever kind: it must not cost a training
            if not warned:
                log.warning("the training goes on, but is not tracked: %s", one_line(error))
                warned = True


def _send(client: MlflowClient, run_id: str, line: Row | str) -> None:
    if isinstance(line, str):
        client.set_terminated(run_id, line)
    else:
        now, shown = int(time.time() * 1000), round(line["kimg"] * 1000)
        client.log_batch(run_id, [Metric(name, value, now, shown) for name, value in line.items()])


def _run_of(client: MlflowClient, config: RegistryConfig, key: str, params: Mapping[str, object]) -> str:
    """The newest run of this training that has not finished, or a new one; its id."""
    experiment = experiment_of(client, config)
    found = client.search_runs([experiment], f"tags.{TAG} = '{key}' and attributes.status != 'FINISHED'", max_results=1)
    if found:
        client.update_run(found[0].info.run_id, "RUNNING")
        return found[0].info.run_id
    run_id = client.create_run(experiment, tags={TAG: key}, run_name=f"training {key[:8]}").info.run_id
    client.log_batch(
        run_id, params=[Param(name, printable(str(value), longest=4000)) for name, value in params.items()]
    )
    return run_id
