"""Holes that are filled smoothly from what is known around them."""

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from i2sb_rt import _core

F32 = NDArray[np.float32]


def holes(seed: int, height: int, width: int, share: float) -> F32:
    """Boxes that cover about a share of a picture."""
    rng, mask = np.random.default_rng(seed), np.zeros((height, width), np.float32)
    while mask.mean() < share:
        top, left = rng.integers(height), rng.integers(width)
        mask[top : top + rng.integers(1, 9), left : left + rng.integers(1, 9)] = 1
    return mask


@given(
    seed=st.integers(0, 2**32 - 1), channels=st.integers(1, 4), height=st.integers(1, 40), width=st.integers(1, 40),
    share=st.floats(0, 1),
)  # fmt: skip
def test_known_pixels_stay_and_holes_stay_between_them(
    seed: int, channels: int, height: int, width: int, share: float
) -> None:
    planes = np.random.default_rng(seed).uniform(-1, 1, (channels, height, width)).astype(np.float32)
    mask = holes(seed, height, width, share)
    hole = mask == 1
    filled = _core.fill_hole(np.where(hole, np.float32(np.nan), planes), mask)
    np.testing.assert_array_equal(filled[:, ~hole], planes[:, ~hole])
    assert np.isfinite(filled).all()
    if hole.all():
        assert not filled.any()
    else:  # a membrane is nowhere higher or lower than where it is held
        for found, known in zip(filled, planes, strict=True):
            assert found.min() >= known[~hole].min() - 1e-6
            assert found.max() <= known[~hole].max() + 1e-6
    np.testing.assert_array_equal(_core.fill_hole(planes, mask), filled)  # whatever a hole held


def test_a_slope_goes_on_through_a_hole() -> None:
    y, x = np.mgrid[:48, :70].astype(np.float32)
    slope = np.stack([x / 70 - 0.5, y / 48 - 0.3, (x - y) / 100])
    mask = np.zeros((48, 70), np.float32)
    mask[10:31, 20:44] = 1
    assert np.abs(_core.fill_hole(slope, mask) - slope).max() < 0.04
    flat = np.full_like(slope, 0.3)
    np.testing.assert_allclose(_core.fill_hole(flat, mask), flat, rtol=1e-6)


def test_each_channel_and_each_hole_stands_alone() -> None:
    planes = np.random.default_rng(0).uniform(-1, 1, (3, 32, 32)).astype(np.float32)
    mask = np.zeros((32, 32), np.float32)
    mask[4:9, 5:20] = 1
    together = _core.fill_hole(planes, mask)
    for k in range(3):
        np.testing.assert_array_equal(_core.fill_hole(planes[k : k + 1].copy(), mask)[0], together[k])


def test_wrong_shapes_are_refused() -> None:
    with pytest.raises(ValueError, match="mask must be"):
        _core.fill_hole(np.zeros((3, 4, 5), np.float32), np.zeros((5, 4), np.float32))
    with pytest.raises(TypeError):
        _core.fill_hole(np.zeros((3, 4, 5)), np.zeros((4, 5), np.float32))  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="at least 1"):
        _core.fill_hole(np.zeros((3, 0, 5), np.float32), np.zeros((0, 5), np.float32))


@pytest.mark.parametrize("shown", ["0", "1"])
def test_restoring_begins_with_the_filled_hole(open_model: Callable[..., _core.Model], shown: str) -> None:
    rng = np.random.default_rng(4)
    picture = rng.integers(0, 256, (21, 30, 3), np.uint8)  # padded to 24 x 32
    mask = (rng.random((21, 30)) < 0.3).astype(np.uint8)
    seen: list[F32] = []

    def network(x: F32, t: F32) -> F32:
        seen.append(x.copy())
        return x[:, :3].copy()

    row = np.zeros((1, 10), np.float32)
    row[0, [2, 4]] = 1  # x' = x0 = what the network says
    model = open_model(fill="smooth", cond_mask=shown, task="inpaint")
    restored = _core.restore(model, _core.Engine.callback(network), row, picture, mask=mask, seed=9, tile=0)
    padded = np.pad(picture.astype(np.float32) / np.float32(127.5) - 1, ((0, 3), (0, 2), (0, 0)), "reflect")
    hole = np.pad(mask, ((0, 3), (0, 2)), "reflect").astype(np.float32)
    filled = _core.fill_hole(np.ascontiguousarray(padded.transpose(2, 0, 1)), hole)
    np.testing.assert_array_equal(seen[0][0, :3], filled)
    np.testing.assert_array_equal(restored[mask == 0], picture[mask == 0])
    wanted = np.rint((filled[:, :21, :30] + 1) * 127.5).transpose(1, 2, 0)
    np.testing.assert_array_equal(restored[mask == 1], wanted[mask == 1])
