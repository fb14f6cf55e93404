"""How close two pictures are: PSNR and SSIM on uint8 RGB."""

from __future__ import annotations

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

Pixels = NDArray[np.uint8]

_WINDOW, _SIGMA = 11, 1.5
_C1, _C2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2


def psnr(a: Pixels, b: Pixels) -> float:
    """Compute the peak signal-to-noise ratio of two pictures [H, W, 3] over all channels, in dB; infinite if equal."""
    error = float(np.mean((a.astype(np.float64) - b.astype(np.float64)) ** 2))
    return float("inf") if error == 0 else 10 * float(np.log10(255.0**2 / error))


def ssim(a: Pixels, b: Pixels) -> float:
    """Compute the structural similarity of two pictures [H, W, 3], sides at least 11; the mean over the channels.

    Gaussian window of 11 pixels and sigma 1.5, only where it lies inside the picture. Source: Wang, Bovik, Sheikh,
    Simoncelli 2004, eq. 13, with population variances.
    """
    x, y = a.astype(np.float64), b.astype(np.float64)
    mx, my = _blur(x), _blur(y)
    vx, vy, cov = _blur(x * x) - mx * mx, _blur(y * y) - my * my, _blur(x * y) - mx * my
    similarity = (2 * mx * my + _C1) * (2 * cov + _C2) / ((mx * mx + my * my + _C1) * (vx + vy + _C2))
    return float(similarity.mean())


def _blur(image: NDArray[np.float64]) -> NDArray[np.float64]:
    kernel = np.exp(-0.5 * ((np.arange(_WINDOW) - _WINDOW // 2) / _SIGMA) ** 2)
    kernel /= kernel.sum()
    for axis in (0, 1):
        image = sliding_window_view(image, _WINDOW, axis=axis) @ kernel
    return image
