"""Dependencies in layers: training and sampling need little, the pipeline the rest, and no list names too much."""

import ast
import subprocess
import sys
import tomllib
from functools import cache
from importlib.metadata import packages_distributions, requires
from pathlib import Path

import pytest
from import_graph import GROUND, LIBRARY
from packaging.requirements import Requirement

ROOT = LIBRARY.parent
OWN = {"lungsynth", "pipelines", "steps", "docs"} | {
    name
    for folder in ("tests", "benchmarks")
    for path in (LIBRARY.parent / folder).rglob("*.py")
    for name in (path.stem, path.parent.name)
}
"""Modules of this repository."""
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
BASE = {"cli", "generators", "training", *GROUND} - {"hashing"}
"""Rooms and single files of the first layer, and of `dataset` the two files below; `hashing` is for tables."""
BASE_FILES = {"dataset/vocabulary.py", "dataset/mapped.py"}
OPTIONAL = {"matplotlib", "rich"}
"""What a file of the first layer imports in a function and does without."""
BROUGHT = {"pydantic_core": "pydantic", "botocore": "boto3"}
"""Modules that are part of a listed package's interface, and belong to a distribution that it brings."""


def names(requirements: list[str]) -> set[str]:
    """Names of the packages, without those that an extra of a package asks for."""
    read = map(Requirement, requirements)
    return {one.name for one in read if one.marker is None or one.marker.evaluate({"extra": ""})}


@cache
def distributions() -> dict[str, list[str]]:
    """By module, the distributions that bring it."""
    found = packages_distributions()
    return {module: [name.lower().replace("_", "-") for name in brought] for module, brought in found.items()}


def imported(path: Path) -> set[str]:
    """Third-party modules that a file imports, anywhere in it."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        modules = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        modules += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
        found |= {name.partition(".")[0] for name in modules}
    return found - set(sys.stdlib_module_names) - OWN


def is_base(path: Path) -> bool:
    place = path.relative_to(LIBRARY)
    return place.parts[0].removesuffix(".py") in BASE or place.as_posix() in BASE_FILES


def lacking(paths: list[Path], allowed: set[str]) -> set[str]:
    """`file: module` of imports that no distribution in `allowed` brings."""
    return {
        f"{path.relative_to(ROOT)}: {module}"
        for path in paths
        for module in imported(path)
        if not allowed & {*distributions().get(module, []), BROUGHT.get(module)}
    }


LAYERS = PROJECT["optional-dependencies"]
ALL = [*LIBRARY.rglob("*.py"), *(ROOT / "steps").glob("*.py"), *(ROOT / "pipelines").glob("*.py")]


def test_the_first_layer_is_what_training_and_sampling_need() -> None:
    assert names(PROJECT["dependencies"]) == {
        *("click", "filelock", "fsspec", "lightning-fabric", "numpy", "pillow"),
        *("pydantic", "pyyaml", "safetensors", "torch", "tqdm"),
    }
    base = [path for path in ALL if path.is_relative_to(LIBRARY) and is_base(path)]
    assert len(base) > 40
    needed = names(PROJECT["dependencies"])
    assert {one for one in lacking(base, needed) if one.rpartition(" ")[2] not in OPTIONAL} == set()


def test_the_pipeline_needs_what_it_lists() -> None:
    layers = [one for layer in ("pipeline", "kubernetes", "huggingface", "lungmask") for one in LAYERS[layer]]
    listed = names([*PROJECT["dependencies"], *layers])
    assert {one for one in lacking(ALL, listed) if not one.endswith(" lungmask")} == set()  # which is not installed


def test_developers_need_what_they_list() -> None:
    files = [path for folder in ("tests", "docs", "benchmarks") for path in (ROOT / folder).rglob("*.py")]
    layers = [one for layer in ("pipeline", "s3", "kubernetes", "dev") for one in LAYERS[layer]]
    assert lacking(files, names([*PROJECT["dependencies"], *layers])) == set()


def test_nothing_is_listed_that_nothing_imports() -> None:
    used = {name for path in ALL for module in imported(path) for name in distributions().get(module, [])}
    listed = names([*PROJECT["dependencies"], *LAYERS["pipeline"], *LAYERS["huggingface"]])
    assert listed - used == {"idc-index"}  # for users, beside its index in idc-index-data, which the pipeline reads


BLOCKED = """
import sys
class Missing:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {blocked!r}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)
sys.meta_path.insert(0, Missing())
{code}
"""
EVERYTHING = """
import importlib, pkgutil, lungsynth
for module in pkgutil.walk_packages(lungsynth.__path__, "lungsynth."):
    if module.name != "lungsynth.registry.serving_model":  # which MLflow runs
        importlib.import_module(module.name)
"""
SAMPLE = """
import sys; sys.path.insert(0, {tests!r})
from pathlib import Path
import numpy as np
from tiny_families import TINY, tiny_package
for name in TINY:
    assert tiny_package(name, Path({folder!r}) / name).sample(np.zeros(2, int), 0).shape == (2, 32, 32)
"""


def run(code: str, blocked: set[str]) -> subprocess.CompletedProcess[str]:
    program = BLOCKED.format(blocked=blocked, code=code)
    return subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)


def modules_above(lower: set[str], *extras: str) -> set[str]:
    """Modules of the packages that these extras list and that are not among `lower`."""
    own = names([requirement for extra in extras for requirement in LAYERS[extra]])
    return {module for module, found in distributions().items() if own & {*found} and not lower & {*found}}


@pytest.fixture(scope="module")
def pipelines_own() -> set[str]:
    """Modules of the packages that only the extra `pipeline` brings."""
    return modules_above(names(PROJECT["dependencies"]), "pipeline")


def test_the_library_is_imported_without_the_packages_of_developers_and_of_other_extras() -> None:
    lower = names([*PROJECT["dependencies"], *LAYERS["pipeline"]])
    brought = names([text for name in lower for text in requires(name) or ()])
    blocked = modules_above(lower | brought, "dev", "huggingface", "lungmask")
    assert {"pytest", "moto", "datasets"} <= blocked
    done = run(EVERYTHING, blocked)
    assert done.returncode == 0, done.stderr


def test_a_generator_is_sampled_without_the_packages_of_the_pipeline(pipelines_own: set[str], tmp_path: Path) -> None:
    assert {"pandas", "mlflow", "pydicom", "cv2", "sklearn", "zenml"} <= pipelines_own
    done = run(SAMPLE.format(tests=str(ROOT / "tests"), folder=str(tmp_path)), pipelines_own)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    ("arguments", "code", "text"),
    [
        (["--version"], 0, "lungsynth, version"),
        (["--help"], 0, "build-shard"),
        (["cohort"], 1, "is not installed: this command needs `pip install 'lungsynth[pipeline]'`"),
    ],
)
def test_the_command_starts_and_says_what_to_install(
    pipelines_own: set[str], arguments: list[str], code: int, text: str
) -> None:
    done = run(f"from lungsynth.cli import main; main({arguments!r}, prog_name='lungsynth')", pipelines_own)
    assert done.returncode == code
    assert text in done.stdout + done.stderr
    assert "Traceback" not in done.stderr
