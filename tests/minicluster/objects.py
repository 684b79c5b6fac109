"""The objects that the cluster holds, and what an API server does with them: check, name, select, merge, delete."""

import threading
import uuid
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import kubernetes_validate

Object = dict[str, Any]
VERSION = "1.33"
KINDS = {
    **dict.fromkeys(("pods", "secrets", "configmaps", "serviceaccounts", "namespaces", "nodes", "events"), "v1"),
    **dict.fromkeys(("persistentvolumeclaims",), "v1"),
    **dict.fromkeys(("jobs", "cronjobs"), "batch/v1"),
    **dict.fromkeys(("rolebindings", "roles"), "rbac.authorization.k8s.io/v1"),
}
"""API group and version by resource."""
NAMES = {
    **{"pods": "Pod", "secrets": "Secret", "configmaps": "ConfigMap", "serviceaccounts": "ServiceAccount"},
    **{"namespaces": "Namespace", "nodes": "Node", "events": "Event", "jobs": "Job", "cronjobs": "CronJob"},
    **{"persistentvolumeclaims": "PersistentVolumeClaim", "rolebindings": "RoleBinding", "roles": "Role"},
}


class ApiError(Exception):
    """An answer of the API that is no object."""

    def __init__(self, code: int, reason: str, message: str) -> None:
        super().__init__(message)
        status = {"kind": "Status", "apiVersion": "v1", "status": "Failure"}
        self.code, self.body = code, status | {"reason": reason, "message": message, "code": code}


def now() -> str:
    """The time as Kubernetes writes it."""
    return f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ}"


def owner(item: Object) -> Object:
    """Reference to the object that owns others: they are deleted with it."""
    meta = item["metadata"]
    reference = {"apiVersion": item["apiVersion"], "kind": item["kind"], "name": meta["name"], "uid": meta["uid"]}
    return reference | {"controller": True, "blockOwnerDeletion": True}


def owned(item: Object, by: Object) -> bool:
    """Whether `by` owns the object."""
    references = item["metadata"].get("ownerReferences") or []
    return any(one["uid"] == by["metadata"]["uid"] for one in references)


class Objects:
    """All objects, by resource, namespace and name. `lock` is held by whoever reads or changes them."""

    def __init__(self) -> None:
        self.lock = threading.RLock()
        self._held: dict[str, dict[tuple[str, str], Object]] = {kind: {} for kind in KINDS}

    def create(self, kind: str, namespace: str, item: Object) -> Object:
        """Check, complete and keep an object."""
        item.setdefault("kind", NAMES[kind])
        item.setdefault("apiVersion", KINDS[kind])
        meta = item.setdefault("metadata", {})
        if "name" not in meta:
            meta["name"] = meta.pop("generateName") + uuid.uuid4().hex[:5]
        if kind == "jobs":
            _complete_job(item)
        try:
            kubernetes_validate.validate(item, VERSION, strict=True)
        except kubernetes_validate.ValidationError as error:
            raise ApiError(422, "Invalid", f"{item['kind']} {meta['name']}: {error.message}") from error
        if (namespace, meta["name"]) in self._held[kind]:
            raise ApiError(409, "AlreadyExists", f'{kind} "{meta["name"]}" already exists')
        meta |= {"namespace": namespace, "uid": str(uuid.uuid4()), "creationTimestamp": now(), "resourceVersion": "1"}
        item.setdefault("status", {"phase": "Pending"} if kind == "pods" else {})
        if kind == "jobs":
            _label_pods(item)
        self._held[kind][namespace, meta["name"]] = item
        return item

    def get(self, kind: str, namespace: str, name: str) -> Object:
        """One object."""
        try:
            return self._held[kind][namespace, name]
        except KeyError:
            raise ApiError(404, "NotFound", f'{kind} "{name}" not found') from None

    def all(self, kind: str, namespace: str = "", *, labels: str = "", fields: str = "") -> list[Object]:
        """Objects of a namespace, or of all, that selectors match."""
        held = self._held[kind].items()
        return [item for (where, _), item in held if namespace in ("", where) and _matches(item, labels, fields)]

    def delete(self, kind: str, namespace: str, name: str) -> list[Object]:
        """Remove an object and all that it owns; give the pods among them."""
        item = self.get(kind, namespace, name)
        del self._held[kind][namespace, name]
        pods = [item] if kind == "pods" else []
        for below in ("jobs", "pods"):
            for child in self.all(below, namespace):
                if owned(child, item):
                    pods += self.delete(below, namespace, child["metadata"]["name"])
        return pods


def merge(old: Object, new: Object) -> None:
    """Apply a merge patch."""
    for key, value in new.items():
        if value is None:
            old.pop(key, None)
        elif isinstance(value, dict) and isinstance(old.get(key), dict):
            merge(old[key], value)
        else:
            old[key] = value


def _complete_job(job: Object) -> None:
    for rule in (job["spec"].get("podFailurePolicy") or {}).get("rules") or []:
        for condition in rule.get("onPodConditions") or []:
            condition.setdefault("status", "True")  # the API server's default


def _label_pods(job: Object) -> None:
    meta = job["metadata"]
    job["spec"].setdefault("selector", {"matchLabels": {"controller-uid": meta["uid"]}})
    of_pods = job["spec"]["template"].setdefault("metadata", {})
    own = dict.fromkeys(("job-name", "batch.kubernetes.io/job-name"), meta["name"])
    of_pods["labels"] = (of_pods.get("labels") or {}) | own | {"controller-uid": meta["uid"]}


def _matches(item: Object, labels: str, fields: str) -> bool:
    own = item["metadata"].get("labels") or {}
    return all(own.get(key) == value for key, value in _pairs(labels)) and all(
        _field(item, key) == value for key, value in _pairs(fields)
    )


def _pairs(selector: str) -> Iterator[tuple[str, str]]:
    for part in filter(None, selector.split(",")):
        key, _, value = part.partition("=")
        yield key, value.lstrip("=")


def _field(item: Any, path: str) -> Any:
    for name in path.split("."):
        item = (item or {}).get(name)
    return item
