"""The simulated chest CT volume of one patient."""

from functools import lru_cache

import numpy as np

from lungsynth.phantom.acquisition import AIR_HU, acquire, pad, paint_table
from lungsynth.phantom.geometry import Canvas, Grid
from lungsynth.phantom.lesion import paint_granulomas, paint_nodule
from lungsynth.phantom.organs import Organs, build_organs, paint_contents, paint_trunk
from lungsynth.phantom.patient import PhantomPatient
from lungsynth.phantom.skeleton import paint_skeleton
from lungsynth.phantom.trees import grow_trees
from lungsynth.phantom.tubes import deposit


@lru_cache(maxsize=1)  # a patient's CT and SEG are written one after the other
def volume_hu(patient: PhantomPatient) -> tuple[np.ndarray, np.ndarray]:
    """Simulate a patient's series.

    Returns:
        HU (int16, Z×Y×X) and the mask of the nodule (bool, Z×Y×X; all false without one). Slices go from feet to head,
        rows from front to back, columns from the patient's right to their left. Both are read-only.
    """
    shapes, paints, branches, speck, texture = _streams(patient)
    grid = Grid.of(patient)
    canvas = Canvas(grid, AIR_HU)
    organs = build_organs(patient, grid, shapes)
    paint_trunk(canvas, patient, organs, rng=paints)
    paint_contents(canvas, patient, organs, rng=paints)
    canvas.paint(np.minimum(*organs.lungs.values()), _parenchyma(patient, grid, organs, rng=paints))
    paint_skeleton(canvas, patient, organs, rng=paints)
    _paint_trees(canvas, patient, organs, rng=branches)
    paint_granulomas(canvas, patient, organs, rng=speck)
    lesion = np.zeros(canvas.hu.shape, bool)
    if patient.nodule:
        lesion = paint_nodule(canvas, patient.nodule, organs, rng=speck)
    paint_table(canvas.hu, patient, grid)
    hu = acquire(canvas.hu, patient, grid, rng=texture)
    if patient.scanner.circular_padding:
        pad(hu, grid)
    volume = np.rint(np.clip(hu, -2000.0, 3071.0)).astype(np.int16)
    volume.flags.writeable = lesion.flags.writeable = False
    return volume, lesion


def lung_mask(patient: PhantomPatient) -> np.ndarray:
    """The true lungs of a patient's series, bool Z×Y×X: all within the pleura, without trachea and main bronchi.

    Vessels, airways and nodules of the lungs belong to it; heart, great vessels and hila do not.
    """
    grid = Grid.of(patient)
    organs = build_organs(patient, grid, _streams(patient)[0])
    mask = np.zeros((len(grid.z), grid.matrix, grid.matrix), bool)
    box, filled = Canvas(grid, AIR_HU).cover(np.minimum(*organs.lungs.values()))
    mask[box] = filled > 0.5
    return mask


def _streams(patient: PhantomPatient) -> list[np.random.Generator]:
    """Independent random generators for shapes, paints, branches, specks and texture: none affects another."""
    return [np.random.default_rng((patient.seed, part)) for part in range(5)]


def _parenchyma(patient: PhantomPatient, grid: Grid, organs: Organs, *, rng: np.random.Generator) -> np.ndarray:
    """HU of lung tissue (coarse): denser towards the back, rarefied by emphysema towards the top."""
    s = patient.size
    _, y, z = grid.coarse
    hu = patient.parenchyma_hu + 0.55 * patient.dependent_hu * y / (80.0 * s) + 9.0 * grid.lattice_noise(rng, 14.0)
    back = np.clip(1 + organs.cavity / 14.0, 0, 1) * np.clip(y / (50.0 * s), 0, 1) ** 2
    hu = hu + patient.dependent_hu * 1.3 * back**2
    holes = np.clip(grid.lattice_noise(rng, 18.0) - 0.3, 0, 1.2) * np.clip((z + 60 * s) / (120 * s), 0.1, 1)
    return np.maximum(hu - 75.0 * patient.emphysema * holes, -985.0)


def _paint_trees(canvas: Canvas, patient: PhantomPatient, organs: Organs, *, rng: np.random.Generator) -> None:
    trees = grow_trees(patient, organs, canvas.grid, rng=rng)
    for samples, hu in ((trees.blood, patient.blood_hu), (trees.airway_walls, 10.0), (trees.airway_lumens, -985.0)):
        canvas.blend(*deposit(samples, canvas.grid), hu)
