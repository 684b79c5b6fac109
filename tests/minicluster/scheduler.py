"""Which node a pod is put on: selectors, taints, and what is free."""

import re
from typing import Any

from minicluster.objects import Object, Objects

UNITS = {"": 1, "m": 1e-3, "k": 1e3, "M": 1e6, "G": 1e9, "T": 1e12, "Ki": 2**10, "Mi": 2**20, "Gi": 2**30, "Ti": 2**40}


def place(pod: Object, objects: Objects) -> tuple[str | None, str]:
    """The first node that fits; or none, and why not."""
    why = []
    for node in objects.all("nodes"):
        name = node["metadata"]["name"]
        if reason := _misfit(pod, node, objects):
            why.append(f"{name}: {reason}")
        else:
            return name, ""
    return None, f"0/{len(why)} nodes are available: {'; '.join(why)}"


def _misfit(pod: Object, node: Object, objects: Objects) -> str:
    spec, labels = pod["spec"], node["metadata"].get("labels") or {}
    if node["spec"].get("unschedulable"):
        return "it is gone"
    if any(labels.get(key) != value for key, value in (spec.get("nodeSelector") or {}).items()):
        return "it does not match the node selector"
    taints = node["spec"].get("taints") or []
    for taint in taints:
        if not any(_tolerates(one, taint) for one in spec.get("tolerations") or []):
            return f"it has the untolerated taint {taint['key']}"
    free = {key: quantity(value) for key, value in node["status"]["allocatable"].items()}
    for other in objects.all("pods"):
        if other["spec"].get("nodeName") == node["metadata"]["name"] and other["status"]["phase"] in (
            "Pending",
            "Running",
        ):
            for key, value in requests(other).items():
                free[key] = free.get(key, 0) - value
    lacking = [key for key, value in requests(pod).items() if value > free.get(key, 0) + 1e-9]
    return f"insufficient {lacking[0]}" if lacking else ""


def _tolerates(toleration: Object, taint: Object) -> bool:
    return (
        toleration.get("key") in (None, "", taint["key"])
        and (toleration.get("operator") == "Exists" or toleration.get("value") == taint.get("value"))
        and toleration.get("effect") in (None, "", taint["effect"])
    )


def requests(pod: Object) -> dict[str, float]:
    """What the containers of a pod ask for, by resource; limits stand for requests that are not given."""
    total: dict[str, float] = {}
    for container in pod["spec"]["containers"]:
        resources = container.get("resources") or {}
        for key, value in ((resources.get("limits") or {}) | (resources.get("requests") or {})).items():
            total[key] = total.get(key, 0) + quantity(value)
    return total


def quantity(text: Any) -> float:
    """Kubernetes' `500m`, `4Gi` and so on as a number."""
    match = re.fullmatch(r"([\d.]+)([a-zA-Z]*)", str(text))
    assert match, text
    return float(match[1]) * UNITS[match[2]]
