"""The model registry: every verdict becomes an MLflow run, and only a promoted generator becomes a model version."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import mlflow
from mlflow import MlflowClient
from pydantic import BaseModel, ConfigDict

from lungsynth.errors import LungsynthError
from lungsynth.evaluation.scorecard import Scorecard
from lungsynth.evaluation.utility.tasks import TaskName
from lungsynth.generators.package import GeneratorCard, GeneratorPackage
from lungsynth.registry.check import check_package, check_registry, experiment_of, package_uri, version_name
from lungsynth.registry.connection import RegistryConfig, connect, shown
from lungsynth.registry.export import log_generator
from lungsynth.registry.stored_metrics import to_store
from lungsynth.registry.succession import holder_of, settle
from lungsynth.text import printable
from lungsynth.verdict.record import Verdict

PUBLISHED = (
    "report.html",
    "model_card.md",
    "samples.png",
    "progress.gif",
    "scorecard.json",
    "verdict.json",
    "cohort.csv",
    "series.csv",
)
"""What of a report folder goes to the server: nothing that names a patient, so not `cohort.parquet`."""


@dataclass(frozen=True)
class Champion:
    """The generator that holds the alias, downloaded so that it can be sampled."""

    version: int
    package: GeneratorPackage


class Registration(BaseModel):
    """What the registry did with a verdict."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    tracking_uri: str
    """Where the run lies; absolute, and without a password."""
    run_id: str
    model_name: str
    version: int | None
    """None where the gate refused."""
    alias: str | None
    """The alias, where it points to this version now."""
    message: str


def check_champion(config: RegistryConfig, planned: GeneratorCard, task: TaskName) -> None:
    """Refuse a planned generator, before it is trained, that could not be registered or compared with the champion.

    Raises:
        LungsynthError: see `check_registry`; or the champion draws something else.
    """
    check_registry(config)
    with connect(config) as client, TemporaryDirectory() as folder:
        holder = holder_of(client, config.model_name, config.alias)
        if holder is None:
            return
        uri = f"{package_uri(holder)}/generator.json"
        card = GeneratorPackage(Path(mlflow.artifacts.download_artifacts(uri, dst_path=folder)).parent).card
        _check_comparable(version_name(holder, config), card, planned, task=task)


def find_champion(
    config: RegistryConfig, challenger: GeneratorPackage, task: TaskName, *, folder: Path
) -> Champion | None:
    """Download the package of the champion that `challenger` has to beat into `folder`.

    If an earlier run broke off between registering its generator and giving it the alias, that is completed first.

    Returns:
        None where there is no champion, or where it is the challenger itself.

    Raises:
        LungsynthError: see `check_registry`; or the champion was not registered by this project, is damaged or draws
            something else, so that it cannot be compared with this generator in this task.
    """
    check_registry(config)
    with connect(config) as client:
        holder = settle(client, config.model_name, config.alias)
        if holder is None or holder.tags.get("weights_sha256") == challenger.sha256:
            return None
        name = version_name(holder, config)
        check_package(client, holder, config)  # `settle` may have changed the holder
        package = GeneratorPackage(Path(mlflow.artifacts.download_artifacts(package_uri(holder), dst_path=str(folder))))
    if package.sha256 != holder.tags["weights_sha256"]:
        raise LungsynthError(f"the package of {name} does not match its tag weights_sha256: register it anew")
    _check_comparable(name, package.card, challenger.card, task=task)
    return Champion(int(holder.version), package)


def register(
    package: GeneratorPackage,
    scorecard: Scorecard,
    verdict: Verdict,
    *,
    champion: Champion | None,
    data_sha256: str,
    code_version: str,
    config: RegistryConfig,
) -> Registration:
    """Record the verdict as an MLflow run; where it is `promote`, make a model version and move the alias to it.

    A package that was registered before, with the same protocol, data and champion, keeps its version: a registration
    that broke off is completed by repeating it. Of runs that were compared with the same champion by the same test, the
    one with the best score gets the alias, whichever ends first.

    Raises:
        LungsynthError: the server does not answer or refuses.
    """
    tags = {
        "gate_result": verdict.outcome,
        "gate_rule": verdict.rule,
        "weights_sha256": package.sha256,
        "data_sha256": data_sha256,
        "protocol_sha256": verdict.protocol_sha256,
        "code_version": code_version,
        "compared_with": str(champion.version) if champion else "none",
        "score": f"{verdict.score.value:.6f}",
    }
    compared = f"version {champion.version}" if champion else "none"
    reason = printable(verdict.reason, longest=4000)  # it may name makers of scanners, as DICOM has them
    params = {"candidate_arm": verdict.candidate_arm, "baseline_arm": verdict.baseline_arm, "champion": compared}
    metrics = to_store((*scorecard.metrics, *verdict.numbers))
    name = f"{verdict.outcome} {package.sha256[:8]}"
    with connect(config) as client, _run(client, name, {**tags, "gate_reason": reason}, config) as run_id:
        mlflow.log_params(params)
        mlflow.log_metrics(metrics)
        version, alias, message = None, None, f"{config.model_name}: no version was registered ({verdict.outcome})"
        if verdict.outcome == "promote":
            version = _existing_version(client, tags, config) or _new_version(package, metrics, tags, config=config)
            alias, message = _give_alias(client, version, champion, config=config)
        return Registration(
            tracking_uri=shown(mlflow.get_tracking_uri()),
            run_id=run_id,
            model_name=config.model_name,
            version=version,
            alias=alias,
            message=message,
        )


