"""Sends the log of a training to MLflow while the training runs."""

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
"""MLflow tag with the key of a training, by which a resumed training finds its run."""
LAST_WAIT_S = 30.0
"""Longest wait at the end of a training for lines that were not sent yet."""

Row = dict[str, float]
log = logging.getLogger(__name__)


@contextmanager
def tracked(config: RegistryConfig, key: str, params: Mapping[str, object]) -> Iterator[Callable[[Row], None] | None]:
    """Yield a function that sends a line of the training log, with its `kimg`, to MLflow; None if tracking is off.

    The function returns at once, since a thread sends. If the server cannot be reached or refuses, the training goes
    on: one warning is logged, and unsent lines are sent with the next one.

    Args:
        key: identifies the training. An unfinished MLflow run with this key is continued.
        params: parameters of a new MLflow run.
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
    """Send lines until the final status has been sent."""
    waiting: list[Row | str] = []
    run_id, warned = "", False
    while not (waiting and isinstance(waiting[-1], str)):
        waiting.append(lines.get())
        while not lines.empty():
            waiting.append(lines.get())
        try:
            client = MlflowClient(answering(config.tracking_uri))
            run_id = run_id or _run_of(client, config, key, params=params)
            while waiting:
                _send(client, run_id, waiting[0])
                if isinstance(waiting.pop(0), str):
                    return
        except Exception as error:  # of any kind: tracking must not end a training
            if not warned:
                log.warning("the training goes on, but is not tracked: %s", one_line(error))
                warned = True


def _send(client: MlflowClient, run_id: str, line: Row | str) -> None:
    if isinstance(line, str):
        client.set_terminated(run_id, line)
    else:
        now, shown = int(time.time() * 1000), round(line["kimg"] * 1000)
        client.log_batch(run_id, [Metric(name, value, now, shown) for name, value in line.items()])


def _run_of(client: MlflowClient, config: RegistryConfig, key: str, *, params: Mapping[str, object]) -> str:
    """Id of the newest unfinished run of this training, or of a new run."""
    experiment = experiment_of(client, config)
    found = client.search_runs([experiment], f"tags.{TAG} = '{key}' and attributes.status != 'FINISHED'", max_results=1)
    if found:
        client.update_run(found[0].info.run_id, "RUNNING")
        newest: str = found[0].info.run_id
        return newest
    run_id: str = client.create_run(experiment, tags={TAG: key}, run_name=f"training {key[:8]}").info.run_id
    client.log_batch(
        run_id, params=[Param(name, printable(str(value), longest=4000)) for name, value in params.items()]
    )
    return run_id
