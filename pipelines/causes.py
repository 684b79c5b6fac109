"""Why a step failed: its error, or what Kubernetes says of its pods; and whether a run is still alive at all."""

import re
from collections import defaultdict
from typing import Any

from zenml.models import PipelineRunResponse, StepRunResponse
from zenml.stack import Stack

from lungsynth.errors import LungsynthError, one_line
from lungsynth.text import printable

LINES = 5
"""Last lines of a pod's log that are shown where the step left no error of its own."""


def failed_step(run: PipelineRunResponse) -> StepRunResponse | None:
    """The step that failed; else the first that did not finish."""
    steps = list(run.steps.values())
    failed = [step for step in steps if step.status.is_failed]
    return next(iter(failed or [step for step in steps if not step.status.is_successful]), None)


def cause_of(run: PipelineRunResponse) -> str:
    """Why a run failed, in one line, and where there is no error of a step, the end of its log."""
    step = failed_step(run)
    if step is None:
        return _cause_by_pods(run, "orchestrator") or "its orchestrator ended before the first step began"
    error = step.exception_info
    if error and error.message:
        ours = (error.source or "").endswith(LungsynthError.__name__) or "LungsynthError" in error.traceback
        kind = "" if ours else f"{(error.source or '').rpartition('.')[2]}: "
        return printable(f"{kind}{error.message}", longest=4000)
    return _cause_by_pods(run, step.name) or f"{step.status.value} without an error on record"


def is_alive(run: PipelineRunResponse) -> bool:
    """Whether something still works on a run that is not finished. Where nobody can be asked, it is taken for alive."""
    client = _kubernetes(run)
    if client is None:
        return True
    api, namespace = client
    jobs = api.BatchV1Api().list_namespaced_job(namespace, label_selector=f"run_id={run.id}").items
    orchestrators = [job for job in jobs if "step_name" not in (job.metadata.labels or {})]
    return any(not (job.status.conditions or []) for job in orchestrators)


def _kubernetes(run: PipelineRunResponse) -> tuple[Any, str] | None:
    """Kubernetes' client and the namespace of a run's pods; None for other orchestrators and clusters out of reach."""
    if run.stack is None:
        return None
    orchestrator = Stack.from_model(run.stack).orchestrator
    if orchestrator.flavor != "kubernetes":
        return None
    from kubernetes import client  # an optional extra

    orchestrator.get_kube_client()  # type: ignore[attr-defined]  # sets the configuration that `client` uses
    namespace: str = orchestrator.config.kubernetes_namespace  # type: ignore[attr-defined]
    return client, namespace


def _cause_by_pods(run: PipelineRunResponse, step: str) -> str:
    """What Kubernetes says of a step, and the end of its log; empty where it says nothing, or cannot be asked."""
    try:
        found = _kubernetes(run)
        if found is None:
            return ""
        client, namespace = found
        core = client.CoreV1Api()
        pods: dict[str, list[Any]] = defaultdict(list)
        for pod in core.list_namespaced_pod(namespace, label_selector=f"run_id={run.id}").items:
            pods[(pod.metadata.labels or {}).get("step_name", "orchestrator")].append(pod)
        logs = {
            name: core.read_namespaced_pod_log(newest(some).metadata.name, namespace, tail_lines=200).splitlines()
            for name, some in pods.items()
            if name in (step, "orchestrator")
        }
    except Exception as error:  # Kubernetes' client has a dozen kinds
        return f"the cluster cannot be asked ({one_line(error)})"
    reported = re.findall(rf"Job for step `{step}` failed: (.*)", "\n".join(logs.get("orchestrator", ())))
    reason = _reason(pods[step]) if pods[step] else "its pod is gone"
    if reported and not any(map(_disrupted, pods[step])):
        reason = reported[-1]
    advice = ": give the step more memory, by pod_settings.resources" if "OOMKilled" in reason else ""
    lines = [printable(line, longest=300) for line in logs.get(step, ())[-LINES:]]
    return "\n  ".join([reason + advice, *lines])


def newest(pods: list[Any]) -> Any:
    """The pod that was made last."""
    return max(pods, key=lambda pod: pod.metadata.creation_timestamp)


def _reason(pods: list[Any]) -> str:
    """The state of the last pod, in Kubernetes' own words."""
    pod, disrupted = newest(pods), sum(map(_disrupted, pods))
    where = f"pod {pod.metadata.name}"
    if disrupted:
        times = {1: "once", 2: "twice", 3: "thrice"}.get(disrupted, f"{disrupted} times")
        return f"{where}: preempted {times}"
    for condition in pod.status.conditions or []:
        if condition.type == "PodScheduled" and condition.status == "False":
            return f"{where}: {condition.reason}: {condition.message}"
    for status in pod.status.container_statuses or []:
        if ended := status.state.terminated:
            return f"{where}: {ended.reason}, exit code {ended.exit_code}"
    return f"{where}: {pod.status.phase}"


def _disrupted(pod: Any) -> bool:
    return any(condition.type == "DisruptionTarget" for condition in pod.status.conditions or [])
