"""The reference's bridges and the chain, against Gaussians in closed form."""

import numpy as np
import pytest
import torch
from gaussian_bridge import divergence
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from i2sb_train.dsb.process import Process, Reference
from i2sb_train.dsb.recipe import Bridge

RATES = (0.0, 0.3, 2.0)


def column(*values: float) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)[:, None, None, None]


def joint(rate: float, t: float, T: float) -> tuple[np.ndarray, np.ndarray]:
    """Means' factors of x0 and covariance of (X_t, X_T) given X_0, straight from the transition of the process."""

    def variance(s: float) -> float:
        return 2 * s if rate == 0 else (1 - np.exp(-2 * rate * s)) / rate

    step = np.exp(-rate * (T - t))
    factors = np.array([np.exp(-rate * t), np.exp(-rate * T)])
    cross = step * variance(t)
    return factors, np.array([[variance(t), cross], [cross, variance(T)]])


@pytest.mark.parametrize("rate", RATES)
@given(t=st.floats(0.05, 0.95), x0=st.floats(-3, 3), x1=st.floats(-3, 3))
def test_a_bridge_is_the_joint_gaussian_given_both_ends(rate: float, t: float, x0: float, x1: float) -> None:
    factors, covariance = joint(rate, t, 1.0)
    gain = covariance[0, 1] / covariance[1, 1]
    mean = factors[0] * x0 + gain * (x1 - factors[1] * x0)
    std = np.sqrt(covariance[0, 0] - gain * covariance[0, 1])
    reference = Reference(rate)
    for z in (0.0, 1.0, -2.0):
        found = reference.between(column(x0), column(x1), column(t), column(1.0 - t), column(z))
        assert float(found) == pytest.approx(mean + std * z, abs=1e-9)


@pytest.mark.parametrize("rate", RATES)
@given(t=st.floats(0.05, 0.9), x0=st.floats(-3, 3), x1=st.floats(-3, 3), x=st.floats(-3, 3))
def test_the_drifts_of_a_bridge_move_its_mean(rate: float, t: float, x0: float, x1: float, x: float) -> None:
    """A small step of the drift from x is the mean of the bridge that begins, or ends, in x, a moment later."""
    h, zero = 1e-7, column(0.0)
    reference = Reference(rate)
    ahead = reference.between(column(x), column(x1), column(h), column(1.0 - t - h), zero)
    assert float(reference.towards_end(column(x), column(x1), column(1.0 - t))) == pytest.approx(
        float(ahead - x) / h, rel=1e-4, abs=1e-4
    )
    behind = reference.between(column(x0), column(x), column(t - h), column(h), zero)
    assert float(reference.towards_start(column(x), column(x0), column(t))) == pytest.approx(
        float(behind - x) / h, rel=1e-4, abs=1e-4
    )


@pytest.mark.parametrize("rate", RATES)
def test_without_a_rate_is_the_limit_of_small_ones(rate: float) -> None:
    near, limit = Reference(1e-9), Reference(0.0)
    t, x, y, z = column(0.3), column(1.2), column(-0.4), column(0.7)
    torch.testing.assert_close(near.between(x, y, t, 1 - t, z), limit.between(x, y, t, 1 - t, z), rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(near.towards_start(x, y, t), limit.towards_start(x, y, t), rtol=1e-6, atol=1e-6)
    assert float(Reference(rate).variance(column(1e-9))) == pytest.approx(2e-9, rel=1e-6)


@given(steps=st.integers(2, 60), horizon=st.floats(0.01, 30), ratio=st.floats(0.001, 1))
def test_grids_are_symmetric_and_sum_up_to_the_horizon(steps: int, horizon: float, ratio: float) -> None:
    for grid in ("cosine", "linear"):
        gammas = Bridge(steps=steps, horizon=horizon, grid=grid, ratio=ratio).gammas()
        assert len(gammas) == steps
        assert min(gammas) > 0
        assert sum(gammas) == pytest.approx(horizon)
        np.testing.assert_allclose(gammas, gammas[::-1], rtol=1e-9)
        assert gammas[0] <= min(gammas) * (1 + 1e-9)
        if grid == "linear" and steps > 2:
            assert min(gammas) / max(gammas) == pytest.approx(ratio)


def test_the_chain_has_the_steps_of_a_plan() -> None:
    process = Process([0.1, 0.2, 0.3], Reference(), torch.device("cpu"))
    assert process.left("forward") == [0, 1, 2]
    assert process.left("backward") == [3, 2, 1]
    assert [process.gamma_from(k, "backward") for k in (3, 2, 1)] == pytest.approx([0.3, 0.2, 0.1])
    x = torch.randn(20000, 1, 1, 1, generator=torch.Generator().manual_seed(0))
    for direction, variance in (("forward", 0.6), ("backward", 1.0)):  # of all steps but the last
        generator = torch.Generator().manual_seed(1)
        states = process.simulate(lambda x, _: torch.zeros_like(x), x, direction, generator)
        assert len(states) == 4
        assert float((states[-1] - x).var()) == pytest.approx(variance, rel=0.05)
        generator.manual_seed(1)
        assert torch.equal(process.end(lambda x, _: torch.zeros_like(x), x, direction, generator), states[-1])
    moved = process.simulate(lambda x, state: torch.full_like(x, state), x, "backward", torch.Generator())
    assert float((moved[1] - x).mean()) == pytest.approx(3 * 0.3, abs=0.02)


def test_twenty_even_steps_cost_eight_times_what_the_cosine_grid_does() -> None:
    """The exact drift between unit Gaussians, sigma 1: KL of the chain's coupling, by its moments, to the exact one."""

    def cost(gammas: list[float]) -> float:
        c = (5**0.5 - 1) / 2
        s = np.concatenate([[0], np.cumsum(gammas)]) / sum(gammas)
        gain, variance = 1.0, 0.0  # of the state given the start
        for k, gamma in enumerate(gammas):
            v = (1 - s[k]) ** 2 + s[k] ** 2 + s[k] * (1 - s[k]) * (2 * c + 1)
            slope = 1 + gamma * 2 * (s[k] * -c - (1 - s[k]) * (1 - c)) / v
            gain, variance = gain * slope, variance * slope**2 + (2 * gamma if k + 1 < len(gammas) else 0)
        found = np.array([[1, gain], [gain, gain**2 + variance]])
        return divergence(np.zeros(2), found, np.zeros(2), np.array([[1, c], [c, 1]]))

    even, cosine = (cost(Bridge(grid=grid, ratio=1.0).gammas()) for grid in ("linear", "cosine"))
    assert 5 * cosine == pytest.approx(5.2e-4, rel=0.1)  # in five dimensions
    assert even / cosine == pytest.approx(8, abs=1)
