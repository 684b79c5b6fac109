"""Weight files: safetensors, or a `torch.save` file of tensors alone."""

from collections.abc import Mapping
from pathlib import Path
from pickle import UnpicklingError

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from lungsynth.errors import LungsynthError, first_line


def load_weights(module: nn.Module, path: Path) -> None:
    """Load a state dict into `module`, in place, from a `.safetensors` file or a `torch.save` file of tensors alone.

    Raises:
        LungsynthError: the file cannot be read, or a tensor is missing, superfluous or of another shape.
    """
    try:
        if path.suffix == ".safetensors":
            state = load_file(path)
        else:
            state = torch.load(path, map_location="cpu", weights_only=True)
    except (OSError, SafetensorError, RuntimeError, ValueError, EOFError, UnpicklingError) as error:
        raise LungsynthError(
            f"{path}: not a readable weight file; fetch or train it again ({first_line(error)})"
        ) from error
    differences = _differences(module.state_dict(), state)
    if differences:
        raise LungsynthError(
            f"{path}: weights do not fit {type(module).__name__}; check the configuration. {'; '.join(differences)}"
        )
    module.load_state_dict(state)


def _differences(expected: Mapping[str, Tensor], state: object) -> list[str]:
    if not isinstance(state, Mapping) or not all(isinstance(value, Tensor) for value in state.values()):
        return ["the file holds no state dict"]
    missing = [f"{key} is missing" for key in expected if key not in state]
    superfluous = [f"{key} is superfluous" for key in state if key not in expected]
    shapes = [
        f"{key} is {_shape(state[key])}, not {_shape(tensor)}"
        for key, tensor in expected.items()
        if key in state and state[key].shape != tensor.shape
    ]
    return missing + superfluous + shapes


def _shape(tensor: Tensor) -> str:
    return "×".join(map(str, tensor.shape)) or "scalar"
