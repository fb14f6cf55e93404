"""JPEG compression: the one of DDRM, on real numbers, and that of libjpeg."""

from __future__ import annotations

import io
from functools import lru_cache
from typing import Final

import numpy as np
from PIL import Image

from i2sb_rt.errors import UsageError
from i2sb_rt.operators.base import F32, F64, U8, from_bytes, to_bytes

# ITU T.81, annex K: the tables of quality 50, for luma and for chroma.
_LUMA: Final = np.array(
    [
        [16, 11, 10, 16, 24, 40, 51, 61],
        [12, 12, 14, 19, 26, 58, 60, 55],
        [14, 13, 16, 24, 40, 57, 69, 56],
        [14, 17, 22, 29, 51, 87, 80, 62],
        [18, 22, 37, 56, 68, 109, 103, 77],
        [24, 35, 55, 64, 81, 104, 113, 92],
        [49, 64, 78, 87, 103, 121, 120, 101],
        [72, 92, 95, 98, 112, 100, 103, 99],
    ],
    np.float64,
)
_CHROMA: Final = np.full((8, 8), 99.0)
_CHROMA[:4, :4] = [[17, 18, 24, 47], [18, 21, 26, 66], [24, 26, 56, 99], [47, 66, 99, 99]]

# JFIF's RGB to YCbCr with four decimals; the way back is its exact inverse, not JFIF's own rounded one.
_TO_YCC: Final = np.array([[0.299, 0.587, 0.114], [-0.1687, -0.3313, 0.5], [0.5, -0.4187, -0.0813]])
_TO_RGB: Final = np.linalg.inv(_TO_YCC)

# The orthonormal DCT-II of 8 samples: C[k, n] = a_k cos(pi k (2n + 1) / 16), a_0 = sqrt(1/8), else 1/2.
_K: Final = np.arange(8)
_LONGEST: Final = 65500  # pixels of a side, in libjpeg
_DCT: Final = np.where(_K == 0, np.sqrt(1 / 8), 0.5)[:, None] * np.cos(np.pi * np.outer(_K, 2 * _K + 1) / 16)


@lru_cache(maxsize=100)
def tables(quality: int) -> tuple[F64, F64]:
    """Return the quantisation tables [8, 8] of luma and chroma for a quality of 1 to 100, as the IJG scales them."""
    scale = 5000 / quality if quality < 50 else 200 - 2 * quality
    luma, chroma = (np.clip(np.floor((scale * table + 50) / 100), 1, 255) for table in (_LUMA, _CHROMA))
    return luma, chroma


def ddrm_jpeg(image: F32, quality: int) -> F64:
    """Compress as DDRM does (arXiv 2209.11888), which the official I2SB checkpoints were trained on.

    image: [3, H, W] in [-1, 1]. Nothing is rounded but the DCT coefficients and nothing is clamped, so the result can
    leave [-1, 1]; chroma is every second sample of every second row, and each is repeated on the way back. Sides that
    are no multiple of 16 are filled up with their last pixels, as encoders do, and cut off again.
    """
    height, width = image.shape[1:]
    filled = np.pad(image.astype(np.float64), ((0, 0), (0, -height % 16), (0, -width % 16)), mode="edge")
    luma, chroma = tables(quality)
    y, cb, cr = np.tensordot(_TO_YCC, (filled + 1) * 127.5, 1)  # chroma here has no offset of 128, luma has
    y = _coded(y - 128, luma) + 128
    cb, cr = (_coded(plane[::2, ::2], chroma).repeat(2, axis=0).repeat(2, axis=1) for plane in (cb, cr))
    decoded: F64 = np.tensordot(_TO_RGB, np.stack([y, cb, cr]), 1) / 127.5 - 1
    return decoded[:, :height, :width]


def libjpeg(image: F32, quality: int) -> F32:
    """Compress and decode with libjpeg, chroma 4:2:0, after rounding to bytes. image: [3, H, W] in [-1, 1]."""
    return from_bytes(compress(to_bytes(image), quality))


def compress(pixels: U8, quality: int, subsampling: str = "4:2:0") -> U8:
    """Compress and decode uint8 [H, W, 3] with libjpeg. subsampling: 4:4:4, 4:2:2, or 4:2:0, which is Pillow's own.

    Raises UsageError for a side that JPEG cannot have.
    """
    if max(pixels.shape[:2]) > _LONGEST:
        raise UsageError(f"JPEG holds sides of at most {_LONGEST} pixels, not {max(pixels.shape[:2])}")
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "JPEG", quality=quality, subsampling=subsampling)
    with Image.open(buffer) as decoded:
        return np.asarray(decoded)


def _coded(plane: F64, table: F64) -> F64:
    """Return what is left of a plane after coding: round(C b C' / q) q for each block b of 8 by 8, transformed back."""
    height, width = plane.shape
    blocks = plane.reshape(height // 8, 8, width // 8, 8).swapaxes(1, 2)
    kept = np.rint(_DCT @ blocks @ _DCT.T / table) * table
    decoded: F64 = (_DCT.T @ kept @ _DCT).swapaxes(1, 2).reshape(height, width)
    return decoded
