"""Memory that is used again, and never while anything still looks at it."""

import gc

import numpy as np

from lungsynth.dicom import recycled


def address(array):
    return array.__array_interface__["data"][0]


def test_memory_serves_again_once_no_view_is_left():
    first = recycled.empty((4, 8, 8), np.int16)
    first[...] = 7
    view, where = first[1:, ::2], address(first)
    del first
    gc.collect()
    second = recycled.empty((4, 8, 8), np.int16)
    second[...] = 9
    assert address(second) != where
    assert (view == 7).all()
    del view
    gc.collect()
    third = recycled.empty((2, 8, 8), np.int16)
    assert address(third) == where
    assert third.shape == (2, 8, 8)
    assert third.flags.writeable
    assert (second == 9).all()


def test_memory_that_is_too_small_is_left():
    small = recycled.empty((2, 8, 8), np.int16)
    del small
    gc.collect()
    large = recycled.empty((64, 64, 64), np.int16)
    large[...] = 1
    assert large.sum() == 64**3
