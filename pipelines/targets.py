"""Targets: `configs/targets/NAME.yaml` says where a run runs, laid over the run file that says what it does.

A target holds a `stack`, ZenML's `settings` and `steps`, and those `parameters` that are places: roots that pods can
reach, and the tracking server. What it says wins. Everything is checked before anything runs, since ZenML drops
settings of another stack with a warning, passes on misspelt keys of pods, and ignores GPUs asked for in another form.
"""

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError
from zenml.client import Client
from zenml.config.base_settings import BaseSettings
from zenml.enums import StackComponentType
from zenml.stack import StackComponent

from lungsynth.errors import LungsynthError, one_line
from lungsynth.run_file import check_keys, explain, fail, load, section

CONFIGS = Path(__file__).parents[1] / "configs"
KEYS = ("stack", "parameters", "settings", "steps", "execution_mode")
SERVERS = ("http://", "https://", "databricks", "postgresql", "mysql", "mssql")
"""Beginnings of a `registry.tracking_uri` that all pods can reach."""
WORKERS = (StackComponentType.ORCHESTRATOR, StackComponentType.STEP_OPERATOR)


@dataclass(frozen=True)
class Target:
    """A target's file, and what it holds."""

    path: Path
    stack: str
    content: dict[str, Any]


def target_of(path: Path, content: dict[str, Any]) -> Target | None:
    """The target that a run file's content names by `target`, else the environment; `target` is taken out of it.

    Raises:
        LungsynthError: there is no such target, or its file is wrong.
    """
    name = content.pop("target", None) or os.environ.get("LUNGSYNTH_TARGET")
    if name is None:
        return None
    file = _named(path, "target", name, CONFIGS / "targets")
    found = load(file)
    check_keys(file, "", found, allowed=KEYS)
    stack = found.pop("stack", None)
    if not isinstance(stack, str):
        fail(file, "stack", "is missing: name the ZenML stack on which this target runs")
    return Target(file, stack, found)


def schedule_of(path: Path, content: dict[str, Any]) -> dict[str, Any]:
    """What the schedule holds that a run file's content, or the environment, names; ZenML's own form is left alone.

    Raises:
        LungsynthError: there is no such schedule, or its file is wrong.
    """
    name = content.get("schedule") or os.environ.get("LUNGSYNTH_SCHEDULE")
    if name is None or isinstance(name, dict):
        return {}
    file = _named(path, "schedule", name, CONFIGS / "schedules")
    found = load(file)
    check_keys(file, "", found, allowed=("schedule", "settings"))
    return found


def _named(path: Path, key: str, name: Any, folder: Path) -> Path:
    file = folder / f"{name}.yaml"
    if not isinstance(name, str) or not file.is_file():
        there = ", ".join(sorted(one.stem for one in folder.glob("*.yaml")))
        fail(path, key, f"there is no {file.relative_to(CONFIGS.parent)}; there are: {there}")
    return file


def laid_over(below: Any, above: Any) -> Any:
    """Both contents in one: of two sections all keys, of two other values the one above."""
    if isinstance(below, dict) and isinstance(above, dict):
        return below | {key: laid_over(below.get(key), value) for key, value in above.items()}
    return above


def check_stack(target: Target | None) -> None:
    """Whether the active stack is the target's.

    Raises:
        LungsynthError: it is not.
    """
    active = Client().active_stack_model.name
    if target and active != target.stack:
        raise LungsynthError(
            f"{target.path}: stack: this target runs on {target.stack}, and the active stack is {active}: "
            f"zenml stack set {target.stack}"
        )


def check_settings(path: Path, content: dict[str, Any]) -> None:
    """Whether settings, below `settings` and each step's, fit the components of the active stack.

    Raises:
        LungsynthError: a component or key is not known, a value is wrong, or a GPU is asked for in vain.
    """
    for where, settings in _all_settings(path, content):
        for name, given in settings.items():
            kind, _, flavor = name.partition(".")
            if kind in set(StackComponentType) and flavor:
                model = _settings_class(path, f"{where}.{name}", kind, flavor)
                values = section(path, f"{where}.{name}", given)
                _check_values(path, f"{where}.{name}", values, model)
                check_pods(path, f"{where}.{name}", values)
        if "resources" in settings and (settings["resources"] or {}).get("gpu_count") and _kubernetes():
            fail(
                path,
                f"{where}.resources.gpu_count",
                "is ignored by ZenML's kubernetes orchestrator, and the step would run without a GPU: set "
                'orchestrator.kubernetes.pod_settings.resources.limits: {nvidia.com/gpu: "1"}',
            )


