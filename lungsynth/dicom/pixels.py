"""From the stored values of CT slices, in any transfer syntax, to Hounsfield units."""

from collections.abc import Iterator, Sequence
from pathlib import Path

import cv2
import numpy as np
from pydicom.encaps import generate_frames
from pydicom.pixels.decoders.base import get_decoder
from pydicom.uid import UID, DeflatedExplicitVRLittleEndian, ExplicitVRBigEndian

from lungsynth.dataset.rejection import Reason, SeriesRejected
from lungsynth.dicom.codecs import frame_decoder
from lungsynth.dicom.frames import AIR_HU, Frame, PixelLayout, among_tissue
from lungsynth.dicom.header import NATIVE, UNDEFINED, read_dataset, sequence_end

_MAX_HU = 32767
_SHIFT_LIMIT = 30000
"""Intercepts below this fit into 16 bits, so that stored values can be clipped before the intercept is added."""


def read_stored(path: Path, layout: PixelLayout, indices: Sequence[int], *, scratch: bytearray) -> Iterator[np.ndarray]:
    """Stored values of some frames of a file, each rows×columns, writable, of the integer type that was allocated.

    `indices` ascend from 0. `scratch`, as long as a frame at least, may hold each until the next one is asked for: new
    memory for each slice costs more than the reading itself.

    Raises:
        SeriesRejected: there is no decoder, or there are fewer pixels than the header promises.
        Exception: nearly any, where the file is corrupt.
    """
    if layout.transfer_syntax in NATIVE:
        return _native(path, layout, indices, scratch=scratch)
    if layout.transfer_syntax in (DeflatedExplicitVRLittleEndian, ExplicitVRBigEndian):
        return _parsed(path, layout, indices)
    return _compressed(path, layout, indices)


def to_hu(stored: np.ndarray, frame: Frame, out: np.ndarray) -> None:
    """Write HU (int16, at least -1024) of a slice's stored values into `out`; `stored` is overwritten.

    Padding becomes -1024. Bits above those stored, in which old files keep overlays, are cleared.
    """
    slope, intercept, padding = frame.slope, frame.intercept, frame.padding
    clipped = padding is not None and slope > 0 and padding[1] * slope + intercept <= AIR_HU
    if padding is not None and clipped and _fits(padding, frame.layout):
        padding = None  # it becomes -1024 anyway
    padded = clean(
        stored, frame.layout, padding, only_around=padding is not None and among_tissue(padding, slope, intercept)
    )
    if stored.itemsize == 1:
        stored = stored.astype(np.int16)
    if slope == 1 and intercept.is_integer() and abs(intercept) < _SHIFT_LIMIT and stored.itemsize == 2:
        limits = np.iinfo(stored.dtype)
        low, high = max(AIR_HU - int(intercept), limits.min), min(_MAX_HU - int(intercept), limits.max)
        number = stored.dtype.type  # numpy clips ten times as fast between bounds of the array's own type
        np.clip(stored, number(low), number(high), out=stored)
        np.add(stored.view(np.int16), np.int16(intercept), out=out)  # 65535 and -1 are the same 16 bits
    else:
        hu = np.multiply(stored, slope, dtype=np.float64)
        hu += intercept
        np.rint(hu, out=hu)
        np.clip(hu, AIR_HU, _MAX_HU, out=hu)
        out[...] = hu
    if padded is not None:
        out[padded] = AIR_HU


def clean(
    stored: np.ndarray, layout: PixelLayout, padding: tuple[int, int] | None, *, only_around: bool
) -> np.ndarray | None:
    """Clear the unused bits of `stored`, and return which pixels are padding (bool, Y×X); none if there is none.

    Padding values that need the unused bits are looked for before these are cleared. With `only_around`, only padding
    around the image counts, since tissue has such values too.
    """
    if padding is not None and not _fits(padding, layout):
        padded = (stored >= padding[0]) & (stored <= padding[1])
        _clear_unused_bits(stored, layout)
        return padded
    _clear_unused_bits(stored, layout)
    if padding is None:
        return None
    padded = (stored >= padding[0]) & (stored <= padding[1])
    return _around(padded) if only_around else padded


