"""Fourfold loss of resolution: the mean of blocks, and the bicubic filter."""

from __future__ import annotations

from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from i2sb_rt.operators.base import F32, F64

FACTOR: Final = 4


def _cubic(x: F64) -> F64:
    """Keys' cubic convolution kernel with a = -1/2 (IEEE ASSP 29, 1981, eq. 4)."""
    x, a = np.abs(x), -0.5
    near, far = (a + 2) * x**3 - (a + 3) * x**2 + 1, a * (x**3 - 5 * x**2 + 8 * x - 4)
    return np.where(x <= 1, near, np.where(x < 2, far, 0.0))


_CUBIC: Final = _cubic((np.arange(16) - 7.5) / FACTOR)
TAPS: Final[dict[str, F64]] = {"sr4x-pool": np.full(4, 1 / 4), "sr4x-bicubic": _CUBIC / _CUBIC.sum()}
"""The 1-D filters; the middle of each lies in the middle of the four samples that one is made of."""


def reduced(image: NDArray[Any], name: str) -> F64:
    """Filter and take every fourth sample along both axes: [C, H, W] to [C, ceil(H / 4), ceil(W / 4)].

    Beyond the border the image is mirrored, its last pixel twice. As the reference does, but for its zeroing of
    singular values below 3e-2: there are none (the smallest is 0.34).
    """
    return _reduced(_reduced(image.astype(np.float64), TAPS[name], 1), TAPS[name], 2)


def coarse(image: F32, name: str) -> F64:
    """Return the reduced image, every pixel of it repeated four times along both axes: [C, H, W] to the same."""
    height, width = image.shape[1:]
    return reduced(image, name).repeat(FACTOR, axis=1).repeat(FACTOR, axis=2)[:, :height, :width]


def _reduced(image: F64, taps: F64, axis: int) -> F64:
    """Return y[i] = sum_k taps[k] x[4 i + k - margin] along an axis."""
    size = image.shape[axis]
    count, margin = -(-size // FACTOR), (len(taps) - FACTOR) // 2
    margins = [(margin, margin + -size % FACTOR) if a == axis else (0, 0) for a in range(3)]
    wide = np.moveaxis(np.pad(image, margins, mode="symmetric"), axis, 0)
    span = FACTOR * (count - 1) + 1
    small = sum((tap * wide[k : k + span : FACTOR] for k, tap in enumerate(taps)), np.zeros(()))
    return np.moveaxis(small, 0, axis)
