"""`python golden_cuts.py SCRATCH [MIRROR]`: cuts phantoms and a radiograph in every way, or the real CT series of a
mirror, and prints hashes of what came out.

A process of its own, since NumPy, OpenBLAS and OpenCV choose once, at their start, by which of the CPU's instructions
they compute; the last bits depend on that.
"""

import hashlib
import json
import sys
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import pydicom
from PIL import Image
from radiograph_files import chest, cut, lungs

from lungsynth.cohort.cohort import no_slice_labels
from lungsynth.cohort.phantom import PhantomCohortConfig, select_phantoms
from lungsynth.cohort.splits import SplitConfig
from lungsynth.dataset.rejection import SeriesRejected
from lungsynth.fetching.fetch import FetchConfig
from lungsynth.phantom import SIMULATOR_VERSION, draw_patient, volume_hu
from lungsynth.slicing.series import SeriesJob, SliceConfig
from lungsynth.slicing.shard import CUT_VERSION, build_shard
from lungsynth.slicing.slices import slices_of_series

PHANTOMS = PhantomCohortConfig(patients=6, matrix=128, slices=(20, 22))
WAYS: dict[str, dict[str, object]] = {
    "lungs": {"view": "lungs", "masks": True},
    "whole": {"view": "whole", "window_hu": (-1000, 400), "max_slices_per_series": 5},
    "lesion": {"view": "lesion", "min_lung_fraction": 0.2, "other_slices_of_cancer": "non_cancer"},
}


def sha(*parts: np.ndarray | pd.DataFrame | None) -> str:
    """SHA-256 of arrays, and of tables with numbers to four digits."""
    digest = hashlib.sha256()
    for part in parts:
        if isinstance(part, pd.DataFrame):
            digest.update(part.to_csv(index=False, float_format="%.4g", lineterminator="\n").encode())
        elif part is not None:
            digest.update(f"{part.dtype}{part.shape}".encode() + np.ascontiguousarray(part).tobytes())
    return digest.hexdigest()[:16]


def phantoms(scratch: Path) -> dict[str, str]:
    cohort, fetch = select_phantoms(PHANTOMS, SplitConfig(method="ranked")), FetchConfig(root=scratch / "series")
    found = {}
    for name, way in WAYS.items():
        shard = build_shard(cohort, fetch, SliceConfig(size=64, root=scratch / name, **way), phantoms=PHANTOMS).shard
        arrays = (np.fromfile(path, np.uint8) for path in sorted(shard.folder.glob("*.safetensors")))
        found[f"phantoms, {name}"] = sha(*arrays, pd.read_parquet(shard.folder / "slices.parquet"), shard.series)
    return found


def radiograph(scratch: Path) -> dict[str, str]:
    for name, image in (("image", chest()), ("mask", lungs().astype(np.uint8) * 255)):
        Image.fromarray(image).save(scratch / f"{name}.png")
    found = {}
    for view in ("whole", "lungs"):
        config = SliceConfig(size=64, view=view, masks=True)
        slices = cut(scratch / "image.png", config, mask_file=scratch / "mask.png")
        found[f"radiograph, {view}"] = sha(slices.images, slices.masks, slices.table)
    return found


def real(mirror: Path) -> dict[str, str]:
    found = {}
    for folder in sorted((mirror / "idc-open-data").iterdir()):
        header = pydicom.dcmread(next(folder.iterdir()), stop_before_pixels=True)
        if header.Modality == "CT":
            who = (header.SeriesInstanceUID, "P-1", "non-cancer", "no_lesion_seg", "train", "")
            job = SeriesJob(*who, folder, (), (), None, no_slice_labels())
            try:
                slices = slices_of_series(job, SliceConfig(size=128, masks=True), ("non-cancer", "cancer"))
                found[f"real {folder.name[:8]}"] = sha(slices.images, slices.masks, slices.table)
            except SeriesRejected as rejected:
                found[f"real {folder.name[:8]}"] = str(rejected.reason)
    return found


if __name__ == "__main__":
    cv2.setUseOptimized(False)
    scratch = Path(sys.argv[1])
    if sys.argv[2:]:
        print(json.dumps({"cut": {CUT_VERSION: real(Path(sys.argv[2]))}}))
        sys.exit()
    hashes = phantoms(scratch) | radiograph(scratch)
    size = {"matrix": 128, "slices": (20, 22), "nodule_diameter_mm": (6.0, 24.0)}
    drawn = [draw_patient(3, index, with_nodule=bool(index), **size) for index in range(2)]
    simulated = {"phantoms": sha(*(array for patient in drawn for array in volume_hu(patient)))}
    print(json.dumps({"cut": {CUT_VERSION: hashes}, "simulator": {SIMULATOR_VERSION: simulated}}))
