"""Where ZenML finds the steps' sources, also in the processes of pytest-xdist, whose main module is no file."""

from pathlib import Path

from zenml.utils.source_utils import set_custom_source_root

set_custom_source_root(str(Path(__file__).parents[2]))
