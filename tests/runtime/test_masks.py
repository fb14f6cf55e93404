import hashlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from i2sb_rt.errors import UsageError
from i2sb_rt.operators import center_mask, freeform_mask
from i2sb_rt.operators.base import Mask

BANDS = [(0.1, 0.2), (0.2, 0.3)]


def check_band(low: float, high: float, count: int) -> None:
    shares = np.array([freeform_mask(256, 256, low, high, seed).mean() for seed in range(count)])
    assert low <= shares.min()
    assert shares.max() <= high
    histogram, _ = np.histogram(shares, bins=5, range=(low, high))
    assert histogram.min() >= count / 5 * 0.5


@pytest.mark.parametrize(("low", "high"), BANDS)
def test_masks_lie_in_their_band_and_all_over_it(low: float, high: float) -> None:
    check_band(low, high, 60)


@pytest.mark.slow
@pytest.mark.parametrize(("low", "high"), BANDS)
def test_a_thousand_masks_lie_in_their_band_and_all_over_it(low: float, high: float) -> None:
    check_band(low, high, 1000)


def fingerprint(mask: Mask) -> str:
    return hashlib.sha256(np.packbits(mask).tobytes()).hexdigest()[:16]


def test_masks_stay_what_they_are_on_every_platform() -> None:
    assert fingerprint(freeform_mask(256, 256, 0.1, 0.2, 0)) == "2698b5cf7d853d97"
    assert fingerprint(freeform_mask(256, 256, 0.2, 0.3, 2**64 - 1)) == "156fe2663cf997bd"
    assert fingerprint(freeform_mask(37, 1000, 0.25, 0.5, 7)) == "a5cca8470375a26a"


@settings(max_examples=40)
@given(
    height=st.integers(8, 90),
    width=st.integers(8, 90),
    low=st.floats(0, 0.9),
    wide=st.floats(0.02, 0.1),
    seed=st.integers(0, 2**64 - 1),
)
def test_any_size_any_band(height: int, width: int, low: float, wide: float, seed: int) -> None:
    mask = freeform_mask(height, width, low, low + wide, seed)
    assert (mask.shape, mask.dtype) == ((height, width), np.bool_)
    assert low <= np.count_nonzero(mask) / mask.size <= low + wide
    np.testing.assert_array_equal(mask, freeform_mask(height, width, low, low + wide, seed))


def test_a_band_of_one_number_of_pixels_and_the_ends() -> None:
    assert freeform_mask(10, 10, 0.1, 0.1, 3).sum() == 10
    assert freeform_mask(10, 10, 0.29, 0.29, 3).sum() == 29  # in floats 0.29 * 100 lies below 29
    assert not freeform_mask(16, 16, 0, 0, 3).any()
    assert freeform_mask(16, 24, 1, 1, 3).all()


def pieces(mask: Mask) -> list[int]:
    """The sizes of the connected parts of a mask."""
    left, sizes = {(int(y), int(x)) for y, x in np.argwhere(mask)}, []
    while left:
        front, size = [left.pop()], 0
        while front:
            y, x = front.pop()
            size += 1
            for near in ((y - 1, x), (y + 1, x), (y, x - 1), (y, x + 1)):
                if near in left:
                    left.remove(near)
                    front.append(near)
        sizes.append(size)
    return sizes


def test_masks_are_a_few_thick_strokes() -> None:
    counts = []
    for seed in range(20):
        mask = freeform_mask(128, 128, 0.2, 0.3, seed)
        border = np.count_nonzero(mask[:, 1:] != mask[:, :-1]) + np.count_nonzero(mask[1:] != mask[:-1])
        assert border < 0.5 * np.count_nonzero(mask)  # salt and pepper has some 3 a pixel
        counts.append(len(pieces(mask)))
    assert max(counts) <= 8
    assert 1.5 < np.mean(counts) < 5
    assert len({fingerprint(freeform_mask(128, 128, 0.2, 0.3, seed)) for seed in range(20)}) == 20


def test_strokes_reach_every_part_of_the_image() -> None:
    share = np.mean([freeform_mask(64, 96, 0.2, 0.3, seed) for seed in range(200)], axis=0)
    assert share.min() > 0.05
    assert share.max() < 0.5


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ((7, 64, 0.1, 0.2), "7 x 64"),
        ((64, -3, 0.1, 0.2), "64 x -3"),
        ((8, 8, 0.001, 0.002), "64 pixels"),
        ((64, 64, 0.2, 0.1), "low <= high"),
        ((64, 64, -0.1, 0.1), "low <= high"),
        ((64, 64, 0.1, 1.1), "low <= high"),
        ((64, 64, float("nan"), 0.1), "low <= high"),
        ((64, 64, 0.1, 0.2, -1), "seed"),
        ((64, 64, 0.1, 0.2, 2**64), "seed"),
    ],
)
def test_what_cannot_be_is_refused(arguments: tuple[int, int, float, float], words: str) -> None:
    with pytest.raises(UsageError, match=words):
        freeform_mask(*arguments)


def test_the_middle() -> None:
    mask = center_mask(8, 12)
    assert mask[2:6, 3:9].all()
    assert mask.sum() == 24
    assert center_mask(256, 256)[64:192, 64:192].sum() == center_mask(256, 256).sum()
    assert [center_mask(1, n).sum() for n in range(1, 9)] == [1, 2, 3, 2, 3, 4, 5, 4]
    with pytest.raises(UsageError):
        center_mask(0, 4)