def _around(padded: np.ndarray) -> np.ndarray | None:
    """The pixels of `padded` that are connected to the image's edge, if these are most of them; else none.

    If they are not, the value belongs to tissue, such as water, and taking it for padding would punch holes into it.
    """
    _, parts = cv2.connectedComponents(padded.view(np.uint8), connectivity=4)
    edges = np.concatenate([parts[0], parts[-1], parts[:, 0], parts[:, -1]])
    around = np.isin(parts, edges[edges > 0])
    return around if 2 * np.count_nonzero(around) > np.count_nonzero(padded) else None


def _range(layout: PixelLayout) -> tuple[int, int]:
    """The least and the greatest value of the bits stored."""
    sign = int(layout.signed)
    return -sign << layout.bits_stored - 1, (1 << layout.bits_stored - sign) - 1


def _fits(padding: tuple[int, int], layout: PixelLayout) -> bool:
    least, most = _range(layout)
    return least <= padding[0] and padding[1] <= most


def _clear_unused_bits(stored: np.ndarray, layout: PixelLayout) -> None:
    least, most = _range(layout)
    shifted = layout.high_bit != layout.bits_stored - 1
    if not shifted and (
        layout.bits_stored == layout.bits_allocated or (least <= stored.min() and stored.max() <= most)
    ):
        return
    np.left_shift(stored, layout.bits_allocated - 1 - layout.high_bit, out=stored)
    # A shift to the right keeps the sign of signed values.
    np.right_shift(stored, layout.bits_allocated - layout.bits_stored, out=stored)


def _dtype(layout: PixelLayout) -> np.dtype:
    return np.dtype(f"<{'i' if layout.signed else 'u'}{layout.bits_allocated // 8}")


def _native(path: Path, layout: PixelLayout, indices: Sequence[int], *, scratch: bytearray) -> Iterator[np.ndarray]:
    if layout.length == UNDEFINED:
        raise SeriesRejected(Reason.UNREADABLE, "compressed pixels, and the file does not say how")
    size = layout.rows * layout.columns * layout.bits_allocated // 8
    if not size or layout.length < size * layout.frames:
        raise SeriesRejected(Reason.UNREADABLE, f"{layout.length} bytes of pixels instead of {size * layout.frames}")
    frame = memoryview(scratch)[:size]
    with path.open("rb", buffering=0) as file:
        for index in indices:
            file.seek(layout.at + index * size)
            if file.readinto(frame) != size:
                raise SeriesRejected(Reason.UNREADABLE, "cut short")
            yield np.frombuffer(frame, _dtype(layout)).reshape(layout.rows, layout.columns)


def _parsed(path: Path, layout: PixelLayout, indices: Sequence[int]) -> Iterator[np.ndarray]:
    decoder, dataset = get_decoder(layout.transfer_syntax), read_dataset(path)
    for index in indices:
        stored, _ = decoder.as_array(dataset, index=index, raw=True)
        yield stored.astype(_dtype(layout))


def _compressed(path: Path, layout: PixelLayout, indices: Sequence[int]) -> Iterator[np.ndarray]:
    decode = frame_decoder(layout.transfer_syntax, _dtype(layout))
    if decode is None:
        raise SeriesRejected(Reason.NO_DECODER, f"transfer syntax {UID(layout.transfer_syntax).name[:64]!r}")
    with path.open("rb") as file:
        file.seek(layout.at)
        code = file.read()
    sequence_end(code, 0, implicit=False)  # raises if cut short; JPEG decoders would return half an image
    for index, frame in enumerate(generate_frames(code, number_of_frames=layout.frames)):
        if index in indices:
            yield decode(frame).reshape(layout.rows, layout.columns).astype(_dtype(layout), copy=False)
