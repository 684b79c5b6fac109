"""The simulator: valid DICOM, plausible HU, masks that fit, and the same bytes for the same recipe."""

from dataclasses import replace

import highdicom as hd
import numpy as np
import pydicom
import pytest
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian
from scipy import ndimage

from lungsynth.errors import LungsynthError
from lungsynth.phantom import PhantomPatient, draw_patient, volume_hu, write_ct, write_seg
from lungsynth.phantom.patient import SCANNERS


def draw(index: int, with_nodule: bool = False, diameter_mm: tuple[float, float] = (8.0, 30.0)) -> PhantomPatient:
    return draw_patient(3, index, with_nodule=with_nodule, matrix=128, slices=(30, 34), nodule_diameter_mm=diameter_mm)


@pytest.fixture(scope="module")
def patient() -> PhantomPatient:
    return draw(0, with_nodule=True)


@pytest.fixture(scope="module")
def simulated(patient):
    return volume_hu(patient)


@pytest.fixture(scope="module")
def instances(patient, tmp_path_factory):
    folder = tmp_path_factory.mktemp("ct")
    write_ct(patient, folder)
    return sorted((pydicom.dcmread(path) for path in folder.iterdir()), key=lambda i: float(i.ImagePositionPatient[2]))


@pytest.mark.parametrize("scanner", SCANNERS, ids=lambda scanner: scanner.manufacturer)
def test_files_give_back_the_simulated_hu_through_the_rescale(patient, scanner, tmp_path):
    scanned = replace(patient, scanner=scanner)
    write_ct(scanned, tmp_path)
    files = [pydicom.dcmread(path) for path in tmp_path.iterdir()]
    files.sort(key=lambda instance: float(instance.ImagePositionPatient[2]))
    stored = np.stack([f.pixel_array * float(f.RescaleSlope) + float(f.RescaleIntercept) for f in files])
    hu, _ = volume_hu(scanned)
    np.testing.assert_array_equal(stored, np.maximum(hu, hu.min() if scanner.signed else scanner.intercept_hu))
    numbers = [int(f.InstanceNumber) for f in files]
    assert numbers == sorted(numbers, reverse=scanner.head_first)


def test_instances_are_valid_ct_images(patient, instances):
    for instance in instances:
        assert instance.file_meta.TransferSyntaxUID == ExplicitVRLittleEndian
        assert instance.file_meta.MediaStorageSOPInstanceUID == instance.SOPInstanceUID
        assert instance.SOPClassUID == CTImageStorage
        assert list(instance.ImageType) == ["ORIGINAL", "PRIMARY", "AXIAL"]
        assert instance.PatientID == patient.patient_id == "PHANTOM-00000"
        assert instance.Manufacturer == patient.scanner.manufacturer
        assert instance.ConvolutionKernel == patient.scanner.kernel
        assert (instance.Rows, instance.Columns) == (patient.matrix, patient.matrix)
        for keyword in ("KVP", "FrameOfReferenceUID", "ImageOrientationPatient", "PatientBirthDate", "StudyID"):
            assert keyword in instance
    assert len({instance.SOPInstanceUID for instance in instances}) == patient.slices
    assert len({instance.SeriesInstanceUID for instance in instances}) == 1


def test_positions_and_spacing_agree(patient, instances):
    positions = np.array([instance.ImagePositionPatient for instance in instances], float)
    np.testing.assert_allclose(np.diff(positions[:, 2]), float(instances[0].SpacingBetweenSlices), atol=1e-3)
    assert np.ptp(positions[:, :2], axis=0).max() == 0
    assert list(instances[0].PixelSpacing) == [patient.pixel_spacing_mm] * 2
    assert float(instances[0].SliceThickness) <= float(instances[0].SpacingBetweenSlices)


def test_same_recipe_gives_the_same_bytes(patient, instances, tmp_path):
    for name in ("a", "b"):
        write_ct(patient, tmp_path / name)
        write_seg(patient, tmp_path / name)
    first, second = ({path.name: path.read_bytes() for path in (tmp_path / name).iterdir()} for name in ("a", "b"))
    assert len(first) == patient.slices + 1
    assert first == second


