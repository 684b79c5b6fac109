"""A simulated patient: all random parameters of body and scan, drawn before any voxel is simulated."""

import json
from dataclasses import asdict, dataclass
from functools import cached_property

import numpy as np
from pydicom.uid import generate_uid

from lungsynth.hashing import combine

SIMULATOR_VERSION = "1"
"""Raise it whenever the same parameters give other pixels: it is part of every UID and folder name."""


@dataclass(frozen=True)
class Scanner:
    """A simulated scanner with one chest protocol."""

    manufacturer: str
    model: str
    kernel: str
    thickness_mm: float
    noise_hu: float  # standard deviation in a water cylinder of the chest's width
    mtf50_per_mm: float  # spatial frequency at which the modulation transfer falls to one half
    edge_boost: float  # relative overshoot of the kernel near its cut-off; 0 is none
    table_radius_mm: float  # curvature of the table top
    signed: bool  # pixel representation
    intercept_hu: int
    circular_padding: bool  # pixels outside the reconstruction circle hold a padding value
    head_first: bool  # instance 1 is the highest slice


SCANNERS = (
    Scanner("Phantom A", "Axial One", "STANDARD", 2.5, 22.0, 0.42, 0.0, 420.0, True, -1024, True, True),
    Scanner("Phantom B", "Helix 16", "B50f", 2.0, 38.0, 0.55, 0.25, 300.0, False, -1024, False, True),
    Scanner("Phantom C", "Brilliant 40", "C", 5.0, 14.0, 0.36, 0.0, 600.0, False, -1000, False, False),
    Scanner("Phantom D", "Aquarius", "FC51", 3.0, 30.0, 0.50, 0.12, 360.0, True, 0, False, True),
)


@dataclass(frozen=True)
class Nodule:
    """A spiculated nodule. Its exact place follows from the patient's lungs and these parameters."""

    diameter_mm: float
    hu: float
    spicules: int
    irregularity: float  # relative standard deviation of the radius over directions
    left: bool
    height: float  # 0 is the lowest place in the lung that has room for it, 1 the highest
    place: float  # 0 is the first such place at this height, 1 the last


@dataclass(frozen=True)
class PhantomPatient:
    """One patient and one chest CT series. Lengths in mm, densities in HU."""

    index: int
    seed: int  # of the fine structure: vessels, texture, noise
    sex: str  # F or M
    age_years: int
    size: float  # linear scale of the skeleton and organs, 1 is the mean man
    width: float
    depth: float  # relative breadth and depth of the thorax
    fat_mm: float  # subcutaneous
    inspiration_mm: float  # how much lower than usual the diaphragm stands
    heart: float  # relative size of the heart
    heart_shift_mm: float  # of the heart to the left
    roll_deg: float
    sway_mm: float  # sideways curve of the spine
    rib_spacing_mm: float
    rib_phase: float
    blood_hu: float  # above about 60: with contrast medium
    parenchyma_hu: float
    dependent_hu: float  # added at the back of the lungs
    emphysema: float  # 0 to 1
    granulomas: int
    gastric_gas: bool
    nodule: Nodule | None
    scanner: Scanner
    noise: float  # relative to the scanner's
    matrix: int
    pixel_spacing_mm: float
    slices: int
    slice_spacing_mm: float
    lowest_slice_mm: float  # relative to the carina
    origin_mm: tuple[float, float, float]  # of the body frame, in patient coordinates: table height and position

    @property
    def patient_id(self) -> str:
        """DICOM PatientID."""
        return f"PHANTOM-{self.index:05d}"

    @cached_property
    def sha256(self) -> str:
        """Hash of all of the above and of the simulator's version."""
        return combine([SIMULATOR_VERSION, json.dumps(asdict(self), sort_keys=True)])

    def uid(self, *what: str) -> str:
        """A DICOM UID that depends on this patient's parameters and on `what` alone."""
        return str(generate_uid(entropy_srcs=[self.sha256, *what]))


def draw_patient(
    seed: int,
    index: int,
    *,
    with_nodule: bool,
    matrix: int,
    slices: tuple[int, int],
    nodule_diameter_mm: tuple[float, float],
) -> PhantomPatient:
    """Draw patient number `index` (from 0) of the endless cohort `seed`; ranges are inclusive, diameters in mm."""
    rng = np.random.default_rng((seed, index))
    woman = bool(rng.random() < 0.45)
    size = float(np.clip(rng.normal(0.93 if woman else 1.02, 0.045), 0.8, 1.15))
    inspiration = rng.uniform(-14.0, 14.0)
    fat = float(np.clip(rng.gamma(3.5, 4.0 if woman else 3.2), 4.0, 32.0))
    width = float(np.clip(rng.normal(1.0, 0.045), 0.9, 1.1))
    scanner = SCANNERS[int(rng.integers(len(SCANNERS)))]
    count = int(rng.integers(slices[0], slices[1] + 1))
    lowest, highest = size * (-148.0 - inspiration + rng.uniform(-8, 8)), size * 120.0 + rng.uniform(4, 14)
    outer_width = 2 * (size * width * 158.0 + fat + 10.0)
    return PhantomPatient(
        index=index,
        seed=int(rng.integers(2**31)),
        sex="F" if woman else "M",
        age_years=int(rng.integers(55, 75)),
        size=size,
        width=width,
        depth=float(np.clip(rng.normal(1.0, 0.06), 0.86, 1.16)),
        fat_mm=fat,
        inspiration_mm=float(inspiration),
        heart=float(rng.uniform(0.88, 1.16)),
        heart_shift_mm=float(rng.uniform(-6.0, 8.0)),
        roll_deg=float(np.clip(rng.normal(0.0, 2.5), -6.0, 6.0)),
        sway_mm=float(rng.normal(0.0, 3.0)),
        rib_spacing_mm=float(rng.uniform(24.0, 29.0) * size),
        rib_phase=float(rng.random()),
        blood_hu=float(rng.uniform(140.0, 280.0) if rng.random() < 0.3 else rng.uniform(34.0, 50.0)),
        parenchyma_hu=float(rng.normal(-872.0, 14.0)),
        dependent_hu=float(rng.uniform(25.0, 95.0)),
        emphysema=float(max(0.0, rng.normal(0.25, 0.35))),
        granulomas=int(rng.poisson(1.2)),
        gastric_gas=bool(rng.random() < 0.6),
        nodule=_draw_nodule(rng, nodule_diameter_mm) if with_nodule else None,
        scanner=scanner,
        noise=float(rng.uniform(0.8, 1.25)),
        matrix=matrix,
        pixel_spacing_mm=round(float(np.clip(outer_width * rng.uniform(1.0, 1.1), 300.0, 480.0)) / matrix, 4),
        slices=count,
        slice_spacing_mm=round(float((highest - lowest) / (count - 1)), 1),
        lowest_slice_mm=round(float(lowest), 1),
        origin_mm=(0.0, round(float(rng.uniform(-30.0, 10.0)), 1), round(float(rng.uniform(-400.0, 100.0)), 1)),
    )


def _draw_nodule(rng: np.random.Generator, diameter_mm: tuple[float, float]) -> Nodule:
    low, high = np.log(diameter_mm)
    return Nodule(
        diameter_mm=float(np.exp(rng.uniform(low, high))),
        hu=float(rng.uniform(-120.0, 50.0)),
        spicules=int(rng.integers(14, 34)),
        irregularity=float(rng.uniform(0.09, 0.18)),
        left=bool(rng.random() < 0.45),
        height=float(rng.beta(2.6, 1.5)),
        place=float(rng.random()),
    )
