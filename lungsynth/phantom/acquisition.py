"""Effects of the scanner: table, blur of the kernel, textured noise, padding."""

import numpy as np
from scipy import fft

from lungsynth.phantom.geometry import Grid
from lungsynth.phantom.organs import back_mm
from lungsynth.phantom.patient import PhantomPatient

AIR_HU, PADDING_HU = -1000.0, -2000.0
WATER_PER_MM = 0.0195
"""Linear attenuation of water at about 70 keV."""


def paint_table(hu: np.ndarray, patient: PhantomPatient, grid: Grid) -> None:
    """Paint the table: a curved shell filled with foam, with a mat on top. It stays level when the patient rolls."""
    x, y = grid.fine_axis[None], grid.fine_axis[:, None]
    bend = x**2 / (2 * patient.scanner.table_radius_mm)
    below = y - (back_mm(patient) + 9.0 - bend)
    half_width = 205.0
    inside = np.clip(0.5 - (np.abs(x) - half_width) / grid.spacing_mm, 0, 1)
    thickness = 34.0 * np.sqrt(np.clip(1 - (x / half_width) ** 2, 0.02, 1))
    soft = 1.2 * grid.spacing_mm

    def layer(depth: np.ndarray, width: float) -> np.ndarray:
        result: np.ndarray = inside * np.clip(0.5 - (np.abs(depth) - width / 2) / soft, 0, 1)
        return result

    table = 110.0 * inside * np.clip(0.5 - (np.abs(below + 4.0) - 4.0) / soft, 0, 1)
    table += 45.0 * inside * ((below > 0) & (below < thickness))
    table += 780.0 * layer(below - 1.0, 1.6) + 700.0 * layer(below - thickness, 1.6)
    air = hu < -930.0
    np.add(hu, table, out=hu, where=air & (y > 0))


def acquire(hu: np.ndarray, patient: PhantomPatient, grid: Grid, *, rng: np.random.Generator) -> np.ndarray:
    """The volume (HU, Z×Y×X float32) with the blur and the noise of the patient's scanner."""
    scanner, n = patient.scanner, grid.matrix
    f = np.hypot(fft.fftfreq(n, grid.spacing_mm)[:, None], fft.rfftfreq(n, grid.spacing_mm)[None])
    relative = f / scanner.mtf50_per_mm
    mtf = np.exp(-np.log(2) * relative**2) * (1 + scanner.edge_boost * 2.7 * relative**2 * np.exp(-(relative**2) / 2))
    # Filtered back projection: noise power rises with frequency until the kernel cuts it off.
    texture = np.sqrt(f + 0.004) * mtf
    texture = (texture / np.sqrt(np.mean(texture**2))).astype(np.float32)
    mtf = mtf.astype(np.float32)
    strength = noise_map(hu, patient, grid)
    result = np.empty_like(hu)
    for index, image in enumerate(hu):
        white = rng.standard_normal((n, n), dtype=np.float32)
        noise = fft.irfft2(fft.rfft2(white) * texture, s=(n, n))
        result[index] = fft.irfft2(fft.rfft2(image) * mtf, s=(n, n)) + strength[index] * noise
    return result


def noise_map(hu: np.ndarray, patient: PhantomPatient, grid: Grid) -> np.ndarray:
    """Standard deviation of the noise (HU, Z×Y×X); it rises with the tissue that photons cross, as at the shoulders."""
    water = np.maximum(hu + 1000.0, 0.0) * (WATER_PER_MM * grid.spacing_mm / 1000.0)
    across, along = water.sum(2), water.sum(1)
    reference = WATER_PER_MM * 240.0
    variance = 0.5 * (np.exp(0.7 * (across - reference))[:, :, None] + np.exp(0.7 * (along - reference))[:, None, :])
    sigma = patient.scanner.noise_hu * patient.noise
    result: np.ndarray = sigma * np.sqrt(np.clip(variance, 0.12, 12.0)).astype(np.float32)
    return result


def pad(hu: np.ndarray, grid: Grid) -> None:
    """Set what lies outside the reconstruction circle to the padding value."""
    radius = grid.matrix / 2
    centre = np.arange(grid.matrix) - (grid.matrix - 1) / 2
    hu[:, np.hypot(centre[:, None], centre[None]) > radius] = PADDING_HU
