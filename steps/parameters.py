"""The parameters of the whole run, for what must not enter a step's cache key."""

from typing import Any

from zenml import get_step_context


def run_parameters() -> dict[str, Any]:
    """What the run file holds below `parameters`, with all defaults."""
    return get_step_context().pipeline_run.config.parameters or {}
