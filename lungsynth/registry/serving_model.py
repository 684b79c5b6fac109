"""Synthetic lung slices by class: an MLflow model that loads with none of the code that trained it.

    model = mlflow.pyfunc.load_model("models:/lung-ct-generator@champion")
    slices = model.predict(pd.DataFrame({"label": ["cancer", "non-cancer"]}), params={"seed": 3})

`slices` is uint8, N×H×W. `model.metadata.metadata` names the `classes`, and the `window_hu` (low, high) that 0 to 255
maps linearly to (None of radiographs). Row i depends on the seed, on i and on its label alone, not on the rows around
it: a longer table begins with the images of a shorter one. A seed gives the slices that the project's own sampler gives
for it.

Research only: not a medical device, and no image shows a real patient.
"""

from typing import Any

import numpy as np
import pandas as pd
import torch
from mlflow.models import set_model
from mlflow.pyfunc import PythonModel, PythonModelContext

CHUNK = 64  # rows that go through the network at once, always that many, since kernels round by batch size


class LungSliceGenerator(PythonModel):
    """Draws one slice per row of a table with a column `label`."""

    def load_context(self, context: PythonModelContext) -> None:
        """Open the exported network; the model configuration names the classes and the length of a latent vector."""
        self.classes: list[str] = context.model_config["classes"]
        self.latent_size: int = context.model_config["latent_size"]
        self.network = torch.export.load(context.artifacts["generator"]).module()

    def predict(
        self, context: PythonModelContext, model_input: pd.DataFrame, params: dict[str, Any] | None = None
    ) -> np.ndarray:
        """Images for the labels in `model_input`, uint8, N×H×W.

        Raises:
            ValueError: a label is none of the classes, or the seed is negative.
        """
        seed = int((params or {}).get("seed", 0))
        if seed < 0:
            raise ValueError(f"seed is {seed}; it must be 0 or more")
        codes = self._codes(model_input["label"])
        padded = np.zeros(-(-len(codes) // CHUNK) * CHUNK, dtype=np.int64)
        padded[: len(codes)] = codes
        latents = torch.randn(len(padded), self.latent_size, generator=torch.Generator().manual_seed(seed))
        with torch.inference_mode():
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


def _to_grey(images: torch.Tensor) -> torch.Tensor:
    return ((images[:, 0] + 1) * 127.5).round().clamp(0, 255).to(torch.uint8)


set_model(LungSliceGenerator())
