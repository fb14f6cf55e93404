"""The plan of a known potential: against numerical integration, and as an optimal plan by Sinkhorn."""

import numpy as np
import pytest
from scipy import integrate, stats

from i2sb_train.dsb.known_plan import KnownPlan, Mixture
from i2sb_train.dsb.measures import cbw2_uvp

PLAN = KnownPlan(Mixture(np.array([0.3, 0.7]), np.array([[-1.5], [1.0]]), np.array([0.4, 0.9])), epsilon=0.8)


def density(x0: float, x1: float) -> float:
    """pi(x1 | x0) but for a constant, as defined."""
    potential = sum(
        w * stats.norm.pdf(x1, m[0], s)
        for w, m, s in zip(PLAN.potential.weights, PLAN.potential.means, PLAN.potential.stds, strict=True)
    )
    return float(stats.norm.pdf(x1, x0, PLAN.epsilon**0.5) * potential)


@pytest.mark.parametrize("x0", [-2.0, 0.1, 1.7])
def test_conditional_moments_are_those_of_its_density(x0: float) -> None:
    total, first, second = (integrate.quad(lambda y, k=k: density(x0, y) * y**k, -10, 10)[0] for k in (0, 1, 2))
    mean, covariance = PLAN.moments(np.array([[x0]]))
    assert mean[0, 0] == pytest.approx(first / total, abs=1e-7)
    assert covariance[0, 0, 0] == pytest.approx(second / total - (first / total) ** 2, abs=1e-7)


def test_the_drift_is_the_gradient_of_its_potential() -> None:
    def log_h(x: float, t: float) -> float:
        spread = PLAN.potential.stds**2 + PLAN.epsilon * (1 - t)
        return float(
            np.log((PLAN.potential.weights * stats.norm.pdf(x, PLAN.potential.means[:, 0], spread**0.5)).sum())
        )

    for x, t in ((0.3, 0.0), (-1.0, 0.5), (2.0, 0.99)):
        slope = (log_h(x + 1e-5, t) - log_h(x - 1e-5, t)) / 2e-5
        assert PLAN.drift(np.array([[x]]), t)[0, 0] == pytest.approx(PLAN.epsilon * slope, rel=1e-5)


def test_samples_have_the_conditional_moments() -> None:
    plan = KnownPlan(Mixture.drawn(3, 4, 2.0, 0.5, seed=5), epsilon=1.0)
    x0 = np.random.default_rng(0).standard_normal((2, 3))
    drawn = plan.sample(np.repeat(x0, 200_000, 0), np.random.default_rng(1)).reshape(2, 200_000, 3)
    mean, covariance = plan.moments(x0)
    for k in range(2):
        np.testing.assert_allclose(drawn[k].mean(0), mean[k], atol=0.02)
        np.testing.assert_allclose(np.cov(drawn[k].T), covariance[k], atol=0.03)


def test_it_is_what_sinkhorn_finds_between_its_marginals() -> None:
    """On a grid, for the cost |x0 - x1|^2 / 2 and its epsilon, from any start."""
    import ot

    x = np.linspace(-5, 5, 201)
    start = stats.norm.pdf(x, 0.3, 0.8) + 0.5 * stats.norm.pdf(x, -1.5, 0.4)
    start /= start.sum()
    given = np.array([[density(a, b) for b in x] for a in x])
    plan = start[:, None] * given / given.sum(1, keepdims=True)
    cost = (x[:, None] - x) ** 2 / 2
    found = ot.sinkhorn(start, plan.sum(0), cost, PLAN.epsilon, stopThr=1e-12, numItermax=20000)
    np.testing.assert_allclose(found, plan, atol=1e-9)


def test_unexplained_variance_of_the_plan_itself_and_of_others() -> None:
    plan = KnownPlan(Mixture.drawn(4, 5, 3.0, 0.5, seed=1), epsilon=1.0)
    draw = np.random.default_rng(0)
    x0 = draw.standard_normal((200, 4))
    exact = plan.sample(np.repeat(x0, 500, 0), draw).reshape(200, 500, 4)
    independent = plan.sample(draw.standard_normal((100_000, 4)), draw).reshape(200, 500, 4)
    assert cbw2_uvp(plan, x0, exact) < 0.3
    assert cbw2_uvp(plan, x0, independent) > 10
    moved = cbw2_uvp(plan, x0, exact + 0.5)
    variance = np.trace(np.cov(exact.reshape(-1, 4).T))
    assert moved == pytest.approx(100 * 0.5**2 * 4 / variance, rel=0.1)


def test_a_seed_is_a_mixture() -> None:
    one, same, other = (Mixture.drawn(3, 5, 2.0, 0.5, seed) for seed in (1, 1, 2))
    np.testing.assert_array_equal(one.means, same.means)
    assert not np.array_equal(one.means, other.means)
    np.testing.assert_allclose(np.linalg.norm(one.means, axis=1), 2.0)
    assert ((one.stds >= 0.3) & (one.stds <= 0.7)).all()
