"""How to use a registered generator: lines to copy, which work from any folder."""

import json
from collections.abc import Sequence
from urllib.parse import unquote

from lungsynth.registry.mlflow_registry import Registration


def usage(registration: Registration, classes: Sequence[str]) -> str:
    """Python that draws a slice of each class with the version that was registered; nothing where none was.

    MLflow's own default address is another one in every folder, and wrong where the path has a space, an umlaut, `#` or
    `%`; so the address is written out, quoted as Python reads it.
    """
    if registration.version is None:
        return ""
    uri = registration.tracking_uri
    which = f"@{registration.alias}" if registration.alias else f"/{registration.version}"
    model = _quoted(f"models:/{registration.model_name}{which}")
    lines = ["import mlflow", "import pandas as pd", "", f"mlflow.set_tracking_uri({_quoted(uri)})"]
    if uri.startswith("sqlite") and unquote(uri) != uri:  # MLflow reads %20 in a file's name as a space: load a copy
        lines = ["import tempfile", "", *lines]
        model += ", dst_path=tempfile.mkdtemp()"
    table = f'pd.DataFrame({{"label": {list(classes)!r}}})'
    lines += [f"model = mlflow.pyfunc.load_model({model})", f'slices = model.predict({table}, params={{"seed": 3}})']
    return "\n".join(lines)


def _quoted(text: str) -> str:
    """As JSON and Python alike write it."""
    return json.dumps(text, ensure_ascii=False)
