"""Training pairs: the qualities and subsamplings asked for, and the position of the grid."""

import io
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image, JpegImagePlugin

from i2sb_rt import operators
from i2sb_rt.image import Picture
from i2sb_rt.operators import pictures
from i2sb_rt.operators.blur import gaussian_blur
from i2sb_rt.operators.jpeg import compress
from i2sb_train import degrade
from i2sb_train.degrade import MARGIN, jpeg_pair, operated, training_hole, training_sample
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


LOCAL = ["jpeg-10-exact", "jpeg-10", "blur-uni-exact", "blur-gauss-exact", "sr4x-pool", "sr4x-bicubic"]


def rng_of(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


@pytest.mark.parametrize("name", [*LOCAL, "gaussian-blur"])
def test_a_crop_is_damaged_as_its_whole_picture_would_be(name: str) -> None:
    whole = picture(CROP + 2 * MARGIN + 48)
    config = Degradation(kind="operators", operators=[name], sigma=[3.0, 3.0])
    region = whole[16 : 16 + CROP + 2 * MARGIN, 32 : 32 + CROP + 2 * MARGIN]
    clean, damaged, mask = training_sample((region,), CROP, config, rng_of())
    window = (slice(16 + MARGIN, 16 + MARGIN + CROP), slice(32 + MARGIN, 32 + MARGIN + CROP))
    assert mask is None
    assert np.array_equal(clean, whole[window])
    assert np.array_equal(damaged, operated(whole, name, config, rng_of())[window])
    if name in LOCAL:  # What `i2sb-rt degrade` writes.
        written = pictures.degrade(Picture(whole, None, None), operators.get(name), 0, None, full_size=True)
        assert np.array_equal(damaged, written.colour[window])


def test_a_gaussian_spreads_a_point_as_wide_as_it_says() -> None:
    point = np.zeros((3, 41, 61), np.float32)
    point[:, 20, 30] = 1
    blurred = gaussian_blur(point, 2.5)
    assert blurred.sum() == pytest.approx(3)
    rows, columns = np.arange(41) - 20, np.arange(61) - 30
    assert (blurred[0].sum(axis=1) * rows**2).sum() == pytest.approx(2.5**2, rel=1e-3)
    assert (blurred[0].sum(axis=0) * columns**2).sum() == pytest.approx(2.5**2, rel=1e-3)
    np.testing.assert_allclose(gaussian_blur(np.full((3, 9, 11), 0.3, np.float32), 4.0), 0.3, rtol=1e-6)


def test_operators_are_equally_likely_and_strength_is_within_its_band(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[float] = []
    real = degrade.gaussian_blur
    monkeypatch.setattr(degrade, "gaussian_blur", lambda x, sigma: real(x, seen.append(sigma) or sigma))
    names = ["sr4x-pool", "gaussian-blur", "blur-gauss-exact"]
    config, rng = Degradation(kind="operators", operators=names, sigma=[1.0, 2.0]), rng_of()
    for _ in range(600):
        training_sample((picture(8 + 2 * MARGIN),), 8, config, rng)
    assert len(seen) / 600 == pytest.approx(1 / 3, abs=0.06)
    assert 1 <= min(seen) < 1.1
    assert 1.9 < max(seen) <= 2


def test_noise_is_as_strong_as_asked_for_and_then_clamped() -> None:
    grey = np.full((120, 120, 3), 128, np.uint8)
    config = Degradation(kind="operators", operators=["blur-gauss-exact"], noise=[5.0, 5.0])
    assert operated(grey, "blur-gauss-exact", config, rng_of()).std() == pytest.approx(5, rel=0.03)
    white = operated(grey | 255, "blur-gauss-exact", config, rng_of())
    assert (white.min() > 200, white.max(), (white == 255).mean() > 0.4) == (True, 255, True)
    strengths = Degradation(kind="operators", operators=["blur-gauss-exact"], noise=[0.0, 4.0])
    spreads = [operated(grey, "blur-gauss-exact", strengths, rng_of(i)).std() for i in range(40)]
    assert min(spreads) < 1
    assert 3 < max(spreads) < 4.2


def test_a_small_picture_is_noisy_before_it_is_enlarged() -> None:
    config = Degradation(kind="operators", operators=["sr4x-bicubic"], noise=[5.0, 5.0])
    damaged = operated(np.full((120, 119, 3), 128, np.uint8), "sr4x-bicubic", config, rng_of())
    assert damaged.shape == (120, 119, 3)
    assert np.array_equal(damaged, damaged[::4, ::4].repeat(4, 0).repeat(4, 1)[:, :119])
    assert damaged[::4, ::4].std() == pytest.approx(5, rel=0.06)


def holes(count: int, crop: int = 48, **config: Any) -> NDArray[np.bool_]:
    rng = rng_of()
    return np.stack([training_hole(crop, Degradation(kind="inpaint", **config), rng) for _ in range(count)])


def test_strokes_cover_their_share_of_the_crop() -> None:
    shares = holes(60, strokes=[0.1, 0.3], boxes=0.0).mean(axis=(1, 2))
    assert 0.1 <= shares.min() < 0.13
    assert 0.27 < shares.max() <= 0.3


def test_zoomed_strokes_are_wider_and_no_crop_is_without_a_hole() -> None:
    near, far = (holes(80, strokes=[0.1, 0.2], boxes=0.0, zoom=zoom) for zoom in (1.0, 6.0))
    assert far.shape == (80, 48, 48)
    assert far.any(axis=(1, 2)).all()

    def edges(masks: NDArray[np.bool_]) -> float:
        return float(np.mean(masks[:, 1:] != masks[:, :-1]) / masks.mean())

    assert edges(far) < 0.6 * edges(near)


def test_boxes_are_rectangles_of_the_sides_asked_for() -> None:
    masks = holes(200, boxes=1.0, box=[0.25, 0.5])
    for mask in masks:
        rows, columns = mask.any(axis=1), mask.any(axis=0)
        assert np.array_equal(mask, rows[:, None] & columns)
        assert 12 <= rows.sum() <= 24
        assert 12 <= columns.sum() <= 24
    assert all(masks[:, end].any() and masks[:, :, end].any() for end in (0, -1))


def test_boxes_are_as_many_as_their_weight_says() -> None:
    masks = holes(300, boxes=0.25, strokes=[0.1, 0.2])
    full = [np.array_equal(m, m.any(axis=1)[:, None] & m.any(axis=0)) for m in masks]
    assert np.mean(full) == pytest.approx(0.25, abs=0.08)


def test_a_hole_is_grey_and_the_rest_is_clean() -> None:
    region = picture()
    clean, damaged, mask = training_sample((region,), CROP, Degradation(kind="inpaint"), rng_of())
    assert mask is not None
    assert np.array_equal(clean, region[MARGIN : MARGIN + CROP, MARGIN : MARGIN + CROP])
    assert np.array_equal(damaged[~mask], clean[~mask])
    assert (damaged[mask] == 128).all()