def check_places(path: Path, content: dict[str, Any], parameters: dict[str, Any]) -> None:
    """Whether all machines of the active stack can reach what the `parameters` name, where it has any but this one.

    Raises:
        LungsynthError: they cannot.
    """
    stack = Client().active_stack
    remote = [one for one in stack.components.values() if one.config.is_remote and one.type in WORKERS]
    if not remote:
        return
    who = f"{remote[0].type} {remote[0].name}, a machine of its own"
    if not parameters["registry"]["tracking_uri"].startswith(SERVERS):
        fail(
            path,
            "parameters.registry.tracking_uri",
            f"is {parameters['registry']['tracking_uri']}, and each step of {who}, would make an empty database of "
            "its own: name an MLflow server, as https://SERVER",
        )
    mounted = [Path(mount) for _, settings in _all_settings(path, content) for mount in _mounts(settings)]
    places = {
        "slices.root": parameters["slices"]["root"],
        "checkpoints": parameters["checkpoints"],
        "fidelity.cache": parameters["fidelity"]["cache"],
        "privacy.cache": parameters["privacy"]["cache"],
    }
    for key, place in places.items():
        if place and "://" not in place and not any(Path(place).is_relative_to(mount) for mount in mounted):
            fail(
                path,
                f"parameters.{key}",
                f"is {place}, which is lost with {who}: name a URL, as s3://BUCKET/FOLDER, or a folder on a volume "
                "that the settings mount",
            )
    if stack.artifact_store.config.is_local:
        raise LungsynthError(
            f"{path}: the artifact store {stack.artifact_store.name} of the active stack is a folder of this machine, "
            f"which {who}, cannot reach: put one at s3:// or gs:// into the stack"
        )


def check_pods(path: Path, where: str, values: dict[str, Any]) -> None:
    """Whether Kubernetes takes the pods that these settings of a component make.

    Raises:
        LungsynthError: it would refuse them, or drop a key.
    """
    from kubernetes.client import ApiClient  # an optional extra, as kubernetes_validate
    from kubernetes_validate import ValidationError as Refused
    from kubernetes_validate import validate
    from zenml.integrations.kubernetes.manifest_utils import build_pod_manifest
    from zenml.integrations.kubernetes.pod_settings import KubernetesPodSettings

    for key in [key for key in ("pod_settings", "orchestrator_pod_settings") if values.get(key)]:
        settings = KubernetesPodSettings.model_validate(values[key])
        pod = build_pod_manifest("pod", "image", [], [], privileged=False, pod_settings=settings)
        try:
            validate(ApiClient().sanitize_for_serialization(pod), "1.33", strict=True)
        except Refused as error:
            fail(path, f"{where}.{key}", f"Kubernetes refuses it: {one_line(error)}")


def _all_settings(path: Path, content: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Each `settings` of a run file, with its key."""
    yield "settings", section(path, "settings", content.get("settings"))
    for name, step in section(path, "steps", content.get("steps")).items():
        yield f"steps.{name}.settings", section(path, f"steps.{name}.settings", (step or {}).get("settings"))


def _settings_class(path: Path, key: str, kind: str, flavor: str) -> type[BaseSettings]:
    """The class of the settings of the active stack's component of this kind and flavor."""
    found = Client().active_stack_model.components.get(StackComponentType(kind), [])
    flavors = [component.flavor_name for component in found]
    if flavor not in flavors:
        has = f"has {kind} {', '.join(flavors)}" if flavors else f"has no {kind}"
        fail(
            path,
            key,
            f"the active stack {Client().active_stack_model.name} {has}, and ZenML would drop this: set the stack or "
            "leave the settings out",
        )
    try:
        component = StackComponent.from_model(found[flavors.index(flavor)])
    except ImportError as error:
        raise LungsynthError(f"{path}: {key}: {one_line(error)}") from None
    settings = component.settings_class
    if settings is None:
        fail(path, key, f"{kind} {flavor} takes no settings")
    return settings


def _check_values(path: Path, key: str, values: dict[str, Any], model: type[BaseModel]) -> None:
    check_keys(path, key, values, allowed=model.model_fields)
    try:
        model.model_validate(values)
    except ValidationError as error:
        explain(path, error, key, content=values, model=model)


def _kubernetes() -> bool:
    orchestrators = Client().active_stack_model.components[StackComponentType.ORCHESTRATOR]
    return any(component.flavor_name == "kubernetes" for component in orchestrators)


def _mounts(settings: dict[str, Any]) -> Iterator[str]:
    """Folders in containers that lie on a volume."""
    for given in settings.values():
        values = given if isinstance(given, dict) else {}
        yield from (mount["mountPath"] for mount in (values.get("pod_settings") or {}).get("volume_mounts") or ())
        mounts = values.get("mounts") or {}
        yield from mounts.values() if isinstance(mounts, dict) else ()
