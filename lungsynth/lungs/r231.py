"""Lungs by the package `lungmask` and its network R231 (Hofmanninger et al. 2020, doi:10.1186/s41747-020-00173-2)."""

from functools import cache
from typing import Any
from urllib.error import URLError

import numpy as np

from lungsynth.errors import LungsynthError
from lungsynth.lungs.mask import LungMask
from lungsynth.progress import hub_progress


def lungs(volume_hu: np.ndarray) -> LungMask:
    """Both lungs on the pixels of `volume_hu` (int16, Z×Y×X); the package resizes slices itself.

    Raises:
        LungsynthError: the package is not installed, or its weights cannot be downloaded.
    """
    return LungMask(_inferer().apply(volume_hu) > 0, (1, 1))


@cache
def _inferer() -> Any:
    try:
        from lungmask import LMInferer  # an optional extra
    except ImportError as error:
        raise LungsynthError(
            "lungs.backend is lungmask, but that package is missing: pip install 'lungsynth[lungmask]', or take another"
        ) from error
    try:
        with hub_progress():
            return LMInferer(modelname="R231", tqdm_disable=True)
    except URLError as error:
        raise LungsynthError(
            f"lungmask cannot download its weights ({error.reason}): check the network, or put unet_r231-d5d2fc3d.pth "
            "into the folder hub/checkpoints of TORCH_HOME"
        ) from error
