"""What makes pods of jobs and jobs of cron jobs, and what becomes of a job when its pods end."""

import copy
import time
from datetime import datetime
from typing import Any

from minicluster.objects import ApiError, Object, Objects, now, owned, owner

INDEX = "batch.kubernetes.io/job-completion-index"


def run_jobs(objects: Objects) -> list[Object]:
    """Bring each job one step forward; give the pods that are to be killed."""
    killed = []
    for job in objects.all("jobs"):
        if not job["status"].get("conditions") and not job["spec"].get("suspend"):
            killed += _run_job(job, objects)
    return killed


def _run_job(job: Object, objects: Objects) -> list[Object]:
    namespace, spec = job["metadata"]["namespace"], job["spec"]
    pods = [pod for pod in objects.all("pods", namespace) if owned(pod, job)]
    indices: list[int | None] = [*range(spec["completions"])] if spec.get("completionMode") == "Indexed" else [None]
    by_index = {index: [pod for pod in pods if _index(pod) == index] for index in indices}
    fates = {index: _fate(job, some) for index, some in by_index.items()}
    active = sum(pod["status"]["phase"] in ("Pending", "Running") for pod in pods)
    counted = sum(_action(job, pod) == "Count" for pod in pods if pod["status"]["phase"] == "Failed")
    job["status"] |= {"active": active, "succeeded": list(fates.values()).count("done"), "failed": counted}
    failed = [index for index, fate in fates.items() if fate == "failed"]
    if any(_action(job, pod) == "FailJob" for pod in pods if pod["status"]["phase"] == "Failed"):
        return _finish(job, objects, "Failed", "PodFailurePolicy", "a pod matched a FailJob rule")
    if failed and indices == [None]:
        return _finish(job, objects, "Failed", "BackoffLimitExceeded", "Job has reached the specified backoff limit")
    if len(failed) > spec.get("maxFailedIndexes", len(indices)):
        return _finish(job, objects, "Failed", "MaxFailedIndexesExceeded", f"failed indexes: {failed}")
    if all(fate in ("done", "failed") for fate in fates.values()):
        job["status"]["failedIndexes"] = ",".join(map(str, failed))
        return _finish(job, objects, *(("Failed", "FailedIndexes", f"{failed}") if failed else ("Complete", "", "")))
    if (deadline := spec.get("activeDeadlineSeconds")) and _age_s(job) > deadline:
        return _finish(job, objects, "Failed", "DeadlineExceeded", "Job was active longer than specified deadline")
    waiting = [index for index, fate in fates.items() if fate == "waiting"]
    for index in waiting[: max(0, spec.get("parallelism", 1) - active)]:
        _create_pod(job, index, objects)
    return []


def _fate(job: Object, pods: list[Object]) -> str:
    """What has become of a job or of one of its indices: done, failed, active or waiting."""
    phases = [pod["status"]["phase"] for pod in pods]
    limit = job["spec"].get("backoffLimitPerIndex", job["spec"].get("backoffLimit", 6))
    if "Succeeded" in phases:
        return "done"
    if "Pending" in phases or "Running" in phases:
        return "active"
    counted = sum(_action(job, pod) == "Count" for pod in pods)
    return "failed" if counted > limit or any(_action(job, pod) == "FailIndex" for pod in pods) else "waiting"


def _action(job: Object, pod: Object) -> str:
    """What the pod failure policy says about a failed pod; the first rule that matches decides."""
    code = pod["status"]["containerStatuses"][0]["state"]["terminated"]["exitCode"]
    conditions = {one["type"]: one["status"] for one in pod["status"].get("conditions") or []}
    for rule in (job["spec"].get("podFailurePolicy") or {}).get("rules") or []:
        on = rule.get("onExitCodes")
        if on and (code in on["values"]) == (on["operator"] == "In"):
            return rule["action"]
        if any(conditions.get(one["type"]) == one["status"] for one in rule.get("onPodConditions") or []):
            return rule["action"]
    return "Count"


def _create_pod(job: Object, index: int | None, objects: Objects) -> None:
    template: dict[str, Any] = copy.deepcopy(job["spec"]["template"])
    meta = template.setdefault("metadata", {})
    meta |= {"generateName": f"{job['metadata']['name']}-", "ownerReferences": [owner(job)]}
    if index is not None:
        meta["annotations"] = (meta.get("annotations") or {}) | {INDEX: str(index)}
        variable = {"name": "JOB_COMPLETION_INDEX", "value": str(index)}
        for container in template["spec"]["containers"]:
            container["env"] = [*(container.get("env") or []), variable]
    objects.create("pods", job["metadata"]["namespace"], {"apiVersion": "v1", "kind": "Pod", **template})


def _index(pod: Object) -> int | None:
    index = (pod["metadata"].get("annotations") or {}).get(INDEX)
    return None if index is None else int(index)


def _finish(job: Object, objects: Objects, kind: str, reason: str, message: str) -> list[Object]:
    condition = {"type": kind, "status": "True", "reason": reason, "message": message, "lastTransitionTime": now()}
    job["status"] |= {"conditions": [condition], "completionTime": now()}
    namespace = job["metadata"]["namespace"]
    return [
        pod
        for pod in objects.all("pods", namespace)
        if owned(pod, job) and pod["status"]["phase"] in ("Pending", "Running")
    ]


def _age_s(job: Object) -> float:
    return time.time() - datetime.fromisoformat(job["metadata"]["creationTimestamp"]).timestamp()


def fire(objects: Objects, namespace: str, name: str) -> str:
    """Make the job of a cron job, as if its time had come. Gives the job's name, or why there is none."""
    cron = objects.get("cronjobs", namespace, name)
    spec, template = cron["spec"], copy.deepcopy(cron["spec"]["jobTemplate"])
    jobs = [job for job in objects.all("jobs", namespace) if owned(job, cron)]
    active = [job for job in jobs if not job["status"].get("conditions")]
    policy = spec.get("concurrencyPolicy", "Allow")
    if spec.get("suspend"):
        raise ApiError(409, "Suspended", f"{name} is suspended")
    if active and policy == "Forbid":
        raise ApiError(409, "Forbid", f"{active[0]['metadata']['name']} is still active")
    meta = template.get("metadata") or {}
    kept = {key: meta.get(key) or {} for key in ("labels", "annotations")}
    meta = {"name": f"{name}-{time.time_ns() % 10**10}", "ownerReferences": [owner(cron)], **kept}
    job = {"apiVersion": "batch/v1", "kind": "Job", "metadata": meta, "spec": template["spec"]}
    created: str = objects.create("jobs", namespace, job)["metadata"]["name"]
    return created
