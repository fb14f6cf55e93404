"""PSNR and SSIM against their definitions."""

import numpy as np
import pytest
from numpy.typing import NDArray

from i2sb_train.metrics import psnr, ssim


def pictures(shape: tuple[int, ...] = (14, 13, 3)) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    rng = np.random.default_rng(0)
    a = rng.integers(0, 256, shape, dtype=np.uint8)
    return a, np.clip(a + rng.normal(0, 20, shape), 0, 255).astype(np.uint8)


def test_psnr_of_known_errors() -> None:
    zeros = np.zeros((4, 4, 3), np.uint8)
    assert psnr(zeros, zeros) == float("inf")
    assert psnr(zeros, zeros + 255) == 0
    assert psnr(zeros, zeros + 1) == pytest.approx(48.1308, abs=1e-4)


def test_ssim_equals_a_sum_over_every_window() -> None:
    a, b = pictures()
    offsets = np.arange(11) - 5
    weights = np.exp(-(offsets[:, None] ** 2 + offsets[None] ** 2) / (2 * 1.5**2))[..., None]
    weights /= weights.sum()
    values = []
    for y in range(4):
        for x in range(3):
            p, q = (image[y : y + 11, x : x + 11].astype(float) for image in (a, b))
            mp, mq = (weights * p).sum((0, 1)), (weights * q).sum((0, 1))
            vp, vq = (weights * (p - mp) ** 2).sum((0, 1)), (weights * (q - mq) ** 2).sum((0, 1))
            cov = (weights * (p - mp) * (q - mq)).sum((0, 1))
            c1, c2 = 2.55**2, 7.65**2
            values.append((2 * mp * mq + c1) * (2 * cov + c2) / ((mp**2 + mq**2 + c1) * (vp + vq + c2)))
    assert ssim(a, b) == pytest.approx(np.mean(values), abs=1e-9)


def test_ssim_is_one_for_equal_pictures_and_symmetric() -> None:
    a, b = pictures((32, 32, 3))
    assert ssim(a, a) == pytest.approx(1)
    assert ssim(a, b) == pytest.approx(ssim(b, a))
    assert ssim(a, b) < 1
