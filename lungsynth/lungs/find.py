"""Finds the lungs of a volume: by the configured backend, with a check of the mask, and a fallback if that fails."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from lungsynth.dataset.rejection import Reason, SeriesRejected
from lungsynth.dicom.read import Volume
from lungsynth.lungs import threshold
from lungsynth.lungs.config import LungConfig
from lungsynth.lungs.mask import LungMask
from lungsynth.lungs.quality import Quality


def find_lungs(volume: Volume, seg_folders: Sequence[Path], config: LungConfig) -> LungMask:
    """The lungs of a CT series; `seg_folders` hold its published segmentations, for backend `idc-seg`.

    Raises:
        SeriesRejected: `NO_LUNGS`, `IMPLAUSIBLE_LUNGS` or `NO_LUNG_MASK`, where there is no fallback or it fails too.
        LungsynthError: the backend's weights or package are missing or wrong.
    """
    try:
        return _checked(_by_backend(volume, seg_folders, config), volume, config)
    except SeriesRejected as rejected:
        if config.backend == "threshold" or config.fallback == "reject":
            raise
        mask = _checked(_by_threshold(volume, config), volume, config)
        note = f"lungs by threshold, as {config.backend} failed: {rejected.reason}: {rejected.detail}"
        return replace(mask, notes=(*mask.notes, note))


def _by_backend(volume: Volume, seg_folders: Sequence[Path], config: LungConfig) -> LungMask:
    # Backends are imported here, so that workers load torch and other large packages only where they need them.
    match config.backend:
        case "threshold":
            return _by_threshold(volume, config)
        case "idc-seg":
            from lungsynth.lungs import idc_seg

            return idc_seg.lungs(volume, seg_folders)
        case "unet":
            from lungsynth.lungs import unet  # torch

            assert config.weights is not None  # checked by the configuration
            return unet.lungs(volume.hu, config.weights)
        case "lungmask":
            from lungsynth.lungs import r231

            return r231.lungs(volume.hu)


def _by_threshold(volume: Volume, config: LungConfig) -> LungMask:
    return threshold.lungs(volume.hu, volume.spacing_mm, volume.slice_spacing_mm, config.threshold_hu)


def _checked(mask: LungMask, volume: Volume, config: LungConfig) -> LungMask:
    if not mask.cells.any():
        raise SeriesRejected(Reason.NO_LUNGS, "no lung was found")
    if faults := Quality.of(mask, volume, config.threshold_hu).faults(config.quality):
        raise SeriesRejected(Reason.IMPLAUSIBLE_LUNGS, faults)
    return mask
