"""A private copy of the project for tests that run the pipeline: none touches the user's outputs, data or stacks."""

import os
import re
import shutil
import tempfile
from collections.abc import Callable
from itertools import groupby
from pathlib import Path
from subprocess import CompletedProcess

import pandas as pd
import pydicom
import pytest
from warm import run_warm

pytest_plugins = ("ct_series", "radiograph_files", "s3_store", "remote_services")
ROOT = Path(__file__).parents[1]
MIRROR = ROOT.parent / "shared" / "idc-mirror"


def pytest_configure() -> None:
    """Tests that compile the pipeline in this process must not touch the user's ZenML, nor each other's `.zen`."""
    home = tempfile.mkdtemp(prefix="lungsynth-zenml-")
    os.environ["ZENML_CONFIG_PATH"] = os.environ["ZENML_REPOSITORY_PATH"] = home
    os.environ["ZENML_ANALYTICS_OPT_IN"] = "false"
    os.environ["ZENML_LOGGING_COLORS_DISABLED"] = "true"  # read when ZenML is imported, for `warm` once for all


HEAVY = re.compile(
    r"\b(train_\w+|brief_run|tiny_package|measure_utility|measure_fidelity|audit_privacy|build_slices|build_shard"
    r"|run_pipeline|IndexSource|idc_index|select_idc|s3_mirror|bucket|fault_proxy|serve|services|create_stack|mlflow|MlflowClient|subprocess|Fabric)\b"
)
"""Words of test files that train, cut whole cohorts, or start a server or a process: `make check` leaves these out."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark the tests of such files `heavy`, and begin with the longest files: none should be the last one alone."""
    longest = {"pipelines", "targets", "test_planted.py"}
    items.sort(key=lambda item: not longest & {item.path.parent.name, item.path.name})
    for path, tests in groupby(items, key=lambda item: item.path):
        if HEAVY.search(path.read_text()):
            for test in tests:
                test.add_marker("heavy")


@pytest.fixture(scope="session")
def mirror() -> Path:
    """Real DICOM series of the Imaging Data Commons; tests on them are skipped where they are missing."""
    if not MIRROR.is_dir():
        pytest.skip(f"real series are not here: {MIRROR} is missing")
    return MIRROR


@pytest.fixture(scope="session")
def mirror_series(mirror: Path) -> dict[str, Path]:
    """Folder of each CT series of the mirror by its Series Instance UID."""
    series = {}
    for folder in sorted((mirror / "idc-open-data").iterdir()):
        header = pydicom.dcmread(next(folder.iterdir()), stop_before_pixels=True)
        if header.Modality == "CT":
            series[header.SeriesInstanceUID] = folder
    return series


@pytest.fixture(scope="session")
def mirror_labels(mirror: Path) -> pd.DataFrame:
    """Labels of single slices of the mirror's series."""
    table = pd.read_csv(mirror / "slice_labels.csv")
    names = {"SeriesInstanceUID": "series_uid", "SOPInstanceUID": "sop_uid", "label": "label"}
    return table.rename(columns=names)[list(names.values())]


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the pipeline in an empty folder; the library itself is imported from this checkout."""
    folder = tmp_path_factory.mktemp("project")
    for name in ("pipelines", "steps", "configs"):
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copyfile(ROOT / "gan_augmentation.py", folder / "gan_augmentation.py")
    return folder


@pytest.fixture(scope="module")
def zenml_environment(project: Path) -> dict[str, str]:
    """The environment of `zenml` in `project`, with a ZenML home of its own."""
    return os.environ | {"ZENML_CONFIG_PATH": str(project / ".zenml")}


@pytest.fixture(scope="module")
def run_pipeline(project: Path, zenml_environment: dict[str, str]) -> Callable[..., CompletedProcess[str]]:
    """Runs `zenml pipeline run gan_augmentation` in `project`, in a warm process."""

    def run(*arguments: str, **environment: str) -> CompletedProcess[str]:
        command = ("pipeline", "run", "gan_augmentation", *arguments)
        return run_warm("zenml", command, folder=project, environment=zenml_environment | environment, merged=True)

    return run