def test_hu_of_air_lungs_and_soft_tissue(simulated):
    hu, _ = simulated
    middle = hu[len(hu) // 2].astype(float)
    assert np.median(middle[3:12, 50:78]) == pytest.approx(-1000, abs=25)
    lungs = (middle > -960) & (middle < -700)
    lungs = ndimage.binary_erosion(lungs, iterations=2)
    assert np.median(middle[lungs]) == pytest.approx(-865, abs=35)
    soft = (middle > -20) & (middle < 110)
    assert np.median(middle[ndimage.binary_erosion(soft, iterations=2)]) == pytest.approx(45, abs=15)
    assert hu.max() > 400  # bone


@pytest.mark.parametrize("index", range(4))
def test_two_lungs_of_plausible_volume(index):
    patient = draw(index)
    hu, _ = volume_hu(patient)
    inside = (hu > -985) & (hu < -600)
    smooth = ndimage.uniform_filter((hu < -500).astype(np.float32), (1, 3, 3)) > 0.9
    labels, count = ndimage.label(smooth & inside)
    voxel_l = patient.pixel_spacing_mm**2 * patient.slice_spacing_mm * 1e-6
    sizes = np.sort(ndimage.sum_labels(np.ones_like(labels), labels, range(1, count + 1)))[::-1] * voxel_l
    assert 1.2 < sizes[:2].sum() < 7.0


def test_nodule_has_its_diameter_and_is_denser_than_lung(simulated, patient):
    hu, lesion = simulated
    voxel = patient.pixel_spacing_mm**2 * patient.slice_spacing_mm
    diameter = (6 * lesion.sum() * voxel / np.pi) ** (1 / 3)
    assert diameter == pytest.approx(patient.nodule.diameter_mm, rel=0.3)
    assert ndimage.label(lesion, np.ones((3, 3, 3)))[1] == 1
    around = ndimage.binary_dilation(lesion, iterations=4) & ~ndimage.binary_dilation(lesion, iterations=2)
    assert np.median(hu[lesion]) > -150
    assert np.median(hu[around]) < np.median(hu[lesion]) - 300


@pytest.mark.parametrize("index", range(8))
def test_even_the_smallest_nodule_marks_a_slice(index):
    patient = draw(index, with_nodule=True, diameter_mm=(4.0, 4.0))
    _, lesion = volume_hu(patient)
    assert lesion.any()


def test_without_a_nodule_the_mask_is_empty_and_there_is_no_seg(tmp_path):
    patient = draw(1)
    assert not volume_hu(patient)[1].any()
    with pytest.raises(LungsynthError, match="no nodule"):
        write_seg(patient, tmp_path)
    assert not any(tmp_path.iterdir())


def test_seg_frames_are_the_lesion_of_the_slices_that_they_reference(patient, instances, simulated, tmp_path):
    write_seg(patient, tmp_path)
    [path] = tmp_path.iterdir()
    seg = hd.seg.segread(path)
    assert seg.SeriesInstanceUID != instances[0].SeriesInstanceUID
    assert seg.FrameOfReferenceUID == instances[0].FrameOfReferenceUID
    assert seg.get_segment_description(1).segment_label == "Nodule"
    uids = [instance.SOPInstanceUID for instance in instances]
    masks = seg.get_pixels_by_source_instance(
        uids, segment_numbers=[1], ignore_spatial_locations=True, assert_missing_frames_are_empty=True
    )[..., 0]
    np.testing.assert_array_equal(masks.astype(bool), simulated[1])


def test_patients_differ_in_anatomy_and_scanner():
    patients = [draw(index) for index in range(40)]
    assert {p.scanner for p in patients} == set(SCANNERS)
    assert {p.sex for p in patients} == {"F", "M"}
    assert len({p.sha256 for p in patients}) == 40
    assert np.ptp([p.pixel_spacing_mm for p in patients]) > 0.2
    first, second = (volume_hu(replace(patients[0], seed=seed))[0] for seed in (1, 2))
    assert (first != second).mean() > 0.5


def test_matrix_512_shows_the_same_anatomy():
    patient = draw(2, with_nodule=True)
    large = replace(patient, matrix=512, pixel_spacing_mm=patient.pixel_spacing_mm / 4)
    coarse, fine = volume_hu(patient)[0][15], volume_hu(large)[0][15]
    binned = fine.reshape(128, 4, 128, 4).mean((1, 3))
    assert np.corrcoef(binned.ravel(), coarse.ravel())[0, 1] > 0.97
