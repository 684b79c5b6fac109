"""PNG and TIFF files written byte by byte, so that no library's idea of them stands between values and test."""

import struct
import zlib

import numpy as np

PNG_COLOURS = {1: 0, 3: 2, 2: 4, 4: 6}
"""Samples of a pixel and PNG's number for grey, RGB, grey and alpha, RGB and alpha."""
PALETTE = 3


def packed(rows: np.ndarray, bits: int) -> bytes:
    """Rows of samples (Y×N), big endian, each row filled up to whole bytes."""
    places = (rows.astype(np.uint64)[..., None] >> np.arange(bits - 1, -1, -1, dtype=np.uint64)) & np.uint64(1)
    return np.packbits(places.reshape(len(rows), -1).astype(np.uint8), axis=1).tobytes()


def chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def png(samples: np.ndarray, bits: int, colour: int | None = None, *chunks: bytes, interlaced: bool = False) -> bytes:
    """A PNG of samples Y×X×S; `chunks` come before the pixels."""
    rows, columns, count = samples.shape
    header = (columns, rows, bits, PNG_COLOURS[count] if colour is None else colour, 0, 0, int(interlaced))
    passes = [(0, 0, 1, 1)]
    if interlaced:
        passes = [(0, 0, 8, 8), (0, 4, 8, 8), (4, 0, 8, 4), (0, 2, 4, 4), (2, 0, 4, 2), (0, 1, 2, 2), (1, 0, 2, 1)]
    lines = b"".join(
        b"\0" + packed(row.reshape(1, -1), bits)
        for top, left, down, across in passes
        for row in samples[top::down, left::across]
        if row.size
    )
    body = [chunk(b"IHDR", struct.pack(">IIBBBBB", *header)), *chunks, chunk(b"IDAT", zlib.compress(lines))]
    return b"\x89PNG\r\n\x1a\n" + b"".join(body) + chunk(b"IEND", b"")


def tiff(
    samples: np.ndarray,
    bits: int,
    photometric: int = 1,
    sample_format: int = 1,
    extra: tuple[int, ...] = (),
    colormap: np.ndarray | None = None,
    planar: bool = False,
    order: str = "<",
    deflate: bool = False,
    orientation: int = 1,
) -> bytes:
    """A TIFF of samples Y×X×S in one strip, or one a sample; of more than 8 bit whole bytes, but for 12 bit."""
    rows, columns, count = samples.shape
    planes = np.moveaxis(samples, 2, 0) if planar else samples.reshape(1, rows, columns * count)
    if bits in (16, 32, 64):
        strips = [plane.astype(samples.dtype.newbyteorder(order)).tobytes() for plane in planes]
    else:
        strips = [packed(plane.view(np.uint8) if bits == 8 else plane, bits) for plane in planes]
    if deflate:
        strips = [zlib.compress(strip) for strip in strips]
    offsets = [8 + sum(map(len, strips[:index])) for index in range(len(strips))]
    tags = {
        **{256: (4, [columns]), 257: (4, [rows]), 258: (3, [bits] * count), 259: (3, [8 if deflate else 1])},
        **{262: (3, [photometric]), 273: (4, offsets), 274: (3, [orientation]), 277: (3, [count]), 278: (4, [rows])},
        **{279: (4, list(map(len, strips))), 284: (3, [2 if planar else 1]), 339: (3, [sample_format] * count)},
    }
    if extra:
        tags[338] = (3, list(extra))
    if colormap is not None:
        tags[320] = (3, colormap.ravel().tolist())
    at = 8 + sum(map(len, strips))
    at += at % 2
    entries, beyond = b"", b""
    end = at + 2 + 12 * len(tags) + 4
    for tag, (kind, values) in sorted(tags.items()):
        body = struct.pack(f"{order}{len(values)}{'H' if kind == 3 else 'I'}", *values)
        if len(body) > 4:
            body, beyond = struct.pack(f"{order}I", end + len(beyond)), beyond + body
        entries += struct.pack(f"{order}HHI", tag, kind, len(values)) + body.ljust(4, b"\0")
    head = (b"II" if order == "<" else b"MM") + struct.pack(f"{order}HI", 42, at)
    data = head + b"".join(strips)
    return data.ljust(at, b"\0") + struct.pack(f"{order}H", len(tags)) + entries + bytes(4) + beyond
