"""A seeded simulator of chest CT: simulated patients, their DICOM series, and their nodules as DICOM SEG."""

from lungsynth.phantom.anatomy import lung_mask, volume_hu
from lungsynth.phantom.dicom import ct_series_uid, seg_series_uid, write_ct, write_seg
from lungsynth.phantom.patient import SIMULATOR_VERSION, Nodule, PhantomPatient, Scanner, draw_patient

__all__ = [
    "SIMULATOR_VERSION",
    "Nodule",
    "PhantomPatient",
    "Scanner",
    "ct_series_uid",
    "draw_patient",
    "lung_mask",
    "seg_series_uid",
    "volume_hu",
    "write_ct",
    "write_seg",
]
