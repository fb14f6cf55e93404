"""Training pairs: the qualities and subsamplings asked for, and the position of the grid."""

import io
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image, JpegImagePlugin

from i2sb_rt.operators.jpeg import compress
from i2sb_train import degrade
from i2sb_train.degrade import MARGIN, jpeg_pair
from i2sb_train.recipe import Degradation

CROP = 32


def picture(side: int = CROP + 2 * MARGIN, seed: int = 0) -> NDArray[np.uint8]:
    rng = np.random.default_rng(seed)
    ramp = np.linspace(0, 180, side)[:, None, None] * np.ones((1, side, 3))
    return (ramp + rng.uniform(0, 70, (side, side, 3))).astype(np.uint8)


def test_the_subsampling_is_the_one_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[int] = []
    real = Image.open

    def spy(file: io.BytesIO) -> Image.Image:
        image = real(file)
        seen.append(JpegImagePlugin.get_sampling(image))
        return image

    monkeypatch.setattr(Image, "open", spy)
    for name in degrade.SUBSAMPLINGS:
        assert compress(picture(), 50, name).shape == picture().shape
    assert seen == [0, 1, 2]


def draws(monkeypatch: pytest.MonkeyPatch, count: int, **config: Any) -> list[tuple[int, str]]:
    """The (quality, subsampling) of many pairs."""
    seen: list[tuple[int, str]] = []

    def spy(image: NDArray[np.uint8], quality: int, subsampling: str) -> NDArray[np.uint8]:
        seen.append((quality, subsampling))
        return image

    monkeypatch.setattr(degrade, "compress", spy)
    rng = np.random.default_rng(0)
    for _ in range(count):
        jpeg_pair(picture(), CROP, Degradation(kind="jpeg", **config), rng)
    return seen


def test_qualities_cover_their_range_and_no_more(monkeypatch: pytest.MonkeyPatch) -> None:
    qualities = [quality for quality, _ in draws(monkeypatch, 6000, quality=[5, 60])]
    assert (min(qualities), max(qualities)) == (5, 60)
    # Log-uniform: as many below the geometric mean of the ends as above.
    below = np.mean(np.array(qualities) <= round((5 * 61) ** 0.5) - 1)
    assert below == pytest.approx(0.5, abs=0.03)


def test_one_quality_is_that_quality(monkeypatch: pytest.MonkeyPatch) -> None:
    assert {quality for quality, _ in draws(monkeypatch, 50, quality=[7, 7])} == {7}


def test_subsamplings_are_drawn_by_their_weights(monkeypatch: pytest.MonkeyPatch) -> None:
    names = [name for _, name in draws(monkeypatch, 3000, subsampling=[1, 0, 3])]
    assert set(names) == {"4:4:4", "4:2:0"}
    assert names.count("4:2:0") / len(names) == pytest.approx(0.75, abs=0.03)


def test_an_aligned_crop_is_cut_from_the_compressed_region() -> None:
    region = picture()
    config = Degradation(kind="jpeg", quality=[10, 10], subsampling=[0, 0, 1], shifted=0)
    clean, damaged = jpeg_pair(region, CROP, config, np.random.default_rng(0))
    window = slice(MARGIN, MARGIN + CROP)
    assert np.array_equal(clean, region[window, window])
    assert np.array_equal(damaged, compress(region, 10)[window, window])


def test_shifted_crops_cover_every_position_of_the_grid() -> None:
    side = CROP + 2 * MARGIN
    rows, columns = np.indices((side, side), dtype=np.uint8)
    region = np.stack([rows, columns, rows], axis=-1)
    config = Degradation(kind="jpeg", quality=[50, 50], shifted=1)
    rng = np.random.default_rng(0)
    origins = np.array([jpeg_pair(region, CROP, config, rng)[0][0, 0, :2] for _ in range(600)])
    assert {tuple(origin % 8) for origin in origins} == {(y, x) for y in range(8) for x in range(8)}
