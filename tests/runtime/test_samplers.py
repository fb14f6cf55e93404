"""DBIM and I3SB: their plans against the published updates, written out as loops over states."""

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from i2sb_rt import Plan, Schedule, sample
from i2sb_rt.errors import UsageError
from i2sb_rt.plan import COLUMNS

F64 = NDArray[np.float64]
R = COLUMNS.index("r")
X1 = np.random.default_rng(0).uniform(-1, 1, (2, 3, 6, 7)).astype(np.float32)
MASK = (np.random.default_rng(1).random((2, 1, 6, 7)) < 0.5).astype(np.float32)
ETAS = st.just(0.0) | st.floats(1e-3, 1)
INTERVALS = st.sampled_from([(10, 0.3), (100, 0.03), (1000, 0.3), (1000, 1.0)])


def network(x: Any, t: Any) -> Any:
    """What the golden runs take as a network: not linear, and not the same at every time."""
    return 0.4 * x + 0.15 * np.sin(3 * x) + 0.1 * np.roll(x, 1, -1) + 2e-4 * t[:, None, None, None]


class Bridge:
    """a, b, c of x_k = a x1 + b x0 + c z, and lambda = log(b / c), with std_bwd^2 = S^2 - std_fwd^2."""

    def __init__(self, schedule: Schedule, clip: bool, mask: F64 | None) -> None:
        self.schedule, self.clip, self.mask = schedule, clip, mask
        self.s2 = schedule.std_fwd**2
        self.S2 = self.s2[-1]

    def abc(self, k: int) -> tuple[float, float, float]:
        s2 = float(self.s2[k])
        return s2 / self.S2, 1 - s2 / self.S2, np.sqrt(s2 * (self.S2 - s2) / self.S2)

    def lam(self, k: int) -> float:
        _, b, c = self.abc(k)
        return float(np.log(b / c))

    def estimate(self, x: F64, x1: F64, k: int) -> F64:
        time = np.full(len(x), self.schedule.noise_levels[k])
        x0 = x - self.schedule.std_fwd[k] * network(x, time)
        x0 = x0.clip(-1, 1) if self.clip else x0
        return x0 if self.mask is None else self.mask * x0 + (1 - self.mask) * x1


def dbim_loop(bridge: Bridge, x1: F64, steps: list[int], order: int, eta: float, draws: Iterator[F64]) -> F64:
    """DBIM as published: booting noise first, the first order at both ends, order 2 or 3 as history allows between."""
    grid = steps[::-1]
    estimate = bridge.estimate(x1, x1, grid[0])
    a, b, c = bridge.abc(grid[1])
    x = a * x1 + b * estimate + (c * next(draws) if grid[1] else 0)
    estimates: dict[int, F64] = {}
    for i in range(1, len(grid) - 1):
        s, t = grid[i], grid[i + 1]
        (a_s, b_s, c_s), (a_t, b_t, c_t) = bridge.abc(s), bridge.abc(t)
        x0 = estimates[i] = bridge.estimate(x, x1, s)
        last = i == len(grid) - 2
        if order == 1 or i == 1 or last:
            w = eta * np.sqrt(bridge.s2[t] * (1 - bridge.s2[t] / bridge.s2[s]))
            k = np.sqrt(c_t**2 - w**2) / c_s
            x = k * x + (b_t - k * b_s) * x0 + (a_t - k * a_s) * x1
            if w and not last:
                x = x + w * next(draws)
            continue
        h, h1 = bridge.lam(t) - bridge.lam(s), bridge.lam(s) - bridge.lam(grid[i - 1])
        d1 = (x0 - estimates[i - 1]) / h1
        d2: F64 | float = 0.0
        if order == 3 and i >= 3:
            h2 = bridge.lam(grid[i - 1]) - bridge.lam(grid[i - 2])
            newer, older = x0 - estimates[i - 1], estimates[i - 1] - estimates[i - 2]
            d1 = (newer * (2 * h1 + h2) / h1 - older * h1 / h2) / (h1 + h2)
            d2 = 2 * (newer / h1 - older / h2) / (h1 + h2)
        series = (1 - np.exp(-h)) * x0 + (np.exp(-h) + h - 1) * d1 + (h * h / 2 - h + 1 - np.exp(-h)) * d2
        x = c_t / c_s * x + (a_t - a_s * c_t / c_s) * x1 + c_t * np.exp(bridge.lam(t)) * series
    return x


