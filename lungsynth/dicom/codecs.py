"""Decoders of compressed transfer syntaxes, all from `imagecodecs` (BSD), which also decodes 12-bit JPEG."""

from collections.abc import Callable
from typing import Any

import imagecodecs
import numpy as np
from pydicom.uid import (
    HTJ2K,
    JPEG2000,
    HTJ2KLossless,
    HTJ2KLosslessRPCL,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    JPEGExtended12Bit,
    JPEGLossless,
    JPEGLosslessSV1,
    JPEGLSLossless,
    JPEGLSNearLossless,
    RLELossless,
)


def frame_decoder(transfer_syntax: str, dtype: np.dtype) -> Callable[[bytes], Any] | None:
    """The function that decodes a frame of one sample a pixel to an array; none where there is no decoder.

    Decoders choose the type by the precision in the code: the result has the type `dtype`, or as many bits.
    """

    def rle(frame: bytes) -> np.ndarray:
        return np.frombuffer(bytearray(imagecodecs.dicomrle_decode(frame, dtype.str)), dtype)

    decoders: dict[str, Callable[[bytes], Any]] = {
        JPEGBaseline8Bit: imagecodecs.jpeg_decode,
        JPEGExtended12Bit: imagecodecs.jpeg_decode,
        JPEGLossless: imagecodecs.jpeg_decode,
        JPEGLosslessSV1: imagecodecs.jpeg_decode,
        JPEGLSLossless: imagecodecs.jpegls_decode,
        JPEGLSNearLossless: imagecodecs.jpegls_decode,
        JPEG2000Lossless: imagecodecs.jpeg2k_decode,
        JPEG2000: imagecodecs.jpeg2k_decode,
        HTJ2K: imagecodecs.jpeg2k_decode,
        HTJ2KLossless: imagecodecs.jpeg2k_decode,
        HTJ2KLosslessRPCL: imagecodecs.jpeg2k_decode,
        RLELossless: rle,
    }
    return decoders.get(transfer_syntax)
