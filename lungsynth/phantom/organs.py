"""Soft organs of a thorax as signed distances in mm on the coarse grid, and how they are painted.

Sizes follow the usual adult anatomy at the level of the carina (T5): cavity 256×176 mm inside the ribs, lungs 110 mm
above and 90 to 170 mm below it, the right dome of the diaphragm a good centimetre higher than the left.
"""

from dataclasses import dataclass

import numpy as np
from scipy.interpolate import PchipInterpolator

from lungsynth.phantom.geometry import Canvas, Grid, Point, ellipsoid, smooth_max, smooth_min, tube
from lungsynth.phantom.patient import PhantomPatient

FAT_HU, MUSCLE_HU, SKIN_HU, GAS_HU = -100.0, 52.0, 10.0, -985.0
SIDES = (-1, 1)
"""Right and left, by the sign of x."""

# Breadth, depth (relative) and backward shift (mm) of the cavity by height (mm) at size 1.
_HEIGHTS = (-220.0, -120.0, -70.0, 0.0, 40.0, 75.0, 100.0, 125.0)
_BREADTH = (0.97, 1.0, 1.0, 0.93, 0.83, 0.69, 0.56, 0.46)
_DEPTH = (0.92, 0.98, 1.0, 0.96, 0.86, 0.70, 0.56, 0.48)
_SHIFT = (0.0, 0.0, 0.0, 2.0, 7.0, 15.0, 21.0, 25.0)
# Half breadth and half depth of the trunk outside the cavity's own wall.
_TRUNK_BREADTH = (140.0, 146.0, 150.0, 156.0, 166.0, 184.0, 194.0, 188.0)
_TRUNK_DEPTH = (100.0, 106.0, 108.0, 106.0, 100.0, 92.0, 84.0, 78.0)

_AORTA: tuple[Point, ...] = (
    (4, -10, -38),
    (-10, -26, -5),
    (-9, -28, 18),
    (-1, -22, 36),
    (13, 2, 45),
    (22, 27, 37),
    (25, 40, 12),
    (23, 45, -40),
    (14, 47, -110),
    (5, 46, -230),
)
_AORTA_RADII = (15, 16, 15, 14, 13.5, 13, 12.5, 12, 11.5, 10.5)
_BRANCHES: tuple[tuple[Point, ...], ...] = (
    ((-4, -22, 38), (-10, -12, 65), (-26, 2, 95), (-30, 6, 130)),
    ((5, -12, 45), (14, 2, 75), (22, 10, 110), (24, 12, 135)),
    ((14, 6, 45), (23, 14, 75), (30, 12, 102), (52, -4, 122)),
)
_CAVA: tuple[Point, ...] = ((-22, -14, -35), (-26, -20, 5), (-22, -24, 40), (-17, -26, 62), (-22, -14, 100))
_LEFT_VEIN: tuple[Point, ...] = ((-18, -30, 56), (4, -36, 60), (20, -27, 80), (30, -14, 106))
_LOWER_CAVA: tuple[Point, ...] = ((-20, 2, -60), (-20, 6, -100), (-17, 22, -150), (-16, 24, -230))
_PULMONARY: tuple[tuple[Point, ...], ...] = (
    ((18, -42, -28), (22, -28, -6), (27, -4, 1), (46, 9, -6)),
    ((22, -24, -8), (2, -8, -10), (-22, -3, -12), (-44, 3, -16)),
)
_OESOPHAGUS: tuple[Point, ...] = ((2, 32, 130), (4, 34, 40), (0, 34, -10), (10, 28, -90), (16, 18, -130))


@dataclass(frozen=True)
class Organs:
    """Signed distances (Z×h×w, mm, negative inside); of `dome`, the inside is what lies above the diaphragm."""

    body: np.ndarray
    cavity: np.ndarray
    dome: np.ndarray
    heart: np.ndarray
    chambers: np.ndarray
    vessels: np.ndarray
    oesophagus: np.ndarray
    lungs: dict[int, np.ndarray]


def profile(z: np.ndarray, values: tuple[float, ...], size: float) -> np.ndarray:
    """Values given at `_HEIGHTS`, interpolated to the heights z of a patient of that size: Z×1×1."""
    inside = np.clip(z / size, _HEIGHTS[0], _HEIGHTS[-1])
    result: np.ndarray = PchipInterpolator(_HEIGHTS, values)(inside).astype(np.float32).reshape(-1, 1, 1)
    return result


def cavity_shift(patient: PhantomPatient, z: np.ndarray) -> np.ndarray:
    """y of the cavity's centre at heights z, Z×1×1; it moves backwards towards the neck."""
    return patient.size * profile(z, _SHIFT, patient.size)


