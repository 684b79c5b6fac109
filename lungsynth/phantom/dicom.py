"""The simulated series as DICOM: CT Image Storage instances, and the nodule as Segmentation Storage."""

import logging
from pathlib import Path

import highdicom as hd
import numpy as np
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.sr.codedict import codes
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian

from lungsynth.errors import LungsynthError
from lungsynth.phantom.acquisition import PADDING_HU
from lungsynth.phantom.anatomy import volume_hu
from lungsynth.phantom.patient import SIMULATOR_VERSION, PhantomPatient

_DATE, _TIME = "20000102", "120000"
"""Fixed, so that the same patient gives the same bytes."""
_MAKER = "lungsynth phantom"


def write_ct(patient: PhantomPatient, folder: Path) -> None:
    """Simulate a patient and write one `<SOP Instance UID>.dcm` per slice into `folder`, made where it is missing."""
    hu, _ = volume_hu(patient)
    _write_instances(_ct_datasets(patient, hu), folder)


def write_seg(patient: PhantomPatient, folder: Path) -> None:
    """Simulate a patient and write the mask of the nodule into `folder` as one binary DICOM SEG.

    Raises:
        LungsynthError: the patient has no nodule.
    """
    if patient.nodule is None:
        raise LungsynthError(
            f"phantom {patient.index} has no nodule and so no segmentation: ask for its CT series only"
        )
    hu, lesion = volume_hu(patient)
    _write_instances([_seg_dataset(patient, _ct_datasets(patient, hu), lesion)], folder)


def ct_series_uid(patient: PhantomPatient) -> str:
    """Series Instance UID of a patient's CT."""
    return patient.uid("ct series")


def seg_series_uid(patient: PhantomPatient) -> str:
    """Series Instance UID of the segmentation of a patient's nodule."""
    return patient.uid("seg series")


