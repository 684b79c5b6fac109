"""The history of verdicts on a real MLflow database."""

import json
import socket
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml
from click.testing import CliRunner
from mlflow import MlflowClient
from rich.console import Console

from lungsynth.cli import main
from lungsynth.errors import LungsynthError
from lungsynth.evaluation.quantities import FID
from lungsynth.evaluation.scorecard import Metric, Scorecard
from lungsynth.generators.package import GeneratorPackage
from lungsynth.registry import mlflow_registry
from lungsynth.registry.connection import RegistryConfig
from lungsynth.registry.history import Correlation, Entry, history, rank_correlations
from lungsynth.registry.mlflow_registry import Champion, find_champion, register
from lungsynth.registry.tracking import tracked
from lungsynth.report.history import history_table
from lungsynth.verdict.record import Verdict

pytestmark = [
    pytest.mark.filterwarnings("ignore:.*Any type hint is inferred as AnyType:UserWarning"),  # at MLflow's own import
    pytest.mark.filterwarnings("ignore:Operation with range is deprecated"),  # MLflow's input example, pandas 3
]


@pytest.fixture(scope="module")
def registry(make_config, tmp_path_factory) -> RegistryConfig:
    return make_config(tmp_path_factory.mktemp("history"))


@pytest.fixture(scope="module")
def record(registry, make_package, make_verdict, scorecard, tmp_path_factory) -> Callable[..., None]:
    """Registers the generator of this seed with a verdict of this outcome."""
    folder = tmp_path_factory.mktemp("generators")
    numbers = (*scorecard.metrics, Metric(quantity=FID, extractor="lung", value=0.5, computed_with="planted"))

    def run(seed: int, outcome: str, verdict: Verdict | None = None, champion: Champion | None = None) -> None:
        path = folder / str(seed)
        package = GeneratorPackage(path) if path.exists() else make_package(path, seed=seed)
        register(
            package,
            Scorecard(metrics=numbers),
            verdict or make_verdict(outcome),
            champion=champion,
            data_sha256="d1",
            code_version="0.1.0",
            config=registry,
        )

    return run