def attach_report(registration: Registration, folder: Path, config: RegistryConfig) -> None:
    """Put the files of a report folder that are in `PUBLISHED` beside the numbers of its MLflow run.

    Raises:
        LungsynthError: the server does not answer or refuses.
    """
    with connect(config) as client:
        for path in (folder / name for name in PUBLISHED):
            if path.exists():
                client.log_artifact(registration.run_id, str(path))


@contextmanager
def _run(client: MlflowClient, name: str, tags: dict[str, str], config: RegistryConfig) -> Iterator[str]:
    """Start a run in the configured experiment, together with its tags; gives its id."""
    with mlflow.start_run(experiment_id=experiment_of(client, config), run_name=name, tags=tags) as run:
        yield run.info.run_id


def _check_comparable(champion: str, theirs: GeneratorCard, ours: GeneratorCard, *, task: TaskName) -> None:
    remedy = "set another registry.model_name"
    for one, other in zip(_drawn(theirs), _drawn(ours), strict=True):
        if one != other:
            raise LungsynthError(f"{champion} draws {one}, and this generator {other}: {remedy}")
    if task == "segmentation" and not theirs.generator.masks:
        raise LungsynthError(f"{champion} draws no masks, which utility.task segmentation needs: {remedy}")


def _drawn(card: GeneratorCard) -> tuple[str, str, str]:
    """What champion and challenger must have in common: classes, size and grey values, in words."""
    window = "pictures without HU" if card.window_hu is None else "{:g} to {:g} HU".format(*card.window_hu)
    return "/".join(card.generator.classes) or "no classes", f"{card.generator.size} pixels", window


def _existing_version(client: MlflowClient, tags: dict[str, str], config: RegistryConfig) -> int | None:
    """The newest version of the same package that passed the same test against the same champion.

    The champion itself keeps its version, whatever it was compared with. Otherwise another comparison makes another
    version, since the tags of a version never change: other runs decide by them at the same time, see `settle`.
    """
    keys = ("weights_sha256", "protocol_sha256", "data_sha256")
    same = " and ".join([f"name = '{config.model_name}'", *(f"tags.{key} = '{tags[key]}'" for key in keys)])
    holder = holder_of(client, config.model_name, config.alias)
    found = {int(version.version): version.tags["compared_with"] for version in client.search_model_versions(same)}
    if holder and int(holder.version) in found:
        return int(holder.version)
    return max((number for number, compared in found.items() if compared == tags["compared_with"]), default=None)


def _new_version(
    package: GeneratorPackage, metrics: dict[str, float], tags: dict[str, str], *, config: RegistryConfig
) -> int:
    """Log the model and its metrics to the active run, and register it; MLflow writes version and tags in one step."""
    model_id = log_generator(package).model_id
    mlflow.log_metrics(metrics, model_id=model_id)
    return int(mlflow.register_model(f"models:/{model_id}", config.model_name, tags=tags).version)


def _give_alias(
    client: MlflowClient, version: int, champion: Champion | None, *, config: RegistryConfig
) -> tuple[str | None, str]:
    """Point the alias to `version`, unless another version is better; see `settle`.

    Returns:
        The alias, where it points to this version now, and what happened.
    """
    holder = settle(client, config.model_name, config.alias, mine=version)
    held = int(holder.version) if holder else None
    here = f"{config.model_name} version {version}"
    if held == version:
        return config.alias, f"{here} is {config.alias}"
    now, then = (f"version {number}" if number else "no version" for number in (held, champion and champion.version))
    return None, (
        f"{here} was registered without the alias: {config.alias} is {now} by now, "
        f"and this run was compared with {then}; run the pipeline again"
    )
