"""Ribs, spine, sternum and shoulder girdle."""

import numpy as np

from lungsynth.phantom.geometry import Canvas
from lungsynth.phantom.organs import SIDES, Organs, cavity_shift, front_of_cavity, profile, spine_centre
from lungsynth.phantom.patient import PhantomPatient
from lungsynth.phantom.tubes import Samples, deposit, sample_chain, sample_sheet

CORTEX_HU, MARROW_HU, CARTILAGE_HU, DISC_HU, CORD_HU = 620.0, 190.0, 115.0, 85.0, 38.0


def paint_skeleton(canvas: Canvas, patient: PhantomPatient, organs: Organs, *, rng: np.random.Generator) -> None:
    """All bones, over what is painted already."""
    _paint_ribs(canvas, patient, organs)
    _paint_sternum(canvas, patient)
    _paint_girdle(canvas, patient)
    _paint_spine(canvas, patient, rng)


def _bone(depth_mm: np.ndarray, marrow_hu: float = MARROW_HU) -> np.ndarray:
    """HU by depth below the surface of a bone: a cortex of about 2 mm, then marrow."""
    return marrow_hu + (CORTEX_HU - marrow_hu) * np.clip(1.0 - (depth_mm - 1.2) / 1.6, 0.0, 1.0)


def _edge(distance: np.ndarray, width_mm: float) -> np.ndarray:
    return np.clip(0.5 - distance / width_mm, 0.0, 1.0)


def _paint_ribs(canvas: Canvas, patient: PhantomPatient, organs: Organs) -> None:
    """Ribs run round the cavity and sink from the spine to the front, so that a slice cuts several of them."""
    grid, s = canvas.grid, patient.size
    x, y, z = grid.coarse
    turn = np.arctan2(np.abs(x), y - cavity_shift(patient, grid.z)) / np.pi  # 0 at the spine, 1 at the sternum
    sink = 100.0 * s * (0.5 - 0.5 * np.cos(np.pi * np.minimum(turn / 0.85, 1.0))) - 130.0 * s * np.maximum(
        turn - 0.85, 0
    )
    level = (z + sink) / patient.rib_spacing_mm + patient.rib_phase + np.where(x > 0, 0.04, 0.0)
    height = (level - np.round(level)) * patient.rib_spacing_mm
    square = ((organs.cavity - 6.5 * s) / (4.6 * s)) ** 2 + (height / (6.6 * s)) ** 2
    square += 4.0 * np.clip(0.10 - turn, 0, 1) / 0.05 + 4.0 * np.clip(turn - 0.93, 0, 1) / 0.05
    near = np.where((np.abs(organs.cavity - 6.5 * s) < 20.0) & (square < 14.0), -1.0, 20.0)
    box = canvas.boxes(near)[0]
    level_fine = np.sqrt(np.maximum(canvas.upsample(np.minimum(square, 30.0), box), 0.0))
    front = canvas.upsample(np.broadcast_to(turn, square.shape), box) > 0.80
    depth = (1.0 - level_fine) * 4.6 * s
    hu = np.where(front, CARTILAGE_HU, _bone(depth))
    canvas.blend(box, _edge(-depth, 1.2 * grid.spacing_mm + 0.2 * grid.thickness_mm), hu)


def _paint_sternum(canvas: Canvas, patient: PhantomPatient) -> None:
    grid, s = canvas.grid, patient.size
    front = front_of_cavity(patient, grid.z) - 9.0 * s
    rows, columns = grid.window((-50 * s, 50 * s), (float(front.min()) - 15, float(front.max()) + 15))
    x, y = grid.fine(rows, columns)
    z = grid.z[:, None, None] / s
    half = s * np.interp(z, (-105, -80, 0, 18, 30, 52, 60), (5.0, 16.0, 15.0, 17.0, 26.0, 30.0, 14.0)).astype(
        np.float32
    )
    level = ((x / half) ** 4 + ((y - front[:, None, None]) / (6.0 * s)) ** 4 + 1e-6) ** 0.25
    depth = (1 - level) * 6.0 * s
    present = np.clip((z + 108) / 8, 0, 1) * np.clip((62 - z) / 6, 0, 1)
    canvas.blend((slice(None), rows, columns), present * _edge(-depth, 1.2 * grid.spacing_mm), _bone(depth, 110.0))