def i3sb_loop(bridge: Bridge, x1: F64, steps: list[int], eta: float, draws: Iterator[F64]) -> F64:
    """I3SB as published: g = eta sigma_p alpha / sigma_n, all of it fresh at the end of the bridge; x0 at last."""
    x = x1
    for n, p in zip(steps[:0:-1], steps[-2::-1], strict=True):
        x0 = bridge.estimate(x, x1, n)
        if p == 0:
            return x0
        s_n2, s_p2, S2 = bridge.s2[n], bridge.s2[p], bridge.S2
        variance = s_p2 * (S2 - s_p2) / S2
        fresh = variance if n == len(bridge.s2) - 1 else eta**2 * s_p2 * (s_n2 - s_p2) / s_n2
        kept = 0.0 if n == len(bridge.s2) - 1 else np.sqrt((variance - fresh) * S2 / (s_n2 * (S2 - s_n2)))
        x1_share = s_p2 / S2 - kept * s_n2 / S2
        x = kept * x + (1 - kept - x1_share) * x0 + x1_share * x1
        x = x + np.sqrt(fresh) * next(draws) if fresh else x
    raise AssertionError("the steps end at 0")


def check(plan: Plan, clip: bool, masked: bool, loop: Callable[[F64 | None, Iterator[F64]], F64]) -> None:
    """Run plan and loop from the same x1 with the same draws."""
    draws = np.random.default_rng(2).standard_normal((int(np.count_nonzero(plan.rows[:, 8])), *X1.shape))
    mask = MASK if masked else None
    found = sample(network, X1, plan, mask=mask, noise=draws.astype(np.float32))
    wanted = loop(None if mask is None else mask.astype(np.float64), iter(draws.astype(np.float32).astype(np.float64)))
    assert (plan.clip, plan.known) == (clip, "x0")
    np.testing.assert_allclose(found, wanted, rtol=0, atol=1e-5 * max(1.0, np.abs(wanted).max()))


@given(
    bridge=INTERVALS,
    share=st.floats(0, 1),
    order=st.sampled_from([1, 2, 3]),
    eta=ETAS,
    clip=st.booleans(),
    masked=st.booleans(),
)
def test_dbim_is_the_published_loop(
    bridge: tuple[int, float], share: float, order: int, eta: float, clip: bool, masked: bool
) -> None:
    schedule = Schedule(*bridge)
    nfe = 1 + int(share * (min(bridge[0], 30) - 2))
    eta = eta if order == 1 else 0.0
    plan = Plan.dbim(schedule, nfe, order, eta, clip=clip)
    steps = Plan.posterior(schedule, nfe).steps
    assert steps is not None
    assert plan.steps is not None
    assert plan.steps.tolist() == steps.tolist()
    x1 = X1.astype(np.float64)
    check(plan, clip, masked, lambda m, z: dbim_loop(Bridge(schedule, clip, m), x1, steps.tolist(), order, eta, z))


@given(bridge=INTERVALS, share=st.floats(0, 1), eta=ETAS, clip=st.booleans(), masked=st.booleans())
def test_i3sb_is_the_published_loop(
    bridge: tuple[int, float], share: float, eta: float, clip: bool, masked: bool
) -> None:
    schedule = Schedule(*bridge)
    plan = Plan.i3sb(schedule, 1 + int(share * (min(bridge[0], 30) - 2)), eta, clip=clip)
    assert plan.steps is not None
    steps, x1 = plan.steps.tolist(), X1.astype(np.float64)
    check(plan, clip, masked, lambda m, z: i3sb_loop(Bridge(schedule, clip, m), x1, steps, eta, z))


