"""Tiles: where they lie, and that nobody can see them."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from onnx_files import make_onnx

from i2sb_rt import _core

F32 = NDArray[np.float32]


@given(st.integers(1, 400), st.integers(1, 80), st.data())
def test_origins_cover_the_axis(size: int, tile: int, data: st.DataObject) -> None:
    overlap = data.draw(st.integers(0, tile - 1))
    origins = _core.tile_origins(size, tile, overlap)
    assert origins == [k * (tile - overlap) for k in range(len(origins))]
    assert origins[-1] + tile >= size
    assert len(origins) == 1 or origins[-2] + tile < size


def pointwise(x: F32, t: F32) -> F32:
    return (np.sin(3 * x) + 0.1 * x * x + np.float32(1e-3) * t[:, None, None, None]).astype(np.float32)


@settings(max_examples=500, deadline=None)
@given(
    st.integers(1, 70), st.integers(1, 70), st.integers(1, 40), st.integers(1, 2), st.integers(1, 3), st.data()
)  # fmt: skip
def test_tiled_equals_untiled_for_a_pointwise_network(
    height: int, width: int, tile: int, batch: int, network_batch: int, data: st.DataObject
) -> None:
    overlap = data.draw(st.integers(0, tile - 1))
    x1 = np.random.default_rng(height * 71 + width).standard_normal((batch, 2, height, width)).astype(np.float32)
    rows, *_ = _core.plan("sde", 2, schedule=(1000, 0.3, 1e-4, 1.0))
    engine = _core.Engine.callback(pointwise)
    seeds = list(range(batch))
    whole = _core.sample(engine, rows, x1, seeds=seeds)
    tiled = _core.sample(engine, rows, x1, seeds=seeds, tile=tile, overlap=overlap, network_batch=network_batch)
    np.testing.assert_array_equal(whole, tiled)


def test_blending_is_smooth_between_tiles() -> None:
    # Two tiles that disagree: the seam is a ramp over the overlap, rising, without a jump.
    answers = iter([0.0, 1.0])

    def network(x: F32, t: F32) -> F32:
        return np.full_like(x, next(answers))

    row = np.zeros((1, 10), np.float32)
    row[0, 2] = row[0, 4] = 1  # x0 = o; x' = x0
    x1 = np.zeros((1, 1, 32, 48), np.float32)
    out = _core.sample(_core.Engine.callback(network), row, x1, tile=32, overlap=16)[0, 0]
    assert (out[:, :16] == 0).all()
    assert (out[:, 32:] == 1).all()
    ramp = out[0, 15:33]
    assert (np.diff(ramp) > 0).all()
    assert np.diff(ramp).max() < 0.15
    np.testing.assert_allclose(ramp + ramp[::-1], 1, atol=1e-6)


def test_what_a_tile_lacks_is_padded_from_x_and_cond() -> None:
    seen = []

    def network(x: F32, t: F32) -> F32:
        seen.append(x.copy())
        return x[:, :1].copy()

    x1 = np.arange(30, dtype=np.float32).reshape(1, 1, 5, 6)
    rows = np.zeros((1, 10), np.float32)
    _core.sample(_core.Engine.callback(network), rows, x1, cond=100 + x1, tile=4, overlap=2)
    y, x = np.array([2, 3, 4, 3]), np.array([2, 3, 4, 5])
    assert len(seen) == 4
    np.testing.assert_array_equal(seen[3][0, 0], x1[0, 0][np.ix_(y, x)])
    np.testing.assert_array_equal(seen[3][0, 1], 100 + x1[0, 0][np.ix_(y, x)])


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> _core.Model:
    # multiple 4, so g = 16; tile 32, overlap 16
    return _core.Model(str(make_onnx(tmp_path_factory.mktemp("tiles") / "model.onnx", minimum="8")))


@pytest.mark.parametrize(
    ("width", "height", "tile", "expected"),
    [
        (1, 1, -1, (8, 8, 0, 1)),
        (32, 30, -1, (32, 32, 0, 1)),
        (33, 30, -1, (36, 32, 32, 2)),
        (200, 100, 0, (200, 100, 0, 1)),
        (10, 10, 16, (12, 12, 16, 1)),
        (50, 10, 16, (52, 12, 16, 4)),
    ],
)
def test_layout(model: _core.Model, width: int, height: int, tile: int, expected: tuple[int, ...]) -> None:
    layout = model.layout(width, height, tile)
    assert tuple(layout[key] for key in ("padded_width", "padded_height", "tile", "tile_count")) == expected


@pytest.mark.parametrize(
    ("tile", "overlap", "sentence"),
    [
        (50, -1, "tile 50 does not fit: it must be a multiple of 16; the nearest is 48"),
        (8, -1, "tile 8 does not fit: it must be a multiple of 16 and at least 16; the nearest is 16"),
        (2**30, 0, "tile 1073741824 does not fit: it must be at most 1048576; the nearest is 1048576"),
        (48, 20, "tile overlap 20 does not fit: it must be a multiple of 16; the nearest is 16"),
        (48, 48, "tile overlap 48 does not fit: it must be at most 32; the nearest is 32"),
        (32, 17, "tile overlap 17 does not fit: it must be a multiple of 16 and at most 16; the nearest is 16"),
    ],
)
def test_a_tile_that_does_not_fit_names_the_rule_and_the_nearest(
    model: _core.Model, tile: int, overlap: int, sentence: str
) -> None:
    with pytest.raises(ValueError, match=f"^{sentence}$"):
        model.layout(100, 100, tile, overlap)


def test_a_tile_below_the_model_s_minimum_names_it(tmp_path: Path) -> None:
    model = _core.Model(str(make_onnx(tmp_path / "model.onnx", minimum="20")))
    with pytest.raises(ValueError, match=r"^tile 16 does not fit: it must be at least 32; the nearest is 32$"):
        model.layout(100, 100, 16)


def test_a_model_of_one_size(tmp_path: Path) -> None:
    fixed = _core.Model(str(make_onnx(tmp_path / "model.onnx", minimum="32")))
    assert fixed.layout(5, 5)["padded_width"] == 32
    assert fixed.layout(60, 20)["tile"] == 32
    with pytest.raises(ValueError, match="32 x 32"):
        fixed.layout(60, 20, 0)
    with pytest.raises(ValueError, match="tiles of 32 only"):
        fixed.layout(60, 20, 48)
