import hashlib
import io
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image

import i2sb_rt
from i2sb_rt import Plan, Schedule, _core, noise, operators
from i2sb_rt.errors import UsageError
from i2sb_rt.operators import blur, jpeg, superresolution
from i2sb_rt.operators.base import Draws, from_bytes, to_bytes

F32 = NDArray[np.float32]
F64 = NDArray[np.float64]

GOLDEN = Path(__file__).parents[1] / "data" / "operators.npz"
QUIRKY = ("sr4x-pool", "sr4x-bicubic", "blur-uni", "blur-gauss", "jpeg-5", "jpeg-10")
LINEAR = tuple(name for name in operators.NAMES if name.startswith(("blur", "sr4x")))
EVERY = (
    *(name.replace("QF", "10").replace("SIGMA", "2") for name in operators.NAMES if "NAME" not in name),
    "mixture:inpaint-center,inpaint-freeform1020",
    "gaussian-1.5+noise-0.01",
)


def images(count: int, height: int, width: int, seed: int = 0) -> F32:
    """Pictures with edges, gradients and grain, float32 [count, 3, height, width] in [-1, 1]."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:height, :width]
    phase = rng.uniform(0, 6, (count, 3, 1, 1))
    smooth = 0.5 * np.sin(x / 9 + phase) * np.cos(y / 7 - phase) + 0.3 * ((x + 2 * y) % 24 < 12)
    return np.clip(smooth + rng.normal(0, 0.1, smooth.shape), -1, 1).astype(np.float32)


@pytest.mark.parametrize("name", QUIRKY)
def test_the_published_operators_are_met(name: str) -> None:
    with np.load(GOLDEN) as golden:
        clean, damaged = golden["clean"], golden[name] / 16384
    x = clean.astype(np.float32) / np.float32(127.5) - 1
    np.testing.assert_allclose(operators.get(name)(x[None])[0], damaged, rtol=0, atol=1e-4)


@pytest.mark.parametrize("name", EVERY)
@pytest.mark.parametrize(("height", "width"), [(48, 48), (21, 34)])
def test_a_result_depends_on_its_image_and_seed_alone(name: str, height: int, width: int) -> None:
    operator, x, seeds = operators.get(name), images(3, height, width), [3, 4, 3]
    before = x.copy()
    together = operator(x, seeds)
    np.testing.assert_array_equal(x, before)
    assert (together.shape, together.dtype) == (x.shape, np.float32)
    assert np.isfinite(together).all()
    apart = [operator(x[k : k + 1], seed)[0] for k, seed in enumerate(seeds)]
    np.testing.assert_array_equal(together, apart)
    np.testing.assert_array_equal(operator(x[:, :, :, ::-1], 3), operator(x[:, :, :, ::-1].copy(), [3, 3, 3]))


@pytest.mark.parametrize("name", [name for name in EVERY if "freeform" not in name])
@pytest.mark.parametrize("shape", [(1, 1), (1, 9), (3, 2)])
def test_the_smallest_images(name: str, shape: tuple[int, int]) -> None:
    assert np.isfinite(operators.get(name)(images(2, *shape))).all()


def test_no_images_are_no_work() -> None:
    assert operators.get("jpeg-5")(np.zeros((0, 3, 8, 8), np.float32)).shape == (0, 3, 8, 8)


@settings(max_examples=25)
@given(
    name=st.sampled_from(LINEAR),
    height=st.integers(1, 40),
    width=st.integers(1, 40),
    weight=st.floats(-2, 3),
    seed=st.integers(0, 99),
)
def test_blur_and_superresolution_are_linear(name: str, height: int, width: int, weight: float, seed: int) -> None:
    # Affine, for DDRM blurs in [0, 1]: weights that sum to 1 go through.
    operator, (x, y) = operators.get(name), images(2, height, width, seed)[:, None]
    w = np.float32(weight)
    np.testing.assert_allclose(operator(w * x + (1 - w) * y), w * operator(x) + (1 - w) * operator(y), atol=3e-6)


def directly(image: F32, taps: F64, first: int, stride: int, mirror: Callable[[int, int], int]) -> F64:
    """Filter along both axes, one output and one tap at a time: y[i] = sum_k taps[k] x[stride i + first + k]."""
    rows = image.astype(np.float64)
    for axis in (1, 2):
        size = rows.shape[axis]
        lines = np.moveaxis(rows, axis, 0)
        out = np.zeros((-(-size // stride), *lines.shape[1:]))
        for i in range(len(out)):
            for k, tap in enumerate(taps):
                out[i] += tap * lines[mirror(stride * i + first + k, size)]
        rows = np.moveaxis(out, 0, axis)
    return rows


def reflected(i: int, size: int) -> int:
    """... 2 1 | 0 1 2 ... n-1 | n-2 n-3 ..."""
    return 0 if size == 1 else abs((i + size - 1) % (2 * size - 2) - (size - 1))


def mirrored(i: int, size: int) -> int:
    """... 1 0 | 0 1 2 ... n-1 | n-1 n-2 ..."""
    return min(i % (2 * size), 2 * size - 1 - i % (2 * size))


@pytest.mark.parametrize("shape", [(24, 24), (13, 30), (3, 2)])
@pytest.mark.parametrize(
    ("name", "taps"),
    [("blur-uni", np.ones(9) / 9), ("blur-gauss", np.exp([-0.02, -0.005, 0, -0.005, -0.02]))],
)
def test_the_exact_blurs_are_convolutions(name: str, taps: F64, shape: tuple[int, int]) -> None:
    x = images(1, *shape)
    expected = directly(x[0], taps / taps.sum(), -(len(taps) // 2), 1, reflected)
    np.testing.assert_allclose(operators.get(f"{name}-exact")(x)[0], expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize("shape", [(24, 24), (13, 30), (3, 2)])
def test_superresolution_is_a_filter_and_every_fourth_sample(shape: tuple[int, int]) -> None:
    distance = np.abs(np.arange(16) - 7.5) / 4
    near, far = 1.5 * distance**3 - 2.5 * distance**2 + 1, -0.5 * distance**3 + 2.5 * distance**2 - 4 * distance + 2
    cubic = np.where(distance <= 1, near, far)
    x = images(1, *shape)
    for name, taps, first in (("sr4x-bicubic", cubic / cubic.sum(), -6), ("sr4x-pool", np.ones(4) / 4, 0)):
        small = operators.downsample(name)(x)
        np.testing.assert_allclose(small[0], directly(x[0], taps, first, 4, mirrored), rtol=0, atol=1e-6)
        large = small.repeat(4, axis=2).repeat(4, axis=3)[:, :, : shape[0], : shape[1]]
        np.testing.assert_array_equal(operators.get(name)(x), large)
        np.testing.assert_array_equal(operators.get(f"{name}-exact")(x), large)


def test_superresolution_has_no_singular_value_to_zero() -> None:
    for size in (4, 8, 64, 100, 256):
        basis = np.eye(size)[None]
        for name in superresolution.TAPS:
            matrix = superresolution._reduced(basis, superresolution.TAPS[name], 1)[0]
            assert np.linalg.svd(matrix, compute_uv=False).min() > 0.3


def test_pooling_twice_is_pooling_once() -> None:
    pool, x = operators.get("sr4x-pool"), images(2, 20, 36)
    np.testing.assert_allclose(pool(pool(x)), pool(x), atol=1e-6)
    np.testing.assert_allclose(pool(x)[:, :, ::4, ::4], x.reshape(2, 3, 5, 4, 9, 4).mean((3, 5)), atol=1e-6)


@pytest.mark.parametrize(("name", "gain"), [("blur-uni", 64 / 81), ("blur-gauss", 0.643)])
def test_the_ddrm_matrix_lacks_its_last_tap(name: str, gain: float) -> None:
    matrix, taps = blur.matrix(name, 32), blur.TAPS[name]
    half = len(taps) // 2
    np.testing.assert_allclose(matrix[16, 16 - half : 16 + half], taps[:-1])
    assert np.count_nonzero(matrix[16]) == len(taps) - 1
    assert matrix[16].sum() ** 2 == pytest.approx(gain, abs=5e-4)
    assert matrix[0].sum() == pytest.approx(taps[half:-1].sum())


@pytest.mark.parametrize("name", list(blur.TAPS))
def test_the_ddrm_blur_is_its_matrices_with_gains_in_a_wrong_order(name: str) -> None:
    x, shape = images(1, 24, 40)[0], (24, 40)
    parts = [np.linalg.svd(blur.matrix(name, size)) for size in shape]
    (uh, sh, vh), (uw, sw, vw) = parts
    kept = [np.where(s < 3e-2, 0, s) for s in (sh, sw)]
    order = sorted(((-a * b, i, j) for i, a in enumerate(kept[0]) for j, b in enumerate(kept[1])))
    falling = [-value for value, _, _ in order]
    expected = np.zeros((3, *shape))
    for channel in range(3):
        coefficients = vh @ ((x[channel].astype(np.float64) + 1) / 2) @ vw.T
        scaled = np.zeros(shape)
        for p, (_, i, j) in enumerate(order):
            if sh[i] > 1e-9 and sw[j] > 1e-9:
                scaled[i, j] = falling[(3 * p + channel) % len(order)] * coefficients[i, j]
        expected[channel] = 2 * (uh @ scaled @ uw.T) - 1
    np.testing.assert_allclose(operators.get(name)(x[None])[0], expected, rtol=0, atol=1e-6)


def test_the_ddrm_blur_does_not_depend_on_signs_of_lost_directions(monkeypatch: pytest.MonkeyPatch) -> None:
    x = images(1, 21, 26)
    before = operators.get("blur-uni")(x)
    honest = np.linalg.svd

    def contrary(matrix: F64) -> tuple[F64, F64, F64]:
        u, s, vt = honest(matrix)
        assert (s < 1e-9).any()
        return u, s, np.where(s < 1e-9, -1, 1)[:, None] * vt

    blur._svd.cache_clear()
    monkeypatch.setattr(np.linalg, "svd", contrary)
    after = operators.get("blur-uni")(x)
    blur._svd.cache_clear()
    np.testing.assert_allclose(after, before, rtol=0, atol=1e-6)


def test_the_tables_are_scaled_as_the_ijg_does() -> None:
    assert [table[0, 0] for table in jpeg.tables(50)] == [16, 17]
    assert [table.max() for table in jpeg.tables(100)] == [1, 1]
    assert [table[0, 0] for table in jpeg.tables(10)] == [80, 85]
    assert [table.max() for table in jpeg.tables(1)] == [255, 255]
    for quality in (1, 7, 49, 50, 75, 95, 100):  # libjpeg's own tables; Pillow tells them in rows
        buffer = io.BytesIO()
        Image.new("RGB", (16, 16)).save(buffer, "JPEG", quality=quality)
        told = Image.open(buffer).quantization  # type: ignore[attr-defined]
        for number, table in enumerate(jpeg.tables(quality)):
            np.testing.assert_array_equal(np.reshape(told[number], (8, 8)), table)


def test_ddrm_jpeg_neither_clamps_nor_rounds() -> None:
    x = np.where(images(1, 32, 32) > 0, 1, -1).astype(np.float32)
    y = operators.get("jpeg-5")(x)
    assert y.min() < -1.05
    assert y.max() > 1.05
    assert np.abs((y + 1) * 127.5 - np.rint((y + 1) * 127.5)).max() > 0.1


def test_ddrm_jpeg_picks_every_second_chroma_sample() -> None:
    x = images(1, 32, 48)
    other = x.copy()
    luma = np.array([0.299, 0.587, 0.114])
    change = np.array([0.2, -0.1, 0.0])  # made free of luma below
    change[2] = -(change[:2] @ luma[:2]) / luma[2]
    unseen = np.ones((32, 48), bool)
    unseen[::2, ::2] = False
    other += (change[:, None, None] * unseen).astype(np.float32)
    np.testing.assert_allclose(operators.get("jpeg-50")(other), operators.get("jpeg-50")(x), atol=1e-5)


@settings(max_examples=15)
@given(quality=st.integers(1, 100), seed=st.integers(0, 99))
def test_ddrm_jpeg_twice_is_once(quality: int, seed: int) -> None:
    operator = operators.get(f"jpeg-{quality}")
    once = operator(images(1, 32, 16, seed))
    np.testing.assert_allclose(operator(once), once, atol=1e-4)


def test_ddrm_jpeg_of_other_sizes_repeats_the_last_pixels() -> None:
    x = images(1, 21, 34)
    filled = np.pad(x, ((0, 0), (0, 0), (0, 11), (0, 14)), mode="edge")
    np.testing.assert_array_equal(operators.get("jpeg-10")(x), operators.get("jpeg-10")(filled)[:, :, :21, :34])


def test_the_exact_jpeg_is_libjpeg() -> None:
    x = images(1, 37, 53)
    pixels = np.rint((x[0].astype(np.float64) + 1) * 127.5).astype(np.uint8).transpose(1, 2, 0)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "JPEG", quality=10)
    decoded = np.asarray(Image.open(buffer)).transpose(2, 0, 1)
    np.testing.assert_array_equal(to_bytes(operators.get("jpeg-10-exact")(x)[0]).transpose(2, 0, 1), decoded)
    assert np.abs(operators.get("jpeg-10-exact")(3 * x)).max() <= 1


def test_exact_twins_are_near_their_quirky_ones() -> None:
    x = images(1, 64, 64)
    near = np.abs(operators.get("jpeg-75")(x) - operators.get("jpeg-75-exact")(x)).mean()
    assert 0.001 < near < 0.05
    # The whole blur is brighter, and of the right size everywhere.
    one = np.ones((1, 3, 64, 64), np.float32)
    for name, gain in (("blur-uni", 0.790), ("blur-gauss", 0.643)):
        np.testing.assert_allclose(operators.get(f"{name}-exact")(one), 1, atol=1e-6)
        assert (operators.get(name)(one).mean() + 1) / 2 < gain + 0.02


@settings(max_examples=15)
@given(seed=st.integers(0, 2**64 - 1), height=st.integers(8, 40), width=st.integers(8, 40))
def test_inpainting_fills_the_hole_with_the_seeds_noise(seed: int, height: int, width: int) -> None:
    x = images(2, height, width)
    for name in ("inpaint-center", "inpaint-freeform1020", "inpaint-freeform2030"):
        operator = operators.get(name)
        hole = operator.mask(height, width, seed)
        assert hole is not None
        assert hole.any()
        expected = np.where(hole, noise(seed, (3, height, width), row=0, purpose=1), x)
        np.testing.assert_array_equal(operator(x, seed), expected)


@pytest.mark.parametrize("name", ["inpaint-center", "inpaint-freeform2030"])
def test_restoring_starts_from_the_same_noise(name: str, make_model: Callable[..., Path]) -> None:
    seen: list[F32] = []

    def network(x: F32, t: F32) -> F32:
        seen.append(x.copy())
        return np.zeros_like(x)

    clean, seed = to_bytes(images(1, 40, 56)[0]), 2**63 + 5
    operator = operators.get(name)
    hole = operator.mask(40, 56, seed)
    assert hole is not None
    rows = Plan.posterior(Schedule(100, 0.3, 1e-4, 1.0), 1).rows
    model, engine = _core.Model(str(make_model(task="inpaint"))), _core.Engine.callback(network)
    _core.restore(model, engine, rows, clean, mask=hole.astype(np.uint8), seed=seed)
    np.testing.assert_allclose(seen[0][:1], operator(from_bytes(clean)[None], seed), rtol=0, atol=1e-6)


def test_a_mixture_applies_one_member_by_the_seed() -> None:
    x, names = images(1, 32, 32), ("jpeg-5", "jpeg-10", "blur-uni", "blur-gauss", "sr4x-pool", "sr4x-bicubic")
    members = [operators.get(name)(x) for name in names]
    mixed = operators.get("mixture")
    chosen = [[np.array_equal(mixed(x, seed), member) for member in members].index(True) for seed in range(40)]
    assert set(chosen) == set(range(6))
    assert chosen[:8] == [Draws(seed, 2).below(6) for seed in range(8)]
    batch = mixed(np.repeat(x, 40, axis=0), list(range(40)))
    np.testing.assert_array_equal(batch, np.concatenate([members[k] for k in chosen]))
    assert mixed.mask(32, 32, 0) is None


def test_a_mixture_of_ones_own_members() -> None:
    x, mixed = images(1, 32, 32), operators.get("mixture:inpaint-freeform1020,inpaint-center")
    center, sums = operators.get("inpaint-center"), set()
    for seed in range(20):
        mask = mixed.mask(32, 32, seed)
        assert mask is not None
        sums.add(int(mask.sum()) == 256)
        member = center if np.array_equal(mask, center.mask(32, 32)) else operators.get("inpaint-freeform1020")
        np.testing.assert_array_equal(mixed(x, seed), member(x, seed))
    assert sums == {False, True}


def test_a_mixture_makes_holes_always_or_never() -> None:
    with pytest.raises(UsageError, match="inpaint-center makes holes and other members do not"):
        operators.get("mixture:jpeg-10,inpaint-center")


@pytest.mark.parametrize("name", EVERY)
def test_an_operator_can_be_sent_to_another_process(name: str) -> None:
    operator, x = operators.get(name), images(2, 32, 32)
    sent = pickle.loads(pickle.dumps(operator))
    np.testing.assert_array_equal(sent(x, [3, 4]), operator(x, [3, 4]))
    mask = operator.mask(32, 32, 5)
    if mask is None:
        assert sent.mask(32, 32, 5) is None
    else:
        np.testing.assert_array_equal(sent.mask(32, 32, 5), mask)


def test_libjpegs_limit_is_told() -> None:
    with pytest.raises(UsageError, match="at most 65500 pixels, not 65501"):
        operators.get("jpeg-10-exact")(np.zeros((1, 3, 1, 65501), np.float32))


def test_random_integers_stay_what_they_are() -> None:
    draws = Draws(2**64 - 1, 1)
    told = ",".join(str(draws.below(2**64)) for _ in range(8))
    assert hashlib.sha256(told.encode()).hexdigest()[:16] == "76309a587d4174d9"
    assert {Draws(seed, 1).between(-2, 2) for seed in range(100)} == {-2, -1, 0, 1, 2}


def test_only_inpainting_has_masks_and_only_superresolution_small_images() -> None:
    for name in EVERY:
        operator = operators.get(name)
        assert operator.name == name
        assert (operator.mask(16, 16, 1) is not None) == ("inpaint" in name)
        if name.startswith("sr4x"):
            assert operators.downsample(name)(images(2, 9, 16)).shape == (2, 3, 3, 4)
        else:
            with pytest.raises(UsageError, match="sr4x"):
                operators.downsample(name)(images(1, 8, 8))


@pytest.mark.parametrize(
    "name",
    [
        *("", "jpeg", "jpeg-05", "jpeg-5.5", "jpeg-QF", "jpeg-10-exact-exact", "blur", "sr4x"),
        *("BLUR-UNI", "inpaint-center-exact", "mixture:", "mixture:jpeg-10,", "mixture-exact", "mixture:nothing"),
    ],
)
def test_unknown_names_are_refused_with_those_there_are(name: str) -> None:
    with pytest.raises(UsageError) as caught:
        operators.get(name)
    assert all(known in str(caught.value) for known in operators.NAMES)
    with pytest.raises(UsageError):
        operators.downsample(name)


def test_a_mixture_in_a_mixture_is_refused() -> None:
    with pytest.raises(UsageError, match="no member"):
        operators.get("mixture:jpeg-10,mixture")


@pytest.mark.parametrize(
    ("x", "words"),
    [
        (np.zeros((1, 3, 8, 8)), "float64"),
        (np.zeros((1, 3, 8, 8), np.uint8), "uint8"),
        ([[0.0]], "list"),
        (np.zeros((3, 8, 8), np.float32), r"\[3, 8, 8\]"),
        (np.zeros((1, 1, 8, 8), np.float32), r"\[1, 1, 8, 8\]"),
        (np.zeros((1, 3, 0, 8), np.float32), r"\[1, 3, 0, 8\]"),
        (np.full((1, 3, 8, 8), np.nan, np.float32), "NaN"),
        (np.full((1, 3, 8, 8), np.inf, np.float32), "infinity"),
    ],
)
def test_what_is_no_batch_of_images_is_refused(x: Any, words: str) -> None:
    for name in ("jpeg-10", "mixture", "sr4x-pool"):
        with pytest.raises(UsageError, match=words):
            operators.get(name)(x)
    with pytest.raises(UsageError, match=words):
        operators.downsample("sr4x-pool")(x)


@pytest.mark.parametrize("seed", [-1, 2**64, 1.5, [1, 2], "7"])
def test_seeds_that_are_none_are_refused(seed: Any) -> None:
    with pytest.raises(UsageError, match="seed"):
        operators.get("inpaint-center")(images(1, 8, 8), seed)
    if not isinstance(seed, list):
        with pytest.raises(UsageError, match="seed"):
            operators.get("inpaint-freeform1020").mask(8, 8, seed)


def test_it_is_public() -> None:
    assert i2sb_rt.operators is operators
    assert set(operators.__all__) <= set(dir(operators))


def test_a_gaussian_is_as_wide_as_its_name_says() -> None:
    point = np.full((1, 3, 41, 41), -1, np.float32)
    point[:, :, 20, 20] = 1
    spread = (operators.get("gaussian-2")(point)[0, 0].astype(np.float64) + 1) / 2
    places = np.arange(41) - 20
    expected = np.exp(-0.5 * (places / 2) ** 2)
    np.testing.assert_allclose(spread, np.outer(expected, expected) / expected.sum() ** 2, atol=1e-6)


def test_noise_is_as_strong_as_its_name_says_and_of_its_seed() -> None:
    x = images(2, 64, 80)
    noisy, blurred = operators.get("gaussian-1.5+noise-0.01"), operators.get("gaussian-1.5")(x)
    added = (noisy(x, [1, 2]) - blurred) / 2  # on a scale from 0 to 1
    assert added.std() == pytest.approx(0.01, rel=0.02)
    assert added.mean() == pytest.approx(0, abs=2e-4)
    assert np.abs(added[0] - added[1]).max() > 0.01
    np.testing.assert_array_equal(noisy(x, [1, 2]), noisy(x, [1, 2]))
    np.testing.assert_array_equal(operators.get("blur-uni-exact+noise-0")(x), operators.get("blur-uni-exact")(x))


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("jpeg-0", r"jpeg-0: the quality of a JPEG is from 1 to 100, not 0"),
        ("jpeg-101-exact", r"jpeg-101-exact: the quality of a JPEG is from 1 to 100, not 101"),
        ("gaussian-0", r"gaussian-0: the width of a Gaussian, in pixels, is from 0\.1 to 100, not 0"),
        ("gaussian-101", r"from 0\.1 to 100, not 101"),
        ("gaussian-x", "there is no operator"),
        ("jpeg-10+noise-1.5", r"the level of noise, on a scale from black to white, is from 0 to 1, not 1\.5"),
        ("rain", r"mixture:NAME,NAME,\.\.\., NAME\+noise-LEVEL"),
        ("rain+noise-0.1", "no operator 'rain'"),
        ("gaussian-2+noise-0.1+noise-0.1", "noise is added once"),
        ("sr4x-pool+noise-0.1", "full size without holes, which sr4x-pool is not"),
        ("inpaint-center+noise-0.1", "full size without holes, which inpaint-center is not"),
    ],
)
def test_strengths_that_cannot_be_are_refused(name: str, words: str) -> None:
    with pytest.raises(UsageError, match=words):
        operators.get(name)
