"""Batches: the same ones wherever the slices are, and only what a batch needs is read."""

import threading

import numpy as np
import pytest
import torch

from lungsynth.dataset.mapped import MappedSlices, write_slices
from lungsynth.errors import LungsynthError
from lungsynth.training.data import AHEAD, Slices, Source, fit, source_of

CPU = torch.device("cpu")
COUNT = 60
LABELS = (np.arange(COUNT) % 4 == 0).astype(np.int64)
# Slice i is of the one grey value i.
IMAGES = np.arange(COUNT, dtype=np.uint8)[:, None, None] * np.ones((1, 4, 4), np.uint8)
ALL = Slices.all(IMAGES, LABELS)


class Watched:
    """An array that notes which rows are read, and may fail."""

    dtype, shape = IMAGES.dtype, IMAGES.shape

    def __init__(self, error=None):
        self.read, self.error = [], error

    def __getitem__(self, rows):
        if self.error:
            raise self.error
        self.read += np.atleast_1d(rows).tolist()
        return IMAGES[rows]


@pytest.fixture
def open_source():
    sources = []

    def make(slices=ALL, balanced=True, seed=0, resident=False):
        sources.append(Source(slices, balanced=balanced, seed=seed, device=CPU, resident=resident))
        return sources[-1]

    yield make
    for source in sources:
        source.close()


def grey(images):
    """The numbers of the slices in a batch."""
    return ((images[:, 0, 0, 0] + 1) * 127.5).round().long()


def same(one, two):
    return all(torch.equal(a, b) for a, b in zip(one, two, strict=True))


def test_slices_come_scaled_and_with_their_codes(open_source):
    images, codes = open_source().batch(0, 32)
    assert images.shape == (32, 1, 4, 4)
    assert torch.equal(images[:, 0], torch.from_numpy(IMAGES[grey(images)]).float() / 127.5 - 1)
    assert torch.equal(codes, torch.from_numpy(LABELS)[grey(images)])


@pytest.mark.parametrize(("balanced", "share"), [(True, 0.5), (False, 0.25)])
def test_balanced_draws(open_source, balanced, share):
    images, codes = open_source(balanced=balanced).batch(0, 4000)
    assert codes.float().mean() == pytest.approx(share, abs=0.03)
    assert len(grey(images).unique()) == COUNT


def test_only_the_rows_that_count_are_drawn(open_source):
    rows = np.array([3, 8, 12, 31, 40])
    images, codes = open_source(Slices(IMAGES, LABELS, rows)).batch(0, 400)
    assert grey(images).unique().tolist() == rows.tolist()
    assert torch.equal(codes, torch.from_numpy(LABELS)[grey(images)])


def test_batches_are_the_same_wherever_the_slices_are(open_source, tmp_path):
    halves = [tmp_path / "a.safetensors", tmp_path / "b.safetensors"]
    for file, part in zip(halves, (IMAGES[:25], IMAGES[25:]), strict=True):
        write_slices(file, part)
    mapped = Slices(MappedSlices(halves, [25, 35], 4), LABELS, np.arange(COUNT))
    sources = [open_source(), open_source(mapped), open_source(resident=True), open_source(mapped, resident=True)]
    for step in (0, 1, 2, 7, 6, 6):  # forward, a leap, back
        first, *others = [source.batch(step, 16) for source in sources]
        assert all(same(first, other) for other in others)
    # Reading ahead changes nothing.
    assert same(open_source().batch(7, 16), sources[0].batch(7, 16))
    assert not same(open_source(seed=1).batch(7, 16), sources[0].batch(7, 16))


def test_a_batch_that_grows(open_source):
    source = open_source()
    source.batch(0, 8)
    assert same(source.batch(1, 16), open_source().batch(1, 16))


def test_processes_share_one_batch(open_source):
    whole = open_source().batch(5, 16)
    shares = [open_source().batch(5, 16, rank=rank, world=2) for rank in range(2)]
    assert same(whole, (torch.cat(parts) for parts in zip(*shares, strict=True)))


def test_a_batch_does_not_read_the_whole_set(open_source):
    images = Watched()
    open_source(Slices(images, LABELS, np.arange(COUNT))).batch(0, 4)
    assert len(images.read) <= (AHEAD + 1) * 4


def test_a_reader_that_fails_is_one_clear_error(open_source):
    images = Watched(OSError(5, "Input/output error"))
    with pytest.raises(LungsynthError, match=r"slices cannot be read: .*Input/output error"):
        open_source(Slices(images, LABELS, np.arange(COUNT))).batch(0, 4)


def test_the_thread_ends_with_the_run():
    before = threading.active_count()
    with source_of(ALL, balanced=True, seed=0, device=CPU) as source:
        source.batch(0, 4)
        assert threading.active_count() == before + 1
    assert threading.active_count() == before


def test_a_gpu_takes_what_leaves_room_for_the_networks(monkeypatch):
    gpu = torch.device("cuda")
    for free, fits in ((IMAGES.nbytes * 4, True), (IMAGES.nbytes * 4 - 4, False)):
        monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device, free=free: (free, free))
        assert fit(ALL, gpu) == fits
    assert not fit(ALL, CPU)