def _write_instances(instances: list[Dataset], folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for instance in instances:
        instance.save_as(folder / f"{instance.SOPInstanceUID}.dcm", enforce_file_format=True)


def _ct_datasets(patient: PhantomPatient, hu: np.ndarray) -> list[Dataset]:
    """The instances of a series, from the feet to the head."""
    shared = _shared_attributes(patient)
    stored = hu.astype(np.int32) - patient.scanner.intercept_hu
    stored = stored.astype(np.int16) if patient.scanner.signed else np.clip(stored, 0, 65535).astype(np.uint16)
    return [_ct_dataset(patient, shared, pixels, index=index) for index, pixels in enumerate(stored)]


def _ct_dataset(patient: PhantomPatient, shared: Dataset, pixels: np.ndarray, *, index: int) -> Dataset:
    """Instance `index`, counted from the feet."""
    scanner = patient.scanner
    corner = -(patient.matrix - 1) / 2 * patient.pixel_spacing_mm
    z = patient.lowest_slice_mm + patient.slice_spacing_mm * index
    position = [corner + patient.origin_mm[0], corner + patient.origin_mm[1], z + patient.origin_mm[2]]
    instance = Dataset()
    instance.update(shared)
    instance.file_meta = FileMetaDataset()
    instance.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    instance.SOPInstanceUID = patient.uid("ct instance", str(index))
    instance.InstanceNumber = patient.slices - index if scanner.head_first else index + 1
    instance.ImagePositionPatient = [f"{value:.4f}" for value in position]
    instance.SliceLocation = f"{position[2]:.4f}"
    instance.PixelData = pixels.tobytes()
    return instance


def _shared_attributes(patient: PhantomPatient) -> Dataset:
    """The attributes that all instances of the CT series have in common (PS3.3 A.3)."""
    scanner = patient.scanner
    shared = Dataset()
    shared.SOPClassUID = CTImageStorage
    shared.SpecificCharacterSet = "ISO_IR 192"
    shared.ImageType = ["ORIGINAL", "PRIMARY", "AXIAL"]
    shared.StudyDate = shared.SeriesDate = shared.AcquisitionDate = shared.ContentDate = _DATE
    shared.StudyTime = shared.SeriesTime = shared.AcquisitionTime = shared.ContentTime = _TIME
    shared.AccessionNumber = ""
    shared.Modality = "CT"
    shared.Manufacturer = scanner.manufacturer
    shared.ManufacturerModelName = scanner.model
    shared.DeviceSerialNumber = "0"
    shared.SoftwareVersions = f"{_MAKER} {SIMULATOR_VERSION}"
    shared.ReferringPhysicianName = ""
    shared.StudyDescription = "SIMULATED CHEST CT"
    shared.SeriesDescription = f"CHEST {scanner.thickness_mm:g} {scanner.kernel}"
    shared.PatientID = patient.patient_id
    shared.PatientName = f"{patient.patient_id}^"
    shared.PatientBirthDate = ""
    shared.PatientSex = patient.sex
    shared.PatientAge = f"{patient.age_years:03d}Y"
    shared.BodyPartExamined = "CHEST"
    shared.KVP = 120
    shared.SliceThickness = scanner.thickness_mm
    shared.SpacingBetweenSlices = patient.slice_spacing_mm
    shared.ConvolutionKernel = scanner.kernel
    shared.PatientPosition = "HFS"
    shared.StudyInstanceUID = patient.uid("study")
    shared.SeriesInstanceUID = ct_series_uid(patient)
    shared.FrameOfReferenceUID = patient.uid("frame of reference")
    shared.PositionReferenceIndicator = ""
    shared.StudyID = "1"
    shared.SeriesNumber = 2
    shared.AcquisitionNumber = 1
    shared.ImageOrientationPatient = [1, 0, 0, 0, 1, 0]
    shared.SamplesPerPixel = 1
    shared.PhotometricInterpretation = "MONOCHROME2"
    shared.Rows = shared.Columns = patient.matrix
    shared.PixelSpacing = [patient.pixel_spacing_mm, patient.pixel_spacing_mm]
    shared.BitsAllocated, shared.BitsStored, shared.HighBit = 16, 16, 15
    shared.PixelRepresentation = int(scanner.signed)
    if scanner.circular_padding:
        shared.PixelPaddingValue = int(PADDING_HU) - scanner.intercept_hu
    shared.RescaleIntercept, shared.RescaleSlope, shared.RescaleType = scanner.intercept_hu, 1, "HU"
    shared.WindowCenter, shared.WindowWidth = -600, 1500
    return shared


def _seg_dataset(patient: PhantomPatient, sources: list[Dataset], lesion: np.ndarray) -> Dataset:
    """Binary segmentation «Nodule» of the slices that the mask touches."""
    logging.getLogger("highdicom").setLevel(logging.WARNING)  # it reports every attribute that it copies
    touched = np.flatnonzero(lesion.any(axis=(1, 2)))
    segment = hd.seg.SegmentDescription(
        segment_number=1,
        segment_label="Nodule",
        segmented_property_category=codes.SCT.MorphologicallyAbnormalStructure,
        segmented_property_type=codes.SCT.Nodule,
        algorithm_type=hd.seg.SegmentAlgorithmTypeValues.AUTOMATIC,
        algorithm_identification=hd.AlgorithmIdentificationSequence(
            name=_MAKER, version=SIMULATOR_VERSION, family=codes.DCM.ArtificialIntelligence
        ),
    )
    seg = hd.seg.Segmentation(
        source_images=[sources[index] for index in touched],
        pixel_array=lesion[touched].astype(np.uint8),
        segmentation_type=hd.seg.SegmentationTypeValues.BINARY,
        segment_descriptions=[segment],
        series_instance_uid=seg_series_uid(patient),
        series_number=3,
        sop_instance_uid=patient.uid("seg instance"),
        instance_number=1,
        manufacturer=_MAKER,
        manufacturer_model_name="simulator",
        software_versions=SIMULATOR_VERSION,
        device_serial_number="0",
        series_description="Nodule",
    )
    # highdicom stamps the wall clock and random dimension UIDs; neither says anything about a simulated patient.
    for moment in ("Series", "Content", "InstanceCreation"):
        setattr(seg, f"{moment}Date", _DATE)
        setattr(seg, f"{moment}Time", _TIME)
    for equipment in seg.ContributingEquipmentSequence:
        if "ContributionDateTime" in equipment:
            equipment["ContributionDateTime"].value = _DATE + _TIME
    dimension = patient.uid("dimensions")
    seg.DimensionOrganizationSequence[0].DimensionOrganizationUID = dimension
    for index in seg.DimensionIndexSequence:
        index.DimensionOrganizationUID = dimension
    return seg
