"""Small generators, the verdicts on them, and an MLflow database."""

import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest
import torch
from mlflow import MlflowClient

from lungsynth.dataset.vocabulary import CLASSES
from lungsynth.evaluation.quantities import COMPARED, GAIN, KID
from lungsynth.evaluation.scorecard import Metric, Scorecard
from lungsynth.generators.dcgan import DcganConfig, Generator
from lungsynth.generators.package import GeneratorCard, GeneratorPackage
from lungsynth.registry.connection import RegistryConfig
from lungsynth.verdict.comparison import CHOSEN
from lungsynth.verdict.record import Gain, Verdict

ARM = "real+classical+synthetic@1"
RULES = {"promote": "gain", "reject": "no gain", "blocked": "privacy", "underpowered": "test patients"}


@pytest.fixture(scope="session")
def make_package() -> Callable[..., GeneratorPackage]:
    """Writes an untrained generator, of 32 pixels where nothing else is asked for."""

    def make(
        folder: Path, seed: int, window_hu: tuple[float, float] | None = (-1350, 150), **changes: object
    ) -> GeneratorPackage:
        config = DcganConfig.model_validate({"size": 32, "nz": 16, "ngf": 4, "classes": CLASSES} | changes)
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            generator = Generator(config).eval()
        return GeneratorPackage.write(folder, generator, GeneratorCard(generator=config, window_hu=window_hu))

    return make


@pytest.fixture(scope="session")
def make_verdict() -> Callable[..., Verdict]:
    """A verdict of the given outcome, under the given protocol."""

    def make(outcome: str = "promote", protocol: str = "p1") -> Verdict:
        bounds = {"low": 0.01, "high": 0.05, "computed_with": "bootstrap"}
        gain = Metric(quantity=GAIN["AUROC"], rival="baseline", value=0.03, **bounds)
        return Verdict(
            outcome=outcome,
            reason=f"It was {outcome}.",
            rule=RULES[outcome],
            candidate_arm=ARM,
            baseline_arm="real+classical",
            measure="AUROC",
            test_patients=(),
            score=Metric(quantity=COMPARED["AUROC"], arm=CHOSEN, value=0.83, computed_with="bootstrap"),
            chosen=(),
            gains=(Gain(gain=gain),),
            protocol_sha256=protocol,
        )

    return make


@pytest.fixture(scope="session")
def scorecard() -> Scorecard:
    interval = {"low": 0.78, "high": 0.88, "n": {"patients": 40}, "computed_with": "bootstrap"}
    auroc = Metric(quantity=COMPARED["AUROC"], arm=ARM, value=0.83, **interval)
    kid = Metric(quantity=KID, extractor="lung", class_name="cancer", value=0.02, computed_with="torch-fidelity")
    return Scorecard(metrics=(auroc, kid))


@pytest.fixture(scope="session")
def empty_database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A database with MLflow's tables, which take seconds to create."""
    path = tmp_path_factory.mktemp("mlflow") / "mlflow.db"
    MlflowClient(f"sqlite:///{path}").search_experiments()
    return path


@pytest.fixture(scope="session")
def make_config(empty_database: Path) -> Callable[[Path], RegistryConfig]:
    """A registry of its own in the given folder."""

    def make(folder: Path) -> RegistryConfig:
        with closing(sqlite3.connect(empty_database)) as empty, closing(sqlite3.connect(folder / "mlflow.db")) as copy:
            empty.backup(copy)
        return RegistryConfig(tracking_uri=f"sqlite:///{folder / 'mlflow.db'}")

    return make


@pytest.fixture
def config(make_config: Callable[[Path], RegistryConfig], tmp_path: Path) -> RegistryConfig:
    return make_config(tmp_path)
