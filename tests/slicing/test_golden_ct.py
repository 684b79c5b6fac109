"""Real CT gives the numbers it gave: HU, lung volume, mask areas, crop and grey values, whatever else was rebuilt.

The values were measured with this code. A tolerance is what another CPU's rounding may change; a HU more in the
intercept, another window, threshold or crop changes more than that.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from pydicom.data import get_testdata_file

from lungsynth.dicom.frames import Frame, read_frames
from lungsynth.dicom.pixels import read_stored, to_hu
from lungsynth.dicom.read import Volume, read_series
from lungsynth.lungs.find import find_lungs
from lungsynth.slicing.crop import Crop, lung_box
from lungsynth.slicing.render import render
from lungsynth.slicing.series import SliceConfig

CONFIG = SliceConfig(size=128)
PERCENTILES = (5, 25, 50, 75, 95)
HEIGHTS = (0.3, 0.5, 0.7)
"""Of the slices whose mask and grey values are known, from the feet, as fractions of the scan."""


@dataclass(frozen=True)
class Hounsfield:
    """Statistics of a slice or a volume in HU."""

    shape: tuple[int, ...]
    least: int
    most: int
    mean: float
    percentiles: tuple[float, ...]

    def assert_of(self, hu: np.ndarray, within_hu: float) -> None:
        """Assert that `hu` has these statistics; extremes of a lossy image may differ by 1 HU, means by `within_hu`."""
        assert hu.shape == self.shape
        assert [hu.min(), hu.max()] == pytest.approx([self.least, self.most], abs=1 if within_hu > 0.01 else 0)
        assert hu.mean() == pytest.approx(self.mean, abs=within_hu)
        assert np.percentile(hu, PERCENTILES) == pytest.approx(self.percentiles, abs=within_hu)


# Of files that pydicom ships: the file, mm between pixels, HU, mean grey value of the slice in the default window.
FILES = (
    ("CT_small.dcm", 0.661468,
     Hounsfield((128, 128), -896, 1167, -119.074, (-823, -117, 2, 66, 347.85)), 204.44),
    ("693_J2KI.dcm", 0.478516,
     Hounsfield((512, 512), -1024, 1812, -603.018, (-1024, -1024, -956, 22, 514)), 120.39),
    ("J2K_pixelrep_mismatch.dcm", 0.431,
     Hounsfield((512, 512), -1024, 1896, -448.996, (-1024, -1006, -760.5, 36, 544)), 144.67),
    ("dicomdirtests/77654033/CT2/17106", 0.488281,
     Hounsfield((16, 16), -981, 77, -618.730, (-971.25, -944.25, -763, -324, 22.25)), 124.35),
    ("dicomdirtests/98892001/CT5N/2062", 0.488281,
     Hounsfield((16, 16), -888, 44, -354.285, (-856.25, -778.25, -200, -9, 23.25)), 169.25),
)  # fmt: skip


@dataclass(frozen=True)
class Scan:
    """A real chest: mm of a pixel and between slices; HU; of the lungs litres, mean HU, cm² at `HEIGHTS`; the crop's
    side in mm, and the mean grey values at `HEIGHTS`.
    """

    pixel_mm: float
    step_mm: float
    hu: Hounsfield
    litres: float
    lung_hu: float
    cm2: tuple[float, float, float]
    crop_mm: float
    grey: tuple[float, float, float]


SCANS = {
    "1.3.6.1.4.1.14519.5.2.1.6279.6001.179049373636438705059720603192": Scan(
        0.703125, 2.5, Hounsfield((133, 512, 512), -1024, 3071, -609.085, (-1024, -1022, -932, -91, 131)),
        3.8109, -820.56, (58.20, 230.87, 225.46), 262.97, (189.71, 153.03, 150.86),
    ),
    "1.3.6.1.4.1.14519.5.2.1.4320.7007.175436775971528801344124816822": Scan(
        0.8671875, 3.0, Hounsfield((112, 512, 512), -1024, 3071, -633.941, (-1024, -1002, -928, -83, 110)),
        6.0272, -790.75, (303.76, 340.07, 279.96), 350.34, (144.11, 136.56, 135.41),
    ),
    "1.3.6.1.4.1.14519.5.2.1.6655.2359.257508444832901632590301540805": Scan(
        0.841796875, 5.0, Hounsfield((64, 512, 512), -1024, 2976, -675.968, (-1024, -1013, -963, -133, 129)),
        5.5980, -810.09, (333.45, 298.16, 183.54), 289.58, (146.36, 149.56, 157.30),
    ),
    "1.3.6.1.4.1.14519.5.2.1.6655.2359.207154000096236603057216610983": Scan(
        0.646484375, 8.0, Hounsfield((30, 512, 512), -1024, 1548, -535.668, (-1007, -995, -800, -40, 83)),
        2.7351, -759.06, (174.30, 174.57, 153.19), 258.59, (164.48, 160.54, 149.15),
    ),
}  # fmt: skip


def read_slice(path: Path) -> tuple[Frame, np.ndarray]:
    """The one slice of a file, int16 HU. A series needs more slices to be one."""
    (frame,), localizers = read_frames(path)
    layout = frame.layout
    scratch = bytearray(layout.rows * layout.columns * layout.bits_allocated // 8)
    (stored,) = read_stored(path, layout, [0], scratch=scratch)
    hu = np.empty(stored.shape, np.int16)
    to_hu(stored, frame, hu)
    assert not localizers
    return frame, hu


@pytest.mark.filterwarnings("ignore::UserWarning:pydicom")
@pytest.mark.parametrize(("name", "pixel_mm", "hounsfield", "grey"), FILES, ids=[name for name, *_ in FILES])
def test_files_that_pydicom_ships_keep_their_hu(
    name: str, pixel_mm: float, hounsfield: Hounsfield, grey: float
) -> None:
    found = get_testdata_file(name, download=False)
    assert isinstance(found, str), f"pydicom no longer ships {name}"
    frame, hu = read_slice(Path(found))
    lossy = "compressed with loss" in frame.oddities
    hounsfield.assert_of(hu, within_hu=0.2 if lossy else 0.001)
    assert frame.spacing_mm == (pixel_mm, pixel_mm)
    side = hu.shape[0]
    crop = Crop(0, 0, side, side)
    assert render(hu, crop, side, window_hu=CONFIG.window_hu).mean() == pytest.approx(grey, abs=0.1)


@pytest.fixture(scope="module", params=SCANS, ids=[uid[-6:] for uid in SCANS])
def scan(request: pytest.FixtureRequest, mirror_series: dict[str, Path]) -> tuple[Scan, Volume]:
    """The golden values of a series of the mirror, and the series."""
    return SCANS[request.param], read_series(mirror_series[request.param])


def test_real_series_keep_their_hu_and_spacing(scan: tuple[Scan, Volume]) -> None:
    golden, volume = scan
    golden.hu.assert_of(volume.hu, within_hu=0.001)
    assert volume.spacing_mm == (golden.pixel_mm, golden.pixel_mm)
    assert volume.slice_spacing_mm == pytest.approx(golden.step_mm, abs=0.001)


def test_real_lungs_keep_their_volume_areas_crop_and_grey_values(scan: tuple[Scan, Volume]) -> None:
    golden, volume = scan
    lungs = find_lungs(volume, (), CONFIG.lungs)
    mask = lungs.pixels(volume.hu.shape)
    cm2 = mask.sum(axis=(1, 2)) * golden.pixel_mm**2 / 100
    places = [round(height * len(mask)) for height in HEIGHTS]
    assert cm2[places] == pytest.approx(golden.cm2, abs=0.1)
    assert cm2.sum() * golden.step_mm / 1e4 == pytest.approx(golden.litres, rel=1e-3)
    assert volume.hu[mask].mean() == pytest.approx(golden.lung_hu, abs=0.3)
    crop = lung_box(volume, lungs, CONFIG.margin_mm)
    assert crop.height == crop.width
    assert crop.width * golden.pixel_mm == pytest.approx(golden.crop_mm, abs=1)
    grey = [render(volume.hu[place], crop, CONFIG.size, window_hu=CONFIG.window_hu).mean() for place in places]
    assert grey == pytest.approx(golden.grey, abs=0.3)
