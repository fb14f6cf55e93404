"""Distances against a kept library, and costs against closed forms."""

import numpy as np
import pytest
import torch
from gaussian_bridge import divergence, exact_coupling

from i2sb_train.dsb.measures import path_divergence, sinkhorn_cost, sliced_wasserstein, transport_cost
from i2sb_train.dsb.process import Process, Reference


def test_sliced_wasserstein_is_pot_s() -> None:
    import ot

    draw = np.random.default_rng(0)
    x, y = draw.standard_normal((300, 3)), draw.uniform(-1, 2, (300, 3))
    directions = np.random.default_rng(7).standard_normal((3, 50))
    directions /= np.linalg.norm(directions, axis=0)
    wanted = ot.sliced_wasserstein_distance(x, y, projections=directions)
    assert sliced_wasserstein(x, y, 50, seed=7) == pytest.approx(wanted, rel=1e-9)
    assert sliced_wasserstein(x, x[::-1], 50) == 0


def test_sinkhorn_s_cost_is_that_of_the_closed_form() -> None:
    """Unit Gaussians, epsilon 1: the covariance of the coupling is (sqrt 5 - 1) / 2 a coordinate."""
    draw = torch.Generator().manual_seed(0)
    x0, x1 = (torch.randn(1500, 1, 1, 1, generator=draw) for _ in range(2))
    assert sinkhorn_cost(x0, x1, 1.0) == pytest.approx(1 - (5**0.5 - 1) / 2, abs=0.05)


def test_transport_cost_is_half_the_mean_square() -> None:
    x0 = torch.zeros(4, 2, 1, 1)
    assert transport_cost(x0, x0 + 3) == pytest.approx(9.0)


def test_path_divergence_is_that_of_the_ends_for_the_exact_bridge() -> None:
    """KL(P | R) of the bridge of two Gaussians: that of the coupling to the reference's, as inner bridges agree."""
    eye, sigma = np.eye(1), 1.0
    mean, covariance = exact_coupling(np.array([-0.5]), 0.5 * eye, np.array([0.7]), 1.4 * eye, sigma)
    reference = np.array([[0.5, 0.5], [0.5, 0.5 + sigma**2]])
    wanted = divergence(mean, covariance, np.array([-0.5, -0.5]), reference)
    c, v0, v1 = covariance[0, 1], 0.5, 1.4
    process = Process([0.5 / 400] * 400, Reference(), torch.device("cpu"))

    def drift(x: torch.Tensor, state: int) -> torch.Tensor:
        s = state / 400
        v = (1 - s) ** 2 * v0 + s**2 * v1 + s * (1 - s) * (2 * c + 1)
        slope = (s * (v1 - c - 1) - (1 - s) * (v0 - c)) / v
        return 2 * (1.2 + slope * (x - (-0.5 + 1.2 * s)))

    x = -0.5 + 0.5**0.5 * torch.randn(20000, 1, 1, 1, generator=torch.Generator().manual_seed(0))
    states = process.simulate(drift, x, "forward", torch.Generator().manual_seed(1))
    assert path_divergence(process, drift, states, "forward") == pytest.approx(wanted, rel=0.03)
    ends = torch.cat([states[0], states[-1]], 1).flatten(1).double().numpy()
    np.testing.assert_allclose(np.cov(ends.T), covariance, atol=0.03)


def test_the_oracle_s_covariance_for_unit_gaussians_is_the_golden_ratio_s() -> None:
    eye = np.eye(5)
    _, covariance = exact_coupling(np.full(5, -0.1), eye, np.full(5, 0.1), eye, 1.0)
    np.testing.assert_allclose(covariance[:5, 5:], (5**0.5 - 1) / 2 * eye, atol=1e-12)
