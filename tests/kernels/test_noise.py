from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from i2sb_kernels.cases import NOISE_CASES, NOISE_ERROR, NoiseCase
from i2sb_kernels.noise import cpu, reference

cases = pytest.mark.parametrize("case", NOISE_CASES, ids=lambda case: case.name)


def native(case: NoiseCase, **options: object) -> np.ndarray:
    out = np.full(case.count, np.nan, np.float32)
    cpu.noise_fill(out, case.seed, case.first, case.row, case.purpose, **options)
    return out


def truth(case: NoiseCase) -> np.ndarray:
    return reference.normals(case.seed, case.first, case.count, case.row, case.purpose)


def assert_close(z: np.ndarray, expected: np.ndarray) -> None:
    error = np.abs(z - expected) / np.maximum(1, np.abs(expected))
    assert np.isfinite(z).all()
    assert error.max() <= NOISE_ERROR["float32"], f"element {error.argmax()} is off by {error.max():.3g}"


# The known answers published with the Random123 library: counter, key, result.
KNOWN_ANSWERS = (
    ((0, 0, 0, 0), (0, 0), (0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8)),
    ((0xFFFFFFFF,) * 4, (0xFFFFFFFF,) * 2, (0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD)),
    (
        (0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344),
        (0xA4093822, 0x299F31D0),
        (0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1),
    ),
)


@pytest.mark.parametrize(("counter", "key", "expected"), KNOWN_ANSWERS)
def test_philox_gives_the_known_answers(counter, key, expected):
    words = reference.philox4x32_10(tuple(np.array([word], np.uint32) for word in counter), key)
    assert tuple(int(word[0]) for word in words) == expected


def test_native_draws_from_the_known_answer(isa):
    u0, u1, u2, u3 = (((word >> 9) + 0.5) * 2**-23 for word in KNOWN_ANSWERS[0][2])
    r01, r23 = math.sqrt(-2 * math.log(u0)), math.sqrt(-2 * math.log(u2))
    a01, a23 = 2 * math.pi * u1, 2 * math.pi * u3
    expected = np.array([r01 * math.cos(a01), r01 * math.sin(a01), r23 * math.cos(a23), r23 * math.sin(a23)])
    assert_close(native(NoiseCase("zeros", 0, 0, 4), isa=isa), expected)


@cases
def test_native_is_the_reference(case, isa):
    assert_close(native(case, isa=isa), truth(case))


@cases
def test_triton_is_the_reference(case, triton_twins):
    import torch

    out = torch.full((case.count,), math.nan, device=triton_twins.device)
    triton_twins.noise.noise_fill(out, case.seed, case.first, case.row, case.purpose)
    assert_close(out.cpu().numpy(), truth(case))
    assert_close(out.cpu().numpy(), native(case))


def test_native_is_the_reference_over_many_draws(isa):
    case = NoiseCase("many", 11, 0, 1 << 21)
    assert_close(native(case, isa=isa), truth(case))


@cases
def test_instruction_sets_give_the_same_bits(case, isa):
    np.testing.assert_array_equal(native(case, isa=isa), native(case, isa="scalar"))


def test_threads_do_not_change_a_bit(isa):
    case = NoiseCase("long", 12, 5, 1_000_003)
    alone = native(case, isa=isa)
    for threads in (2, 5):
        np.testing.assert_array_equal(native(case, isa=isa, threads=threads), alone)


@settings(deadline=None, max_examples=200)
@given(first=st.integers(0, 3000), count=st.integers(0, 300), far=st.sampled_from([0, 2**32, 2**34, 2**50]))
def test_any_window_is_a_slice_of_the_stream(first, count, far):
    stream = NoiseCase("stream", 13, far, 3300, row=3, purpose=1)
    window = NoiseCase("window", 13, far + first, count, row=3, purpose=1)
    np.testing.assert_array_equal(native(window), native(stream)[first : first + count])


@pytest.fixture(scope="module")
def draws() -> np.ndarray:
    return native(NoiseCase("ten_million", 2024, 0, 10_000_000), threads=2).astype(np.float64)


def test_moments(draws):
    n = draws.size  # limits: five standard errors of each moment of N(0, 1)
    assert abs(draws.mean()) < 5 * math.sqrt(1 / n)
    assert abs(draws.var() - 1) < 5 * math.sqrt(2 / n)
    assert abs((draws**3).mean()) < 5 * math.sqrt(15 / n)
    assert abs((draws**4).mean() - 3) < 5 * math.sqrt(96 / n)


def test_kolmogorov_smirnov(draws):
    edges = np.linspace(-5, 5, 4001)
    below = np.searchsorted(np.sort(draws), edges, side="right") / draws.size
    exact = np.array([0.5 * math.erfc(-edge / math.sqrt(2)) for edge in edges])
    assert np.abs(below - exact).max() < 1.95 / math.sqrt(draws.size)  # the 0.1 % point


def test_tails_reach_as_far_as_the_uniform_allows(draws):
    assert 4.9 < np.abs(draws).max() <= math.sqrt(48 * math.log(2)) * (1 + 1e-6)


def test_lanes_are_uncorrelated(draws):
    lanes = draws.reshape(-1, 4).T
    limit = 5 / math.sqrt(lanes.shape[1])
    for power in (1, 2):
        correlation = np.corrcoef(lanes**power) - np.eye(4)
        assert np.abs(correlation).max() < limit
    for lag in (1, 2, 3, 4, 5, 8, 32):
        assert abs(np.corrcoef(draws[:-lag], draws[lag:])[0, 1]) < 5 / math.sqrt(draws.size)


def test_streams_are_uncorrelated():
    base = {"seed": 1, "row": 1, "purpose": 1}
    others = [base | change for change in ({"seed": 2}, {"seed": 1 + 2**32}, {"row": 0}, {"row": 2}, {"purpose": 0})]
    others += [base | {"row": 0, "purpose": 2}]
    streams = [native(NoiseCase("stream", first=0, count=1 << 20, **keys)) for keys in [base, *others]]
    correlation = np.corrcoef(np.stack(streams).astype(np.float64)) - np.eye(len(streams))
    assert np.abs(correlation).max() < 5 / math.sqrt(1 << 20)


def test_any_shape_is_filled_in_c_order():
    flat, shaped = np.zeros(105, np.float32), np.zeros((3, 5, 7), np.float32)
    cpu.noise_fill(flat, 9)
    cpu.noise_fill(shaped, 9)
    np.testing.assert_array_equal(shaped.reshape(-1), flat)


def test_bad_calls_are_refused():
    out = np.zeros((4, 4), np.float32)
    with pytest.raises(TypeError, match="out is float64; it must be float32"):
        cpu.noise_fill(out.astype(np.float64), 0)
    with pytest.raises(ValueError, match="contiguous"):
        cpu.noise_fill(out[:, ::2], 0)
    with pytest.raises(ValueError, match="threads is 0"):
        cpu.noise_fill(out, 0, threads=0)
    with pytest.raises(ValueError, match="isa is 'sse9'"):
        cpu.noise_fill(out, 0, isa="sse9")
    with pytest.raises(TypeError):
        cpu.noise_fill(out, 2**64)
    out.flags.writeable = False
    with pytest.raises(ValueError, match="read-only"):
        cpu.noise_fill(out, 0)
