"""The registered form of a generator: an exported network that needs torch alone, and the package that it came from."""

import shutil
from importlib.metadata import version
from pathlib import Path
from tempfile import TemporaryDirectory

import mlflow
import numpy as np
import pandas as pd
import torch
from mlflow.models import ModelSignature
from mlflow.models.model import ModelInfo
from mlflow.types import ColSpec, DataType, ParamSchema, ParamSpec, Schema, TensorSpec

from lungsynth.errors import LungsynthError
from lungsynth.generators.latents import latents_of
from lungsynth.generators.package import GeneratorPackage, on_the_cpu

SERVING_MODEL = Path(__file__).with_name("serving_model.py")
SHARED = (
    "weights.safetensors",
    "generator.json",
    "samples.png",
    "interpolation.png",
    "progress.gif",
    "training.png",
    "training_log.jsonl",
)
"""Files of a package that are registered with a model; none of them shows a real slice."""
NOTICE = "Research only: not a medical device. The images are synthetic; none shows a real patient."


def export_network(package: GeneratorPackage, path: Path) -> None:
    """Write the generator to `path` as a torch.export archive: (z float32 B×nz, labels int64 B) → B×C×H×W, any B."""
    batch = torch.export.Dim("batch", min=1)
    with on_the_cpu():
        z, labels = latents_of(0, 2, package.card.generator.nz), torch.zeros(2, dtype=torch.int64)
        network = package.load().requires_grad_(False)
        torch.export.save(torch.export.export(network, (z, labels), dynamic_shapes=({0: batch}, {0: batch})), path)


def copy_shared(package: GeneratorPackage, folder: Path) -> None:
    """Copy the `SHARED` files of a package into the new `folder`."""
    folder.mkdir()
    for path in (package.folder / name for name in SHARED):
        if path.exists():
            shutil.copyfile(path, folder / path.name)


def log_generator(package: GeneratorPackage) -> ModelInfo:
    """Log the generator as an MLflow pyfunc model (`serving_model.py`) to the active run.

    Beside the exported network lies the package itself, as the artifact `package`, so that a later run can sample it.

    Raises:
        LungsynthError: the generator has no classes, so its slices could not be drawn by label.
    """
    if not package.classes:
        raise LungsynthError(
            f"{package.folder}: an unconditional generator cannot be registered; train one with classes"
        )
    size = package.card.generator.size
    signature = ModelSignature(
        Schema([ColSpec(DataType.string, "label")]),
        Schema([TensorSpec(np.dtype(np.uint8), (-1, size, size))]),
        ParamSchema([ParamSpec("seed", DataType.long, 0)]),
    )
    with TemporaryDirectory() as scratch:
        network, copy = Path(scratch) / "generator.pt2", Path(scratch) / "package"
        export_network(package, network)
        copy_shared(package, copy)  # MLflow names an artifact after its folder
        result: ModelInfo = mlflow.pyfunc.log_model(
            name="generator",
            python_model=str(SERVING_MODEL),
            artifacts={"generator": str(network), "package": str(copy)},
            model_config={"classes": list(package.classes), "latent_size": package.card.generator.nz},
            signature=signature,
            input_example=(pd.DataFrame({"label": list(package.classes)}), {"seed": 0}),
            # The versions that ran here; a local part such as +cu130 names no release.
            pip_requirements=[
                f"{name}=={version(name).partition('+')[0]}" for name in ("mlflow", "torch", "numpy", "pandas")
            ],
            metadata={
                "classes": list(package.classes),
                "window_hu": package.window_hu and list(package.window_hu),
                "size": size,
                "weights_sha256": package.sha256,
                "notice": NOTICE,
            },
        )
        return result