@given(half=st.integers(2, 600), share=st.floats(0, 1), beta_max=st.floats(1e-2, 20))
def test_dbim_with_eta_1_is_posterior_sampling(half: int, share: float, beta_max: float) -> None:
    schedule, nfe = Schedule(2 * half, beta_max), 1 + int(share * (2 * half - 2))
    dbim, posterior = Plan.dbim(schedule, nfe, eta=1.0), Plan.posterior(schedule, nfe)
    np.testing.assert_allclose(dbim.rows[:, :R], posterior.rows[:, :R], rtol=0, atol=1e-6)
    assert not dbim.rows[:, R].any()
    # What cancels is nothing, not rounding: a row with x1's share would read the whole picture once more.
    np.testing.assert_array_equal(dbim.rows[:, COLUMNS.index("c")], 0)


def test_dbim_takes_the_papers_own_steps() -> None:
    """A first move from T to just below it, then even steps: one call more than there are of those."""
    schedule = Schedule()
    steps = [0, *np.rint(np.linspace(1e-4, 0.999, 10) * 999).astype(int)[1:].tolist(), 999]
    plan = Plan.dbim(schedule, 10, steps=steps)
    assert plan.steps is not None
    assert plan.steps.tolist() == steps
    x1 = X1.astype(np.float64)
    check(plan, False, False, lambda m, z: dbim_loop(Bridge(schedule, False, m), x1, steps, 1, 0.0, z))


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ({"nfe": 0}, "nfe must be from 1 to 999"),
        ({"nfe": 1000}, "nfe must be from 1 to 999"),
        ({"nfe": 2**31 - 1, "steps": [0, 999]}, "nfe must be from 1 to 999"),
        ({"nfe": 5, "order": 0}, "order must be 1, 2 or 3"),
        ({"nfe": 5, "order": 4}, "order must be 1, 2 or 3"),
        ({"nfe": 5, "eta": -0.1}, "eta must be a number from 0 to 1"),
        ({"nfe": 5, "eta": 1.1}, "eta must be a number from 0 to 1"),
        ({"nfe": 5, "eta": float("nan")}, "eta must be a number from 0 to 1"),
        ({"nfe": 5, "order": 2, "eta": 0.5}, "eta must be 0 for the orders 2 and 3"),
        ({"nfe": 2, "steps": [0, 999]}, "goes through 3 steps, not 2"),
        ({"nfe": 2, "steps": [0, 0, 999]}, "must ascend from 0 to 999"),
        ({"nfe": 2, "steps": [0, 5, 998]}, "must ascend from 0 to 999"),
        ({"nfe": 2, "steps": [1, 5, 999]}, "must ascend from 0 to 999"),
    ],
)
def test_dbim_refuses_what_it_cannot_take(arguments: dict[str, Any], sentence: str) -> None:
    with pytest.raises(UsageError, match=sentence):
        Plan.dbim(Schedule(), **arguments)


def test_i3sb_refuses_what_it_cannot_take() -> None:
    with pytest.raises(UsageError, match="nfe must be from 1 to 999"):
        Plan.i3sb(Schedule(), 0)
    with pytest.raises(UsageError, match="eta must be a number from 0 to 1"):
        Plan.i3sb(Schedule(), 5, eta=2)


def test_samplers_have_names() -> None:
    schedule = Schedule()
    wanted = {
        "sde": Plan.posterior(schedule, 7, clip=True),
        "ode": Plan.posterior(schedule, 7, ot_ode=True, clip=True),
        "dbim1": Plan.dbim(schedule, 7, clip=True),
        "dbim2": Plan.dbim(schedule, 7, 2, clip=True),
        "dbim3": Plan.dbim(schedule, 7, 3, clip=True),
        "i3sb": Plan.i3sb(schedule, 7, 0.6, clip=True),
    }
    for name, plan in wanted.items():
        found = Plan.named(name, schedule, 7, clip=True)
        np.testing.assert_array_equal(found.rows, plan.rows)
        assert (found.clip, found.known) == (True, plan.known)
    np.testing.assert_array_equal(Plan.named("i3sb", schedule, 7, 0.2).rows, Plan.i3sb(schedule, 7, 0.2).rows)
    np.testing.assert_array_equal(Plan.named("dbim1", schedule, 7, 0.2).rows, Plan.dbim(schedule, 7, 1, 0.2).rows)
    with pytest.raises(UsageError, match="not of dbim2"):
        Plan.named("dbim2", schedule, 7, 0.2)
    with pytest.raises(UsageError, match="there are sde, ode, dbim1"):
        Plan.named("ddim", schedule, 7)