@pytest.fixture(scope="module")
def entries(registry, record, make_package, make_verdict, tmp_path_factory) -> list[Entry]:
    """Of a year of runs: champion, three refusals, a crash between run and version, a better champion, a training."""
    record(1, "promote")
    record(2, "reject")
    record(3, "blocked")
    whole = make_verdict("underpowered")
    record(4, "underpowered", whole.model_copy(update={"gains": ()}))  # without a gain
    folder = tmp_path_factory.mktemp("champion")
    challenger = make_package(folder / "challenger", seed=5)
    champion = find_champion(registry, challenger, "classification", folder=folder / "download")

    def crash(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(mlflow_registry, "_new_version", crash)
        with pytest.raises(KeyboardInterrupt):
            record(5, "promote", champion=champion)
    record(6, "promote", champion=champion)
    with tracked(registry.model_copy(update={"track_training": True}), "a training", {}) as send:
        send({"kimg": 1.0, "loss": 0.3})
    return history(registry, last=50)


def test_every_verdict_is_there_newest_first_and_no_training(entries):
    outcomes = [entry.outcome for entry in entries]
    assert outcomes == ["promote", "promote", "underpowered", "blocked", "reject", "promote"]
    assert [entry.rule for entry in entries] == ["gain", "gain", "test patients", "privacy", "no gain", "gain"]
    assert [entry.when for entry in entries] == sorted((entry.when for entry in entries), reverse=True)


def test_only_promoted_generators_have_versions_and_one_holds_the_alias(entries):
    assert [(entry.version, entry.alias) for entry in entries] == [
        (2, "holds"),
        *[(None, None)] * 4,
        (1, "held"),
    ]


def test_registration_that_crashed_keeps_its_verdict(entries):
    assert [entry.complete for entry in entries] == [True, False, True, True, True, True]
    assert entries[1].reason == "It was promote."


def test_numbers_are_those_of_verdict_and_scorecard(entries):
    rejected, unmeasured = entries[4], entries[2]
    assert (rejected.gain, rejected.gain_low, rejected.gain_high) == (0.03, 0.01, 0.05)
    assert rejected.distances == {"fid_lung": 0.5}
    assert rejected.candidate_arm == "real+classical+synthetic@1"
    assert unmeasured.gain is None


def test_crashed_registration_shows_its_version_once_it_was_done_again(registry, record, entries):
    assert entries[1].version is None
    record(5, "promote")
    again, _, crashed = history(registry, last=3)
    assert (again.version, again.alias) == (crashed.version, crashed.alias) == (3, "never")
    assert (again.complete, crashed.complete) == (True, False)


GAINS = (0.01, 0.05, 0.02, 0.03, 0.06)


def measured(entry: Entry, inception: tuple[float, ...], **changes: str) -> list[Entry]:
    """Verdicts on five generators, each with distances by two extractors."""
    return [
        entry.model_copy(
            update={
                "distances": {"fid_lung": 1.0 + place, "fid_inception": value, "kid_lung": 0.1 * place},
                "gain": gain,
                "weights_sha256": f"{place}{changes}",
                **changes,
            }
        )
        for place, (value, gain) in enumerate(zip(inception, GAINS, strict=True))
    ]


def test_extractors_that_rank_generators_alike_correlate(entries):
    def ranked(inception: tuple[float, ...]) -> dict[tuple[str, str], Correlation]:
        planted = measured(entries[0], inception)
        again = planted[0].model_copy(update={"distances": {"fid_lung": 99.0, "fid_inception": 0.0}})  # an older run
        return {(one.first, one.second): one for one in rank_correlations([*planted, again])}

    alike = ranked((20.0, 21.0, 40.0, 41.0, 50.0))
    assert set(alike) == {
        ("fid_lung", "fid_inception"),
        *[(name, "gain") for name in ("fid_lung", "fid_inception", "kid_lung")],
    }
    agreed = alike["fid_lung", "fid_inception"]
    assert (agreed.rho, agreed.generators) == (pytest.approx(1), 5)
    turned = ranked((50.0, 41.0, 40.0, 20.0, 21.0))["fid_lung", "fid_inception"]
    assert turned.rho == pytest.approx(-0.9)
    assert turned.low == pytest.approx(-0.99, abs=0.02)
    assert turned.high > -0.5
    assert rank_correlations(entries[:4]) == []
    assert rank_correlations([]) == []


@pytest.mark.parametrize("other", [{"data_sha256": "a larger cohort"}, {"protocol_sha256": "another lung CNN"}])
def test_only_distances_on_one_scale_correlate(entries, other):
    newest = measured(entries[0], (20.0, 21.0, 40.0, 41.0, 50.0))
    older = measured(entries[0], (500.0, 410.0, 400.0, 210.0, 200.0), **other)
    assert rank_correlations([*newest, *older]) == rank_correlations(newest)
    assert rank_correlations([*newest[:4], *older]) == []


def test_an_entry_tells_what_it_was_measured_on(entries):
    assert {(entry.data_sha256, entry.protocol_sha256) for entry in entries} == {("d1", "p1")}


def test_table_fits_a_narrow_terminal(entries):
    console = Console(width=80, record=True)
    console.print(history_table(entries, "champion"))
    text = console.export_text()
    for shown in (
        "+0.030 (+0.010 to +0.050)",
        "not compared",
        "underpowered",
        "real+classical+synthetic@1",
        "unfinished",
    ):
        assert shown in text
    assert "…" not in text


@pytest.fixture
def run_file(tmp_path) -> Callable[[str], Path]:
    """Writes a run file with this tracking URI."""

    def write(uri: str) -> Path:
        path = tmp_path / "run.yaml"
        parameters = {"cohort": {"source": "phantom"}, "registry": {"tracking_uri": uri}}
        path.write_text(yaml.safe_dump({"parameters": parameters}))
        return path

    return write


@pytest.mark.usefixtures("entries")
def test_command_lists_what_the_run_files_registry_holds(registry, run_file):
    path = str(run_file(registry.tracking_uri))
    shown = CliRunner().invoke(main, ["history", "-c", path], env={"COLUMNS": "120"})
    assert shown.exit_code == 0, shown.output
    assert shown.output.index("test patients") < shown.output.index("no gain")
    listed = CliRunner().invoke(main, ["history", "-c", path, "--last", "2", "--json"])
    assert [entry["outcome"] for entry in json.loads(listed.stdout)] == ["promote", "promote"]


def test_no_database_is_one_line_and_stays_none(run_file, tmp_path):
    done = CliRunner().invoke(main, ["history", "-c", str(run_file(f"sqlite:///{tmp_path}/none/mlflow.db"))])
    assert done.exit_code == 0
    assert done.stdout == f"no verdict yet in experiment gan_augmentation at sqlite:///{tmp_path}/none/mlflow.db\n"
    assert [path.name for path in tmp_path.iterdir()] == ["run.yaml"]


def test_a_run_of_an_earlier_release_is_read_by_the_names_that_it_has(config):
    client = MlflowClient(config.tracking_uri)
    experiment = client.create_experiment(config.experiment)
    run = client.create_run(experiment, tags={"gate_result": "reject"})
    names = ("gain/baseline", "gain/baseline.low", "gain/baseline.high", "fid_inception", "fid_inception.low")
    for value, name in enumerate((*names, "fid_lung/cancer", "fid_ratio_lung", "kid_lung_clip")):
        client.log_metric(run.info.run_id, name, value)
    (entry,) = history(config, last=50)
    assert (entry.gain, entry.gain_low, entry.gain_high) == (0, 1, 2)
    assert entry.distances == {"fid_inception": 3}


def test_empty_database_has_no_verdict(config):
    assert history(config, last=50) == []


def test_silent_server_is_one_line(run_file):
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        uri = f"http://127.0.0.1:{closed.getsockname()[1]}"
    done = CliRunner().invoke(main, ["history", "-c", str(run_file(uri))])
    assert done.exit_code == 1
    assert f"MLflow at {uri} does not answer" in done.stderr
    assert done.stderr.count("\n") == 1


def test_file_that_is_no_database_is_an_error(tmp_path):
    (tmp_path / "mlflow.db").write_text("no database")
    with pytest.raises(LungsynthError, match="not a database"):
        history(RegistryConfig(tracking_uri=f"sqlite:///{tmp_path}/mlflow.db"), last=1)
