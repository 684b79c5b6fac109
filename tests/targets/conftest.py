"""A clone of the project from which runs go to the mini cluster, as from a user's laptop."""

import shutil
from collections.abc import Callable
from pathlib import Path
from subprocess import CompletedProcess

import pytest
import yaml
from remote_services import Services
from warm import run_warm

ROOT = Path(__file__).parents[2]
TINY = ROOT / "tests" / "pipelines" / "tiny.yaml"


@pytest.fixture(scope="session")
def clone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What a pod needs of the project: ZenML carries the folder there."""
    folder = tmp_path_factory.mktemp("clone")
    for name in ("lungsynth", "pipelines", "steps", "configs"):
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copyfile(ROOT / "gan_augmentation.py", folder / "gan_augmentation.py")
    return folder


@pytest.fixture(scope="session")
def run_on(services: Services, clone: Path) -> Callable[..., CompletedProcess[str]]:
    """Runs the pipeline with `tiny.yaml`, or what `changed` makes of it, on a target; settings make the tests quick."""

    def run(target: str, changed: Callable[[dict], None] = lambda content: None, **environment: str):
        content = yaml.safe_load(TINY.read_text())
        content["parameters"]["training"]["threads"] = 1
        content["settings"] = {"orchestrator.kubernetes": {"job_monitoring_interval": 1, "max_parallelism": 2}}
        content |= {"target": target}
        changed(content)
        (clone / f"{target}.run.yaml").write_text(yaml.safe_dump(content))
        return run_warm(
            "zenml",
            ["pipeline", "run", "gan_augmentation", "-c", f"{target}.run.yaml", "-s", f"lungsynth-{target}"],
            folder=clone,
            environment=services.environment | environment,
            merged=True,
        )

    return run
