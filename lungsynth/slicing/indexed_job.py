"""Builds the shards of a cohort on Kubernetes: an Indexed Job whose pods share nothing but the root's URL."""

import logging
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import yaml

from lungsynth.cohort.cohort import Cohort
from lungsynth.dataset.store import Shard
from lungsynth.errors import LungsynthError, one_line, reason
from lungsynth.hashing import combine
from lungsynth.progress import Progress
from lungsynth.remote import below, on_disk, push
from lungsynth.slicing.exchange import take_shards
from lungsynth.slicing.series import SliceConfig
from lungsynth.slicing.shard import shard_folder
from lungsynth.slicing.shards import shard_count

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Engine:
    """Where pods run. `manifest` is a file as infra/kubernetes/build-shards.yaml; looks are `poll_s` seconds apart."""

    manifest: Path
    image: str
    namespace: str = "zenml"
    pods: int = 8
    poll_s: float = 5.0


def build_on_kubernetes(cohort: Cohort, run_file: str, config: SliceConfig, engine: Engine) -> None:
    """Let pods build all shards of `cohort` that are missing, and wait for them; `build_slices` then only opens them.

    `run_file` is the text of a run file with all variables filled in. A job of the same cohort that is there already is
    waited for instead of a new one.

    Raises:
        LungsynthError: the root is no URL, the cluster refuses, or indices failed; what is built is kept.
    """
    if not isinstance(config.root, str):
        raise LungsynthError(
            f"slices.root is {config.root}, which pods do not share: name a URL, as s3://BUCKET/FOLDER"
        )
    count = shard_count(cohort, config)
    shards = {shard_folder(part, config).name: part for part in cohort.shards(count) if len(part.images)}
    name = f"lungsynth-build-{combine([run_file, cohort.sha256])[:8]}"
    folder, url = on_disk(config.root) / name, below(config.root, "cohorts", name)
    cohort.save(folder)
    push(folder, url, [path.name for path in folder.iterdir()])
    job = _manifest(engine, name, indices=min(count, engine.pods), cohort=url)
    api = _kubernetes()
    try:
        _submit(api, engine.namespace, job, run_file)
        _watch(api, engine, name, shards=shards, config=config)
    except api.ApiException as error:
        raise LungsynthError(f"Kubernetes refuses {name}: {error.reason}: {one_line(error.body)}") from error


def _manifest(engine: Engine, name: str, *, indices: int, cohort: str) -> dict[str, Any]:
    """The job of the manifest's file, with its names, numbers and places filled in."""
    try:
        job: dict[str, Any] = yaml.safe_load(engine.manifest.read_text())
    except OSError as error:
        raise LungsynthError(
            f"{engine.manifest}: cannot be read: {reason(error)}; run in the project's folder"
        ) from error
    job["metadata"]["name"] = name
    job["spec"] |= {"completions": indices, "parallelism": engine.pods}
    pod = job["spec"]["template"]["spec"]
    options = ["-c", "/etc/lungsynth/run.yaml", "--cohort", cohort, "--count", str(indices)]
    pod["containers"][0] |= {"image": engine.image, "args": options}
    next(one for one in pod["volumes"] if one["name"] == "run")["configMap"]["name"] = name
    return job


def _kubernetes() -> Any:
    """Kubernetes' client, of the current context of the kubeconfig."""
    from kubernetes import client, config  # an optional extra

    try:
        config.load_kube_config()
    except config.ConfigException as error:
        raise LungsynthError(f"no Kubernetes cluster: {one_line(error)}; set KUBECONFIG") from None
    return client


def _submit(api: Any, namespace: str, job: dict[str, Any], run_file: str) -> None:
    name = job["metadata"]["name"]
    config_map = {"metadata": {"name": name}, "data": {"run.yaml": run_file}}
    for create, body in (
        (api.CoreV1Api().create_namespaced_config_map, config_map),
        (api.BatchV1Api().create_namespaced_job, job),
    ):
        try:
            create(namespace, body)
        except api.ApiException as error:
            if error.status != 409:
                raise
            log.info("%s is there already: it is waited for", name)


def _watch(api: Any, engine: Engine, name: str, *, shards: dict[str, Cohort], config: SliceConfig) -> None:
    """Wait for the job, and show what its pods have built, as their shards appear at the root."""
    series = sum(len(part.images) for part in shards.values())
    folder, done = on_disk(config.root) / "shards", dict[str, pd.DataFrame]()
    with Progress(total=series, unit="series", desc="series on Kubernetes") as bar:
        while True:
            job = api.BatchV1Api().read_namespaced_job(name, engine.namespace)
            take_shards(shards.keys() - done.keys(), config)
            new = {one: shard.series for one in shards.keys() - done.keys() if (shard := Shard.open(folder / one))}
            done |= new
            bar.update(sum(len(table) for table in new.values()))
            rejected = sum(int((table["state"] == "rejected").sum()) for table in done.values())
            size = sum(int(shards[one].series["bytes"].sum()) for one in done)
            bar.set_postfix({"GB": f"{size / 1e9:.2f}", "rejected": rejected, "pods": job.status.active or 0})
            if conditions := [one for one in job.status.conditions or () if one.status == "True"]:
                break
            time.sleep(engine.poll_s)
    if conditions[0].type != "Complete":
        missing = len(shards) - len(done)
        raise LungsynthError(
            f"{name}: {conditions[0].reason}: {conditions[0].message}; {missing} of {len(shards)} shards are missing. "
            f"kubectl -n {engine.namespace} logs -l job-name={name} says why; delete the job and run again: what is "
            "built is kept"
        )
