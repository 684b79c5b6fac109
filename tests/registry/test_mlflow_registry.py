"""The registry on a real MLflow database: what becomes a run, a version and a champion."""

from collections.abc import Callable
from pathlib import Path

import mlflow
import numpy as np
import pytest
from mlflow import MlflowClient

from lungsynth.errors import LungsynthError
from lungsynth.evaluation.scorecard import Scorecard
from lungsynth.generators.package import GeneratorPackage
from lungsynth.registry import mlflow_registry
from lungsynth.registry.connection import RegistryConfig
from lungsynth.registry.mlflow_registry import (
    Champion,
    Registration,
    attach_report,
    check_champion,
    find_champion,
    register,
)
from lungsynth.verdict.record import Verdict

pytestmark = [
    pytest.mark.filterwarnings("ignore:.*Any type hint is inferred as AnyType:UserWarning"),  # at MLflow's own import
    pytest.mark.filterwarnings("ignore:Operation with range is deprecated"),  # MLflow's input example, pandas 3
]


def champion_version(client: MlflowClient) -> int:
    return int(client.get_model_version_by_alias("lung-ct-generator", "champion").version)


@pytest.fixture
def another(make_package: Callable[..., GeneratorPackage], tmp_path: Path) -> GeneratorPackage:
    """A challenger that is nobody's champion."""
    return make_package(tmp_path / "another", seed=9)


@pytest.fixture
def client(config: RegistryConfig) -> MlflowClient:
    return MlflowClient(config.tracking_uri)


@pytest.fixture
def package(make_package: Callable[..., GeneratorPackage], tmp_path: Path) -> GeneratorPackage:
    return make_package(tmp_path / "first", seed=1)


@pytest.fixture(scope="module")
def reigning(make_config, make_package, make_verdict, scorecard, tmp_path_factory) -> RegistryConfig:
    """A registry whose champion draws 32 pixels of two classes, without masks."""
    folder = tmp_path_factory.mktemp("reigning")
    config, package = make_config(folder), make_package(folder / "package", seed=1)
    register(package, scorecard, make_verdict(), champion=None, data_sha256="d1", code_version="0.1.0", config=config)
    return config


@pytest.fixture
def run_register(scorecard: Scorecard, config: RegistryConfig) -> Callable[..., Registration]:
    """Registers a generator with the scorecard and the provenance that all tests share."""

    def run(package: GeneratorPackage, verdict: Verdict, champion: Champion | None = None) -> Registration:
        return register(
            package, scorecard, verdict, champion=champion, data_sha256="d1", code_version="0.1.0", config=config
        )

    return run


@pytest.mark.parametrize("outcome", ["reject", "blocked", "underpowered"])
def test_refused_generator_becomes_a_run_and_nothing_else(outcome, package, client, make_verdict, run_register):
    registration = run_register(package, make_verdict(outcome))

    run = client.get_run(registration.run_id)
    assert run.info.status == "FINISHED"
    assert run.data.tags["gate_result"] == outcome
    assert run.data.tags["gate_reason"] == f"It was {outcome}."
    assert run.data.metrics["gain/baseline.low"] == 0.01
    assert (registration.version, registration.alias) == (None, None)
    assert outcome in registration.message
    assert client.search_registered_models() == []


def test_promoted_generator_becomes_the_champion_with_its_evidence(
    package, client, tmp_path, make_verdict, run_register
):
    registration = run_register(package, make_verdict())

    version = client.get_model_version_by_alias("lung-ct-generator", "champion")
    assert (registration.version, registration.alias) == (int(version.version), "champion")
    assert version.run_id == registration.run_id
    assert version.tags == {
        "gate_result": "promote",
        "gate_rule": "gain",
        "weights_sha256": package.sha256,
        "data_sha256": "d1",
        "protocol_sha256": "p1",
        "code_version": "0.1.0",
        "compared_with": "none",
        "score": "0.830000",
        "was_champion": "true",
    }
    metrics = client.get_logged_model(version.source.removeprefix("models:/")).metrics
    assert {metric.key: metric.value for metric in metrics}["auroc/real_classical_synthetic_1.high"] == 0.88
    assert {path.name for path in tmp_path.iterdir()} == {"first", "mlflow.db", "mlartifacts"}