def spine_centre(patient: PhantomPatient, z: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Centre (x, y) of the vertebral bodies at heights z; they protrude into the cavity's back and follow its curve."""
    s = patient.size
    depth = profile(z, _DEPTH, s).ravel()
    x = patient.sway_mm * np.sin(2 * np.pi * z / (260.0 * s))
    return x, cavity_shift(patient, z).ravel() + s * (88.0 * patient.depth * depth - 36.0)


def front_of_cavity(patient: PhantomPatient, z: np.ndarray) -> np.ndarray:
    """y of the cavity's front wall in the midline."""
    s = patient.size
    return (cavity_shift(patient, z) - 88.0 * s * patient.depth * profile(z, _DEPTH, s)).ravel()


def build_organs(patient: PhantomPatient, grid: Grid, rng: np.random.Generator) -> Organs:
    """All soft shapes of a patient."""
    cavity = _cavity(patient, grid) + 1.6 * grid.lattice_noise(rng, 55.0)
    dome = _dome(patient, grid) + 2.0 * grid.lattice_noise(rng, 60.0)
    heart, chambers = _heart(patient, grid)
    vessels = _vessels(patient, grid)
    oesophagus = tube(grid, _scaled(_OESOPHAGUS, patient), (7, 7.5, 8, 8, 8))
    mediastinum = _mediastinum(patient, grid, [heart, vessels, oesophagus])
    mediastinum += 1.5 * grid.lattice_noise(rng, 22.0)
    body = _body(patient, grid, cavity) + 2.0 * grid.lattice_noise(rng, 60.0)
    lungs = {}
    for side in SIDES:
        lung = smooth_max(cavity + 1.5, _apex(patient, grid, side), 14.0)
        lung = smooth_max(lung, dome, 5.0)
        lung = smooth_max(lung, -mediastinum, 5.0)
        lungs[side] = np.maximum(lung, -side * grid.coarse[0])
    return Organs(body, cavity, dome, heart, chambers, vessels, oesophagus, lungs)


def paint_trunk(canvas: Canvas, patient: PhantomPatient, organs: Organs, *, rng: np.random.Generator) -> None:
    """Skin, fat and the muscles of chest wall and shoulders."""
    grid, s = canvas.grid, patient.size
    x, y, z = grid.coarse
    under_fat = organs.body + 3.0 + 0.55 * patient.fat_mm
    pectoral = 9.0 * np.exp(-(((np.abs(x) - 75 * s) / 38) ** 2)) * (y < 0) * np.clip((z + 40) / 60, 0, 1)
    latissimus = 7.0 * np.exp(-(((y - 25 * s) / 45) ** 2))
    muscle = organs.cavity - (13.0 + pectoral + latissimus + 2.5 * grid.lattice_noise(rng, 30.0))
    erector_y = float(np.mean(spine_centre(patient, grid.z)[1])) + 50.0 * s
    for side in SIDES:
        muscle = smooth_min(muscle, tube(grid, _erector(side, erector_y, s), (25.0 * s, 23.0 * s)), 8.0)
        shoulder = ellipsoid(grid, (side * 138 * s, 32 * s, 118 * s), (62 * s, 48 * s, 72 * s))
        trapezius = ellipsoid(grid, (side * 55 * s, 82 * s, 110 * s), (62 * s, 26 * s, 90 * s), turn_deg=-side * 14)
        muscle = smooth_min(muscle, smooth_min(shoulder, trapezius, 10.0), 8.0)
    muscle = smooth_max(muscle, under_fat, 14.0)
    canvas.paint(organs.body, SKIN_HU)
    canvas.paint(organs.body + 2.2, FAT_HU + 6.0 * grid.lattice_noise(rng, 25.0))
    canvas.paint(muscle, MUSCLE_HU + 6.0 * grid.lattice_noise(rng, 12.0))
    streaks = np.maximum(muscle + 2.0, 4.5 - 5.0 * np.abs(grid.lattice_noise(rng, 16.0)) - 0.06 * patient.fat_mm)
    canvas.paint(np.maximum(streaks, 9.0 - organs.cavity), FAT_HU, softness_mm=2.0)


def paint_contents(canvas: Canvas, patient: PhantomPatient, organs: Organs, *, rng: np.random.Generator) -> None:
    """Paint the cavity's contents besides the lungs: mediastinal fat, heart, great vessels, upper abdomen."""
    grid, s = canvas.grid, patient.size
    contrast = patient.blood_hu > 60
    canvas.paint(organs.cavity + 1.0, -88.0 + 10.0 * grid.lattice_noise(rng, 12.0))
    nodes = np.maximum(organs.cavity + 8.0, 5.0 - 3.4 * grid.lattice_noise(rng, 14.0))
    canvas.paint(np.maximum(nodes, organs.dome), 35.0, softness_mm=1.0)
    below = np.maximum(-organs.dome, organs.cavity)
    canvas.paint(below, 48.0)
    canvas.paint(np.maximum(below, organs.cavity + 2.0) + 2.5, -98.0)
    drop = -patient.inspiration_mm
    inside = smooth_max(organs.cavity + 4.0, 3.5 - organs.dome, 6.0)
    liver = ellipsoid(grid, (-52 * s, -8 * s, drop - 150 * s), (112 * s, 92 * s, 92 * s), turn_deg=-12)
    liver = smooth_max(inside, liver, 8.0)
    stomach = smooth_max(inside, ellipsoid(grid, (62 * s, -24 * s, drop - 150 * s), (66 * s, 70 * s, 70 * s)), 6.0)
    stomach = np.maximum(stomach, 6.0 - liver)
    spleen = smooth_max(
        inside, ellipsoid(grid, (88 * s, 42 * s, drop - 140 * s), (34 * s, 46 * s, 50 * s), turn_deg=25), 6.0
    )
    canvas.paint(liver, 105.0 if contrast else 58.0)
    canvas.paint(np.maximum(spleen, 4.0 - stomach), 115.0 if contrast else 50.0)
    canvas.paint(stomach, 36.0 + 8.0 * grid.lattice_noise(rng, 14.0))
    if patient.gastric_gas:
        canvas.paint(smooth_max(stomach + 12.0, grid.coarse[1] + 38.0 * s, 4.0), GAS_HU)
    canvas.paint(organs.oesophagus, 38.0)
    above = np.maximum(organs.heart, organs.dome + 1.0)
    canvas.paint(above, 85.0 if contrast else 42.0)
    if contrast:
        canvas.paint(np.maximum(organs.chambers, organs.dome + 6.0), patient.blood_hu * 0.92, softness_mm=2.0)
    canvas.paint(organs.vessels, patient.blood_hu)


def _scaled(points: tuple[Point, ...], patient: PhantomPatient) -> list[Point]:
    """Points at size 1 fitted to a patient's size and to the breadth and depth of their thorax."""
    s = patient.size
    return [(x * s * patient.width, y * s * patient.depth, z * s) for x, y, z in points]


def _erector(side: int, y: float, s: float) -> list[Point]:
    return [(side * 27 * s, y, -300.0), (side * 24 * s, y + 4.0, 200.0)]


def _superellipse(x: np.ndarray, y: np.ndarray, breadth: np.ndarray, *, depth: np.ndarray, power: float) -> np.ndarray:
    """Distance along the ray from the centre."""
    level = ((np.abs(x) / breadth) ** power + (np.abs(y) / depth) ** power + 1e-6) ** (1 / power)
    result: np.ndarray = np.hypot(x, y) * (1 - 1 / level)
    return result


def _cavity(patient: PhantomPatient, grid: Grid) -> np.ndarray:
    x, y, _ = grid.coarse
    s = patient.size
    breadth = 128.0 * s * patient.width * profile(grid.z, _BREADTH, s)
    depth = 88.0 * s * patient.depth * profile(grid.z, _DEPTH, s)
    return _superellipse(x, y - cavity_shift(patient, grid.z), breadth, depth=depth, power=2.35)


def _body(patient: PhantomPatient, grid: Grid, cavity: np.ndarray) -> np.ndarray:
    x, y, _ = grid.coarse
    s, fat = patient.size, patient.fat_mm
    breadth = s * patient.width * profile(grid.z, _TRUNK_BREADTH, s) + 0.8 * fat
    depth = s * patient.depth * profile(grid.z, _TRUNK_DEPTH, s) + 0.8 * fat
    body = _superellipse(x, y - 10.0 * s, breadth, depth=depth, power=2.5)
    body = smooth_min(body, cavity - 21.0 * s - 0.8 * fat, 20.0)
    if patient.sex == "F":
        size = 0.8 + 0.03 * fat
        for side in SIDES:
            front = (side * 78 * s, -88 * s * patient.depth - 0.5 * fat, -48 * s)
            body = smooth_min(
                body, ellipsoid(grid, front, (62 * s * size, 34 * size, 58 * s * size), turn_deg=side * 18), 24.0
            )
    return smooth_max(body, y - back_mm(patient), 26.0)


def back_mm(patient: PhantomPatient) -> float:
    """y of the flattened back, where the table's mat begins."""
    return patient.size * (8.0 + 108.0 * patient.depth) + 0.55 * patient.fat_mm


def _apex(patient: PhantomPatient, grid: Grid, side: int) -> np.ndarray:
    s = patient.size
    x, y, z = grid.coarse
    base, top = 30.0 * s, (110.0 + (2.0 if side < 0 else 0.0)) * s
    shift = cavity_shift(patient, grid.z)
    u, v = (x - side * 58.0 * s * patient.width) / (74.0 * s), (y - shift) / (96.0 * s * patient.depth)
    level = np.sqrt(u * u + v * v + (np.maximum(z - base, 0.0) / (top - base)) ** 2 + 1e-6)
    result: np.ndarray = 62.0 * s * (level - 1)
    return result


def _dome(patient: PhantomPatient, grid: Grid) -> np.ndarray:
    s = patient.size
    x, y, z = grid.coarse
    heights = []
    for side, top in ((-1, -80.0), (1, -93.0)):
        u = (x - side * 58.0 * s * patient.width) / (76.0 * s * patient.width)
        v = (y + 24.0 * s) / (np.where(y > -24.0 * s, 98.0, 70.0) * s * patient.depth)
        heights.append(top * s - patient.inspiration_mm - 66.0 * s * np.minimum(u * u + v * v, 2.6) ** 1.25)
    surface = smooth_max(heights[0], heights[1], 14.0)[0]
    slopes = np.gradient(surface, float(grid.coarse_axis[1] - grid.coarse_axis[0]))
    result: np.ndarray = (surface - z) / np.sqrt(1 + slopes[0] ** 2 + slopes[1] ** 2)
    return result


def _heart(patient: PhantomPatient, grid: Grid) -> tuple[np.ndarray, np.ndarray]:
    """Heart with its walls, and the blood in its chambers."""
    s = patient.size
    size, shift, low = s * patient.heart, patient.heart_shift_mm, 0.35 * patient.inspiration_mm
    left = ellipsoid(grid, (34 * s + shift, -26 * s, -64 * s - low), (53 * size, 36 * size, 40 * size), turn_deg=-38)
    right = ellipsoid(grid, (-8 * s + shift, -30 * s, -55 * s - low), (39 * size, 34 * size, 45 * size), turn_deg=20)
    atrium = ellipsoid(grid, (4 * s + 0.5 * shift, 11 * s, -32 * s), (36 * size, 21 * size, 24 * size))
    heart = smooth_min(smooth_min(left, right, 18.0), atrium, 12.0)
    return heart, np.minimum(np.minimum(left + 12.0, right + 5.0), atrium + 4.0)


def _vessels(patient: PhantomPatient, grid: Grid) -> np.ndarray:
    s = patient.size
    chains = [(_AORTA, _AORTA_RADII), (_CAVA, (9, 9.5, 9, 8, 7)), (_LEFT_VEIN, (6, 6, 6.5, 6))]
    chains += [
        (_LOWER_CAVA, (11, 11, 11.5, 11)),
        (_PULMONARY[0], (14, 13.5, 12, 9)),
        (_PULMONARY[1], (12, 11, 10.5, 8.5)),
    ]
    chains += [(branch, (6.5, 5.5, 5, 4)) for branch in _BRANCHES]
    result: np.ndarray = np.minimum.reduce(
        [tube(grid, _scaled(points, patient), [r * s for r in radii]) for points, radii in chains]
    )
    return result


def _mediastinum(patient: PhantomPatient, grid: Grid, organs: list[np.ndarray]) -> np.ndarray:
    """The region between the lungs: organs, some fat, trachea, hila, spine and the midline fold."""
    s = patient.size
    x, y, z = grid.coarse
    union = organs[0]
    for organ in organs[1:]:
        union = smooth_min(union, organ, 14.0)
    union = union - 2.0
    spine_x, spine_y = spine_centre(patient, grid.z)
    spine = np.hypot((x - spine_x[:, None, None]) / 1.08, y - spine_y[:, None, None] - 3.0) - 22.0 * s
    upper = np.hypot(x / 1.0, (y - cavity_shift(patient, grid.z)) / 1.9) - s * np.interp(
        grid.z / s, (-15, 15, 50, 90, 120), (-12.0, 17.0, 24.0, 31.0, 36.0)
    ).astype(np.float32).reshape(-1, 1, 1)
    bronchi = tube(grid, _scaled(((0, 16, 110), (0, 22, 4), (-40, 10, -20)), patient), (11 * s, 11 * s, 12 * s))
    left_bronchus = tube(grid, _scaled(((0, 22, 2), (42, 14, -24)), patient), (10 * s, 11 * s))
    fold = np.abs(x - 4.0 * np.sin(z / 40.0)) - 3.5
    fold = np.where(y < 40 * s, fold, fold + 20.0)
    for part in (spine, upper, np.minimum(bronchi, left_bronchus), fold):
        union = smooth_min(union, part, 12.0)
    return union
