"""CT volumes for tests that need no files: axial, the first pixel of the lowest slice at the origin."""

from typing import Any

import numpy as np

from lungsynth.dicom.read import Volume


def axial_volume(
    hu: np.ndarray, spacing_mm: tuple[float, float] = (1.0, 1.0), step_mm: float = 5.0, **fields: Any
) -> Volume:
    """A volume of `hu` (int16, Z×Y×X) with slices `step_mm` apart; `fields` of `Volume` overrule what else it says."""
    corners = np.zeros((len(hu), 3))
    corners[:, 2] = np.arange(len(hu)) * step_mm
    plain = {
        "hu": hu,
        "positions_mm": corners[:, 2],
        "sop_uids": tuple(f"1.{z}" for z in range(len(hu))),
        "instance_numbers": tuple(range(len(hu))),
        "spacing_mm": spacing_mm,
        "thickness_mm": step_mm,
        "corners_mm": corners,
        "down": np.array([0.0, 1.0, 0.0]),
        "across": np.array([1.0, 0.0, 0.0]),
        "normal": np.array([0.0, 0.0, 1.0]),
        "frame_of_reference_uid": "1.2",
        "series_uid": "1.2.3",
        "manufacturer": "",
        "notes": (),
    }
    return Volume(**plain | fields)