def test_second_registration_finds_the_version_of_the_first(package, client, make_verdict, run_register):
    first = run_register(package, make_verdict())
    second = run_register(package, make_verdict())

    assert (second.version, second.alias) == (first.version, "champion")
    assert second.run_id != first.run_id
    assert len(client.search_model_versions()) == 1


@pytest.fixture
def dethroned(package, make_verdict, make_package, run_register, tmp_path):
    """Version 2 holds the alias, which `package` held as version 1."""
    run_register(package, make_verdict())
    better = make_package(tmp_path / "better", seed=2)
    assert run_register(better, make_verdict(), Champion(1, package)).alias == "champion"
    return Champion(2, better)


def test_a_version_that_beats_its_successor_when_run_again_is_champion(
    package, client, dethroned, make_verdict, run_register
):
    registration = run_register(package, make_verdict(), dethroned)

    assert (registration.version, registration.alias) == (3, "champion")
    assert client.get_model_version("lung-ct-generator", "3").tags["compared_with"] == "2"
    assert client.get_model_version("lung-ct-generator", "1").tags["compared_with"] == "none"


def test_a_champion_run_again_keeps_its_version_whomever_it_beat(
    config, client, dethroned, tmp_path, make_verdict, run_register
):
    assert find_champion(config, dethroned.package, "classification", folder=tmp_path / "champion") is None
    registration = run_register(dethroned.package, make_verdict())

    assert (registration.version, registration.alias) == (2, "champion")
    assert len(client.search_model_versions()) == 2


