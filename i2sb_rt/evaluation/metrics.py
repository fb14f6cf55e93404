"""How close a picture is to the clean one, and how sharp; both uint8 RGB [H, W, 3]."""

from __future__ import annotations

from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from i2sb_rt.errors import UsageError
from i2sb_rt.image import U8

SSIM_WINDOW: Final = 11
"""Pixels along a side of SSIM's window: a Gaussian of sigma 1.5, cut off at 3.5 sigma."""

_LUMA: Final = np.array([0.299, 0.587, 0.114])


def psnr(clean: U8, picture: U8) -> float:
    """Return 10 log10(255^2 / MSE) in dB, with the mean square error over all three channels; infinite where equal.

    The one metric that training needs too, so it is not left to scikit-image, whose value it has.
    """
    error = np.mean((clean.astype(np.float64) - picture) ** 2)
    with np.errstate(divide="ignore"):
        return float(10 * np.log10(255**2 / error))


def ssim(clean: U8, picture: U8) -> float:
    """Return the structural similarity, at most 1: the mean over the three channels.

    The window is a Gaussian of 11 pixels and sigma 1.5, only where it lies inside the picture; variances are those of
    a population. Source: Wang, Bovik, Sheikh, Simoncelli 2004, eq. 13. Raises UsageError for sides below 11, and where
    scikit-image is not installed.
    """
    metrics = skimage_metrics()
    at_least("ssim", clean, SSIM_WINDOW)
    return float(
        metrics.structural_similarity(
            clean,
            picture,
            data_range=255,
            channel_axis=2,
            gaussian_weights=True,
            sigma=1.5,
            use_sample_covariance=False,
        )
    )


def sharpness(clean: U8, picture: U8) -> float:
    """Return how sharp the picture is, in percent of the clean one: 100 mean |L y| / mean |L y_clean|.

    y = 0.299 R + 0.587 G + 0.114 B is the luma (BT.601); L y is the sum of the four neighbours less 4 y, taken where
    all four are inside the picture. Below 100 the picture is smoother than the clean one, above it has more contrast
    between neighbours: detail, or noise. Raises UsageError for sides below 3, and where the clean picture is flat.
    """
    at_least("sharpness", clean, 3)
    whole = _contrast(clean)
    if not whole:
        raise UsageError("the clean picture is flat, so there is no sharpness to compare with; leave out that metric")
    return 100 * _contrast(picture) / whole


def at_least(metric: str, picture: NDArray[Any], side: int) -> None:
    """Refuse pictures that are too small for a metric. Raises UsageError."""
    height, width = picture.shape[:2]
    if min(height, width) < side:
        size = f"{width} x {height}"
        raise UsageError(f"the metric {metric} needs sides of at least {side} pixels, not {size}; leave it out")


def skimage_metrics() -> Any:
    """Return scikit-image's metrics; raises UsageError where they are missing."""
    try:
        from skimage import metrics
    except ImportError as error:
        raise UsageError("the metric ssim needs scikit-image: pip install 'i2sb-rt[eval]'") from error
    return metrics


def _contrast(picture: U8) -> float:
    """Return the mean of the absolute Laplacian of the luma."""
    y = picture @ _LUMA
    laplacian = y[:-2, 1:-1] + y[2:, 1:-1] + y[1:-1, :-2] + y[1:-1, 2:] - 4 * y[1:-1, 1:-1]
    return float(np.abs(laplacian).mean())
