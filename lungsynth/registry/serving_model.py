"""Synthetic lung slices by class: an MLflow model that loads with none of the code that trained it.

    model = mlflow.pyfunc.load_model("models:/lung-ct-generator@champion")
    slices = model.predict(pd.DataFrame({"label": ["cancer", "non-cancer"]}), params={"seed": 3})

`slices` is uint8, N×H×W. `model.metadata.metadata` names the `classes`, and the `window_hu` (low, high) that 0 to 255
maps linearly to (None of radiographs). Row i depends on the seed, on i and on its label alone, not on the rows around
it: a longer table begins with the images of a shorter one. A seed gives the slices that the project's own sampler gives
for it: any whole number from 0 to 2⁶⁴ - 1, all of whose bits count.

What torch keeps for the whole process (default dtype and device, autocast, gradients) changes nothing: slices are drawn
on the CPU, in float32. Threads may draw at once.

Research only: not a medical device, and no image shows a real patient.
"""

import operator
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pandas as pd
import torch
from mlflow.models import set_model
from mlflow.pyfunc.model import PythonModel, PythonModelContext

CHUNK = 64  # rows that go through the network at once, always that many, since kernels round by batch size


class LungSliceGenerator(PythonModel):
    """Draws one slice per row of a table with a column `label`."""

    def load_context(self, context: PythonModelContext) -> None:
        """Open the exported network; the model configuration names the classes and the length of a latent vector."""
        self.classes: list[str] = context.model_config["classes"]
        self.latent_size: int = context.model_config["latent_size"]
        with _on_the_cpu():
            self.network = torch.export.load(context.artifacts["generator"]).module()

    def predict(
        self, context: PythonModelContext, model_input: pd.DataFrame, params: dict[str, Any] | None = None
    ) -> np.ndarray:
        """Images for the labels in `model_input`, uint8, N×H×W.

        Raises:
            ValueError: a label is none of the classes, or the seed is no whole number from 0 to 2⁶⁴ - 1.
        """
        seed = _checked((params or {}).get("seed", 0))
        codes = self._codes(model_input["label"])
        padded = np.zeros(-(-len(codes) // CHUNK) * CHUNK, dtype=np.int64)
        padded[: len(codes)] = codes
        latents = _latents(seed, len(padded), self.latent_size)
        with _on_the_cpu(), torch.inference_mode():
            chunks = zip(latents.split(CHUNK), torch.from_numpy(padded).split(CHUNK), strict=True)
            images = torch.cat([_to_grey(self.network(z, labels)) for z, labels in chunks])
        return images[: len(codes)].numpy()

    def _codes(self, labels: pd.Series) -> np.ndarray:
        unknown = sorted({str(label) for label in labels} - set(self.classes))
        if unknown:
            raise ValueError(f"unknown label {', '.join(unknown)}; this model draws {', '.join(self.classes)}")
        if len(labels) == 0:
            raise ValueError("the table has no rows; give one label for each image")
        return np.array([self.classes.index(label) for label in labels], dtype=np.int64)


@contextmanager
def _on_the_cpu() -> Iterator[None]:
    with torch.device("cpu"), torch.autocast("cpu", enabled=False):
        yield


def _checked(seed: Any) -> int:
    remedy = f"give a whole number from 0 to 2⁶⁴ - 1, {2**64 - 1}"
    try:
        number = operator.index(seed)
    except TypeError:
        number = None
    if number is None or isinstance(seed, bool):
        raise ValueError(f"seed is of the type {type(seed).__name__}; {remedy}")
    if not 0 <= number < 2**64:
        raise ValueError(f"seed is {'negative' if number < 0 else '2⁶⁴ or more'}; {remedy}")
    return number


def _latents(seed: int, count: int, length: int) -> torch.Tensor:
    if seed < 2**32:
        rng = torch.Generator("cpu").manual_seed(seed)
        return torch.randn(count, length, generator=rng, dtype=torch.float32, device="cpu")
    # torch's generator keeps 32 bits of a seed, NumPy's all.
    return torch.from_numpy(np.random.default_rng(seed).standard_normal((count, length), dtype=np.float32))


def _to_grey(images: torch.Tensor) -> torch.Tensor:
    return ((images[:, 0] + 1) * 127.5).round().clamp(0, 255).to(torch.uint8)


set_model(LungSliceGenerator())
