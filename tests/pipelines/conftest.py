"""Where ZenML finds the steps' sources, also in the processes of pytest-xdist, whose main module is no file."""

from collections.abc import Callable
from pathlib import Path

import pytest
import yaml
from zenml.utils.source_utils import set_custom_source_root

set_custom_source_root(str(Path(__file__).parents[2]))

TRAININGS = ("generator", "training", "extractor", "fidelity", "privacy", "utility")


@pytest.fixture(scope="session")
def cut_short() -> Callable[[dict], None]:
    """Cuts every training of a run file's content down to what `tiny.yaml` has; slices are as small as there."""
    tiny = yaml.safe_load(Path(__file__).with_name("tiny.yaml").read_text())["parameters"]

    def cut(content: dict) -> None:
        parameters = content["parameters"]
        small = {"slices": {"size": tiny["slices"]["size"], "workers": 1}}
        for section, fields in ({name: tiny[name] for name in TRAININGS} | small).items():
            parameters[section] = parameters.get(section, {}) | fields

    return cut