@pytest.fixture
def broken_off(package, monkeypatch, make_verdict, run_register):
    """A registration of `package` that a crash ended before the alias was given."""

    def break_off(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(mlflow_registry, "settle", break_off)
        with pytest.raises(KeyboardInterrupt):
            run_register(package, make_verdict())


@pytest.mark.usefixtures("broken_off")
def test_registration_that_broke_off_before_the_alias_is_completed(package, client, make_verdict, run_register):
    assert client.search_registered_models()[0].aliases == {}

    registration = run_register(package, make_verdict())
    assert registration.version == champion_version(client)
    assert len(client.search_model_versions()) == 1


@pytest.mark.usefixtures("broken_off")
def test_registration_that_broke_off_is_completed_by_the_next_run_of_anybody(
    package, another, config, client, tmp_path
):
    assert (
        find_champion(config, another, "classification", folder=tmp_path / "champion").package.sha256 == package.sha256
    )
    assert champion_version(client) == 1


def test_another_protocol_makes_another_version(package, make_verdict, run_register):
    run_register(package, make_verdict())
    registration = run_register(package, make_verdict(protocol="p2"))

    assert (registration.version, registration.alias) == (2, "champion")


def test_champion_can_be_sampled_from_its_download(another, package, config, tmp_path, make_verdict, run_register):
    run_register(package, make_verdict())

    champion = find_champion(config, another, "classification", folder=tmp_path / "champion")
    assert champion.version == 1
    assert champion.package.folder.is_relative_to(tmp_path / "champion")
    labels = np.array([0, 1, 1])
    np.testing.assert_array_equal(champion.package.sample(labels, seed=5), package.sample(labels, seed=5))


def test_no_champion_where_there_is_none_or_it_is_this_generator(
    another, package, config, tmp_path, make_verdict, run_register
):
    assert find_champion(config, another, "classification", folder=tmp_path / "champion") is None
    run_register(package, make_verdict())
    assert find_champion(config, package, "classification", folder=tmp_path / "champion") is None


def test_better_generator_takes_the_alias_from_the_champion_it_beat(
    package, config, client, tmp_path, make_verdict, make_package, run_register
):
    run_register(package, make_verdict())
    better = make_package(tmp_path / "second", seed=2)
    champion = find_champion(config, better, "classification", folder=tmp_path / "champion")
    registration = run_register(better, make_verdict(), champion)

    assert (registration.version, registration.alias) == (2, "champion")
    assert client.get_run(registration.run_id).data.params["champion"] == "version 1"


@pytest.mark.parametrize("compared", ["none", "earlier"])
def test_alias_stays_where_another_champion_came_in_between(
    compared, package, config, client, tmp_path, make_verdict, make_package, run_register
):
    champion = None
    if compared == "earlier":
        run_register(make_package(tmp_path / "earlier", seed=3), make_verdict())
        champion = find_champion(config, package, "classification", folder=tmp_path / "champion")
    rival = make_package(tmp_path / "rival", seed=4)
    rival_version = run_register(rival, make_verdict(), champion).version
    registration = run_register(package, make_verdict(), champion)

    assert registration.version == rival_version + 1
    assert registration.alias is None
    assert f"champion is version {rival_version} by now" in registration.message
    assert champion_version(client) == rival_version


@pytest.mark.parametrize(
    ("changes", "task", "says"),
    [
        ({"classes": ("NORMAL", "PNEUMONIA")}, "classification", "draws non-cancer/cancer, and this generator NORMAL/"),
        ({"size": 64}, "classification", "draws 32 pixels, and this generator 64 pixels"),
        ({"window_hu": (-1000, 400)}, "classification", "draws -1350 to 150 HU, and this generator -1000 to 400 HU"),
        ({"window_hu": None}, "classification", "draws -1350 to 150 HU, and this generator pictures without HU"),
        ({"masks": True}, "segmentation", "draws no masks, which utility.task segmentation needs"),
    ],
)
def test_champion_that_cannot_be_compared_is_refused_before_and_after_a_training(
    changes, task, says, reigning, make_package, tmp_path
):
    rival = make_package(tmp_path / "rival", seed=2, **changes)
    line = f"^version 1 of lung-ct-generator at sqlite:.*mlflow.db {says}.*: set another registry.model_name$"
    with pytest.raises(LungsynthError, match=line):
        check_champion(reigning, rival.card, task)
    with pytest.raises(LungsynthError, match=line):
        find_champion(reigning, rival, task, folder=tmp_path / "champion")


def test_champion_that_can_be_compared_is_no_reason_not_to_train(reigning, make_package, tmp_path):
    check_champion(reigning, make_package(tmp_path / "rival", seed=2, nz=8, masks=True).card, "classification")


def test_no_champion_is_no_reason_not_to_train(config, package):
    check_champion(config, package.card, "segmentation")


def test_champion_that_was_tampered_with_is_refused(package, config, client, tmp_path, make_verdict, run_register):
    run_register(package, make_verdict())
    client.set_model_version_tag("lung-ct-generator", "1", "weights_sha256", "0" * 64)
    with pytest.raises(LungsynthError, match="does not match its tag weights_sha256"):
        find_champion(config, package, "classification", folder=tmp_path / "champion")


def test_champion_of_other_origin_is_refused(another, config, client, tmp_path):
    client.create_registered_model("lung-ct-generator")
    client.create_model_version("lung-ct-generator", str(tmp_path))
    client.set_registered_model_alias("lung-ct-generator", "champion", "1")
    with pytest.raises(LungsynthError, match=r"version 1 of lung-ct-generator .* has no generator package"):
        find_champion(config, another, "classification", folder=tmp_path / "champion")


def test_report_is_attached_without_the_cohort_that_names_patients(
    package, config, client, tmp_path, make_verdict, run_register
):
    registration = run_register(package, make_verdict("reject"))
    report = tmp_path / "report"
    report.mkdir()
    for name in ("report.html", "samples.png", "verdict.json", "cohort.csv", "cohort.parquet"):
        (report / name).write_bytes(b"content")
    attach_report(registration, report, config)

    attached = {artifact.path for artifact in client.list_artifacts(registration.run_id)}
    assert attached == {"report.html", "samples.png", "verdict.json", "cohort.csv"}


def test_tracking_uri_of_the_process_is_put_back(package, make_verdict, run_register):
    before = mlflow.get_tracking_uri()
    run_register(package, make_verdict("reject"))
    assert mlflow.get_tracking_uri() == before
