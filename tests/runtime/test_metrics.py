"""PSNR and SSIM against scikit-image and their definitions, sharpness against its own, and what is refused."""

import sys

import numpy as np
import pytest
from numpy.typing import NDArray
from skimage.metrics import peak_signal_noise_ratio, structural_similarity

from i2sb_rt.errors import UsageError
from i2sb_rt.evaluation.metrics import psnr, sharpness, ssim
from i2sb_rt.evaluation.scores import NAMES, Scorer

U8 = NDArray[np.uint8]


def pair(seed: int, height: int, width: int) -> tuple[U8, U8]:
    """A smooth picture with some grain, and a noisy one."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:height, :width] / rng.uniform(3, 20)
    clean = 127 + 90 * np.sin(x + np.arange(3)[:, None, None]) * np.cos(y) + rng.normal(0, 8, (3, height, width))
    noisy = clean + rng.normal(0, rng.uniform(1, 40), clean.shape)
    first, second = (plane.clip(0, 255).astype(np.uint8).transpose(1, 2, 0) for plane in (clean, noisy))
    return first, second


@pytest.mark.parametrize("seed", range(20))
def test_psnr_and_ssim_are_scikit_images(seed: int) -> None:
    clean, noisy = pair(seed, 11 + seed % 7, 11 + 5 * seed)
    assert psnr(clean, noisy) == pytest.approx(peak_signal_noise_ratio(clean, noisy, data_range=255), abs=1e-6)
    options = {"gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False, "data_range": 255}
    wanted = structural_similarity(clean, noisy, channel_axis=2, **options)
    assert ssim(clean, noisy) == pytest.approx(wanted, abs=1e-6)


def test_psnr_of_known_errors() -> None:
    zeros = np.zeros((4, 4, 3), np.uint8)
    assert psnr(zeros, zeros) == float("inf")
    assert psnr(zeros, zeros + 255) == 0
    assert psnr(zeros, zeros + 1) == pytest.approx(48.1308, abs=1e-4)
    one_channel = zeros + np.array([3, 0, 0], np.uint8)
    assert psnr(zeros, one_channel) == pytest.approx(10 * np.log10(255**2 / 3))


def test_ssim_equals_a_sum_over_every_window() -> None:
    a, b = pair(0, 14, 13)
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
    assert ssim(a, a) == pytest.approx(1)


def test_sharpness_is_the_ratio_of_mean_laplacians() -> None:
    clean, noisy = pair(3, 9, 8)

    def contrast(image: U8) -> float:
        y = image.astype(float) @ [0.299, 0.587, 0.114]
        found = [
            abs(y[i - 1, j] + y[i + 1, j] + y[i, j - 1] + y[i, j + 1] - 4 * y[i, j])
            for i in range(1, 8)
            for j in range(1, 7)
        ]
        return float(np.mean(found))

    assert sharpness(clean, noisy) == pytest.approx(100 * contrast(noisy) / contrast(clean))
    assert sharpness(clean, clean) == 100
    assert sharpness(clean, noisy) > 100
    assert sharpness(noisy, clean) < 100
    assert sharpness(clean, np.full_like(clean, 7)) == pytest.approx(0, abs=1e-9)


def test_what_is_too_small_or_flat_is_refused() -> None:
    with pytest.raises(UsageError, match="ssim needs sides of at least 11 pixels, not 30 x 10"):
        ssim(*pair(0, 10, 30))
    with pytest.raises(UsageError, match="sharpness needs sides of at least 3"):
        sharpness(*pair(0, 2, 30))
    with pytest.raises(UsageError, match="flat"):
        sharpness(np.zeros((9, 9, 3), np.uint8), pair(0, 9, 9)[0])


def test_a_missing_library_is_a_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "skimage", None)
    with pytest.raises(UsageError, match=r"ssim needs scikit-image: pip install 'i2sb-rt\[eval\]'"):
        Scorer(["ssim"])
    Scorer(["psnr", "sharpness"])


def test_a_scorer_computes_what_it_is_asked_for() -> None:
    scorer = Scorer(["ssim", "psnr"])
    pairs = [pair(seed, 20, 30) for seed in range(3)]
    scores = [scorer.score(*both) for both in pairs]
    assert [list(score.values) for score in scores] == [["ssim", "psnr"]] * 3
    summary = scorer.summary([score.features for score in scores], scores)
    assert summary == {
        "ssim": pytest.approx(np.mean([ssim(*both) for both in pairs])),
        "psnr": pytest.approx(np.mean([psnr(*both) for both in pairs])),
    }
    with pytest.raises(UsageError, match="no metric 'vif'; there are psnr, ssim, sharpness, lpips, fid, kid"):
        Scorer(["vif"])
    assert NAMES[:2] == ("psnr", "ssim")
