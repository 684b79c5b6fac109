"""Pictures of a run: fixed latents, real slices beside synthetic ones, the way between two latents, film and curves."""

import sys

import numpy as np
import pytest
import torch
from PIL import Image

from lungsynth.generators.dcgan import DcganConfig, Generator
from lungsynth.training import Slices
from lungsynth.training.curves import save_curves
from lungsynth.training.snapshots import (
    COLUMNS,
    LINE,
    ROWS_PER_CLASS,
    beside,
    grid,
    interpolation,
    real_grid,
    save_film,
    slerp,
    snapshot,
)

SMALL = DcganConfig(size=32, nz=8, ngf=4, ndf=4)


def test_grid_reads_like_a_page():
    images = np.arange(2 * COLUMNS, dtype=np.uint8)[:, None, None] * np.ones((1, 4, 5), np.uint8)
    picture = grid(images)
    assert picture.shape == (8, 5 * COLUMNS)
    assert picture[::4, ::5].flatten().tolist() == list(range(2 * COLUMNS))
    assert np.array_equal(grid(images[:, None]), picture)


def test_snapshots_keep_their_latents():
    generator = Generator(SMALL).eval()
    first = snapshot(generator, seed=0)
    assert first.shape == (2 * ROWS_PER_CLASS * 32, COLUMNS * 32)
    assert np.array_equal(first, snapshot(generator, seed=0))
    assert not np.array_equal(first, snapshot(generator, seed=1))


def test_real_slices_stand_left_of_synthetic_ones_of_their_class():
    labels = np.arange(60) % 3 // 2  # twice as many of class 0
    images = (80 + 100 * labels)[:, None, None] * np.ones((1, 32, 32)) + np.arange(60)[:, None, None]
    real = real_grid(Slices(images.astype(np.uint8), labels, np.arange(5, 60)), SMALL)
    height = ROWS_PER_CLASS * 32
    assert (real[:height] < 140).all()
    assert (real[height:] >= 180).all()
    assert real[0, 0] == 86  # the first row of class 0 that counts
    assert len(np.unique(real[:height])) == ROWS_PER_CLASS * COLUMNS
    both = beside(real, np.full_like(real, 7))
    assert both.shape == (2 * height, COLUMNS * 32 + LINE)
    assert np.array_equal(both[:, : COLUMNS * 16], real[:, : COLUMNS * 16])
    assert (both[:, COLUMNS * 16 : COLUMNS * 16 + LINE] == 255).all()
    assert (both[:, COLUMNS * 16 + LINE :] == 7).all()


def test_slerp_keeps_to_the_arc():
    start, end = torch.tensor([2.0, 0.0]), torch.tensor([0.0, 2.0])
    points = slerp(start, end, torch.tensor([0.0, 1 / 3, 1.0]))
    assert points.flatten().tolist() == pytest.approx([2, 0, 3**0.5, 1, 0, 2], abs=1e-6)


def test_interpolation_goes_from_one_slice_to_another():
    generator = Generator(SMALL).eval()
    picture = interpolation(generator, seed=3)
    assert picture.shape == (2 * 32, COLUMNS * 32)
    ends = torch.randn(2, 8, generator=torch.Generator().manual_seed(3))
    drawn = ((generator(ends, torch.tensor([1, 1])) + 1) * 127.5).round()[:, 0].detach().numpy()
    assert np.abs(picture[32:, :32] - drawn[0]).max() <= 1
    assert np.abs(picture[32:, -32:] - drawn[1]).max() <= 1


def test_film_shows_its_frames_in_order(tmp_path):
    greys = [0, 120, 240]
    paths = [tmp_path / f"{i}.png" for i in range(3)]
    for path, grey in zip(paths, greys, strict=True):
        Image.fromarray(np.full((8, 8), grey, np.uint8)).save(path)
    save_film(paths, tmp_path / "film.gif")
    with Image.open(tmp_path / "film.gif") as film:
        assert film.n_frames == 3
        assert film.info["loop"] == 0
        for i, grey in enumerate(greys):
            film.seek(i)
            assert abs(film.convert("L").getpixel((3, 3)) - grey) <= 2


@pytest.mark.parametrize(
    ("rows", "panels"),
    [
        ([{"kimg": 1.0, "loss_d": 0.5, "p": 0.1}, {"kimg": 2.0, "loss_d": 0.4, "p": 0.2, "kid_val": -0.01}], 3),
        ([{"kimg": 1.0, "loss": 0.5, "img_per_s": 80.0}], 1),
    ],
)
def test_curves_have_a_panel_for_what_the_log_has(tmp_path, rows, panels):
    save_curves(rows, tmp_path / "training.png")
    with Image.open(tmp_path / "training.png") as picture:
        assert picture.size == (800, 100 + 170 * panels)
        assert len(np.unique(np.asarray(picture.convert("L")))) > 20


def test_curves_need_no_matplotlib(tmp_path, monkeypatch, caplog):
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    save_curves([{"kimg": 1.0, "loss": 0.5}], tmp_path / "training.png")
    assert "training.png was not drawn: matplotlib is not installed" in caplog.text
    assert not (tmp_path / "training.png").exists()
