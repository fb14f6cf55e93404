"""Blur: that of DDRM's code with its slips, which the official I2SB checkpoints were trained on, and a true one."""

from __future__ import annotations

import math
import threading
from functools import lru_cache
from typing import Final, Literal

import numpy as np

from i2sb_rt.operators.base import F32, F64

_GAUSS: Final = np.exp(-0.5 * (np.arange(-2, 3) / 10) ** 2)
TAPS: Final[dict[str, F64]] = {"blur-uni": np.full(9, 1 / 9), "blur-gauss": _GAUSS / _GAUSS.sum()}
"""The 1-D kernels: 9 equal taps; 5 taps of a Gaussian of sigma 10 (nearly equal, too)."""

_CUT: Final = 3e-2
_NULL: Final = 1e-9
_LOCK: Final = threading.Lock()


def matrix(name: str, size: int) -> F64:
    """Return the 1-D blur [size, size] of DDRM: the last tap is left out, and beyond the border there are zeros."""
    taps = TAPS[name]
    half = len(taps) // 2
    offsets = range(-half, half)  # a true kernel would end at +half, included
    return sum((taps[half + k] * np.eye(size, k=k) for k in offsets), np.zeros((size, size)))


@lru_cache(maxsize=8)
def _svd(name: str, size: int) -> tuple[F64, F64, F64]:
    u, s, vt = np.linalg.svd(matrix(name, size))
    return u, s, vt


def _svd_once(name: str, size: int) -> tuple[F64, F64, F64]:
    """Return U, s, V' of a 1-D blur; threads that ask for the same one at once wait for the first."""
    with _LOCK:
        return _svd(name, size)


def ddrm_blur(image: F32, name: str) -> F64:
    """Blur as DDRM's separable SVD does (arXiv 2201.11793), in [0, 1]: y = U_h (g o (V_h' x V_w)) U_w'.

    image: [3, H, W] in [-1, 1]. g are the products of the 1-D singular values, those below 3e-2 zeroed, but in a wrong
    order: coefficient number p in falling order of its singular value (equal ones in the order of their index) meets in
    channel c the one of number (3 p + c) mod H W. Images come out darker, as the matrices let through 0.79 (uniform)
    and 0.64 (Gaussian) of a constant. Directions that a matrix loses wholly (`blur-uni`, sides other than 8 k and
    8 k + 1) stay lost here, where the original would give what its SVD happens to pair them with.
    """
    height, width = image.shape[1:]
    (uh, sh, vh), (uw, sw, vw) = _svd_once(name, height), _svd_once(name, width)
    gain = misplaced_gains(np.where(sh < _CUT, 0, sh), np.where(sw < _CUT, 0, sw))
    gain *= np.outer(sh > _NULL, sw > _NULL)
    x = (image.astype(np.float64) + 1) / 2
    y: F64 = uh @ (gain * (vh @ x @ vw.T)) @ uw.T
    return 2 * y - 1


def misplaced_gains(rows: F64, columns: F64) -> F64:
    """Return g [3, H, W] of `ddrm_blur` from the singular values [H] and [W]."""
    products = np.outer(rows, columns).ravel()
    order = np.argsort(-products, kind="stable")
    numbers = np.arange(len(order))
    gain = np.empty((3, len(order)))
    for channel in range(3):
        gain[channel, order] = products[order][(3 * numbers + channel) % len(order)]
    return gain.reshape(3, len(rows), len(columns))


def exact_blur(image: F32, name: str) -> F64:
    """Convolve with the whole kernel along both axes; beyond the border the image is reflected, its last pixel once.

    image: [3, H, W] in [-1, 1]. A constant stays what it is.
    """
    return _convolved(_convolved(image.astype(np.float64), TAPS[name], 1), TAPS[name], 2)


def gaussian_blur(image: F32, sigma: float) -> F64:
    """Blur [3, H, W] with a Gaussian of `sigma` pixels, cut off at 6; beyond the border there is nothing.

    The weights that lie inside sum to 1, so a constant stays what it is.
    """
    half = math.ceil(6 * sigma)
    taps = np.exp(-0.5 * (np.arange(-half, half + 1) / sigma) ** 2)
    blurred = image.astype(np.float64)
    for axis in (1, 2):
        shape = [1, 1, 1]
        shape[axis] = image.shape[axis]
        blurred = _convolved(blurred, taps, axis, "constant") / _convolved(np.ones(shape), taps, axis, "constant")
    return blurred


def _convolved(image: F64, taps: F64, axis: int, border: Literal["reflect", "constant"] = "reflect") -> F64:
    """Return y[i] = sum_k taps[k] x[i + k - half] along an axis; the kernels are symmetric. constant: zeros outside."""
    half, size = len(taps) // 2, image.shape[axis]
    margins = [(half, half) if a == axis else (0, 0) for a in range(3)]
    wide = np.moveaxis(np.pad(image, margins, mode=border), axis, 0)
    blurred = sum((tap * wide[k : k + size] for k, tap in enumerate(taps)), np.zeros(()))
    return np.moveaxis(blurred, 0, axis)