def _paint_girdle(canvas: Canvas, patient: PhantomPatient) -> None:
    """Shoulder blades, collar bones and heads of the humeri; the arms lie above the head."""
    s, w = patient.size, patient.size * patient.width
    shells, cores = [], []
    for side in SIDES:
        blade = np.array([[[66, 84, 96], [122, 36, 104]], [[84, 78, -38], [104, 62, -42]]], float)
        ridge = [(70, 90, 88), (112, 72, 100), (140, 30, 112)]
        collar = [(20, -70, 60), (60, -74, 76), (100, -48, 92), (140, -6, 108)]
        mirror = np.array([side * w, s, s])
        shells.append(sample_sheet(blade * mirror, 3.4 * s, canvas.grid))
        for points, radius in ((ridge, 5.0), (collar, 6.0)):
            chain = np.array(points, float) * mirror
            shells.append(sample_chain(chain, np.full(len(chain), radius * s), canvas.grid))
            cores.append(sample_chain(chain, np.full(len(chain), (radius - 2.2) * s), canvas.grid))
        head = np.array([(150, 14, 108), (156, 10, 124), (150, 0, 200)], float) * mirror
        shells.append(sample_chain(head, np.array([21.0, 22.0, 14.0]) * s, canvas.grid))
        cores.append(sample_chain(head, np.array([18.5, 19.5, 10.0]) * s, canvas.grid))
    for samples, hu in ((shells, 560.0), (cores, 210.0)):
        canvas.blend(*deposit(Samples.join(samples), canvas.grid), hu)


def _paint_spine(canvas: Canvas, patient: PhantomPatient, rng: np.random.Generator) -> None:
    """One vertebra per rib: body with end plates, disc, canal with cord, arch, transverse and spinous processes."""
    grid, s = canvas.grid, patient.size
    centre_x, centre_y = spine_centre(patient, grid.z)
    reach = (-48 * s, 48 * s), (float(centre_y.min()) - 25 * s, float(centre_y.max()) + 75 * s)
    rows, columns = grid.window(*reach)
    box = (slice(None), rows, columns)
    fine_x, fine_y = grid.fine(rows, columns)
    x, y = fine_x - centre_x[:, None, None].astype(np.float32), fine_y - centre_y[:, None, None].astype(np.float32)
    phase = (grid.z / patient.rib_spacing_mm + patient.rib_phase)[:, None, None] % 1.0  # 0 in the middle of a disc
    blur = 0.5 * grid.thickness_mm / patient.rib_spacing_mm
    disc = np.clip((0.11 - np.minimum(phase, 1 - phase)) / (2 * blur) + 0.5, 0, 1)
    plate = np.clip(1 - np.abs(np.minimum(phase, 1 - phase) - 0.14) / (0.05 + blur), 0, 1)
    lower = profile(grid.z, (1.12, 1.06, 1.0, 0.94, 0.9, 0.86, 0.82, 0.8), s)  # vertebrae grow downwards
    soft = 1.2 * grid.spacing_mm
    canal = np.hypot(x / 1.15, y - 21.0 * s) - 8.2 * s
    waist = 1.0 - 0.07 * np.sin(np.pi * phase)
    level = np.hypot(x / (18.0 * s * lower * waist), y / (14.0 * s * lower * waist))
    depth = np.minimum((1 - level) * 14.0 * s, canal - 1.0)
    texture = rng.normal(0.0, 22.0, depth.shape).astype(np.float32)
    bone = _bone(depth, 165.0) + texture + 160.0 * plate
    canvas.blend(box, _edge(-depth, soft), bone + disc * (DISC_HU - bone))
    arch = np.abs(canal - 3.0 * s) - 3.0 * s
    foramen = np.clip(np.cos(2 * np.pi * phase) * 1.6, 0, 1)  # at the discs the nerves leave sideways
    arch = np.where(y < 14.0 * s, arch + 5.0 * (0.3 + foramen), arch + 2.2 * foramen)
    thorn_end = (31.0 + 15.0 * (0.5 - 0.5 * np.cos(2 * np.pi * (phase - 0.15)))) * s
    thorn = np.hypot(x, y - np.clip(y, 30.0 * s, thorn_end)) - 2.8 * s
    wing_t = np.clip((np.abs(x) - 10 * s) / (26 * s), 0, 1)
    wing = np.hypot(np.abs(x) - (10 + 26 * wing_t) * s, y - (22 + 11 * wing_t) * s) - 4.3 * s
    wing = wing + 9.0 * np.clip(np.cos(2 * np.pi * (phase - 0.05)), 0, 1)
    processes = np.minimum(np.minimum(arch, thorn), wing)
    canvas.blend(box, _edge(processes, soft), _bone(-processes, 260.0))
    canvas.blend(box, _edge(canal, soft), -25.0)
    canvas.blend(box, _edge(np.hypot(x / 1.1, y - 20.5 * s) - 5.2 * s, soft), CORD_HU)
