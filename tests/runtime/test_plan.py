import copy
import pickle
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from i2sb_rt import Plan, Schedule
from i2sb_rt.errors import UsageError
from i2sb_rt.model_info import BRIDGE_SAMPLERS
from i2sb_rt.plan import COLUMNS


def twin_steps(interval: int, nfe: int) -> list[int]:
    """The reference's steps: its accumulated rounding is part of the contract."""
    c, steps = 0.0, []
    for _ in range(nfe + 1):
        steps.append(round(c))
        c += (interval - 1) / nfe
    return steps


def twin_rows(interval: int, beta_max: float, nfe: int, ot_ode: bool) -> NDArray[np.float64]:
    """Posterior sampling written straight from arXiv 2302.05872, eq. 4 and 11, for t0 = 1e-4 and T = 1."""
    half = np.linspace(np.sqrt(1e-4), np.sqrt(beta_max / interval), interval)[: interval // 2] ** 2
    betas = np.concatenate([half, half[::-1]])
    fwd2, bwd2 = np.cumsum(betas), np.cumsum(betas[::-1])[::-1]
    times = np.linspace(1e-4, 1.0, interval) * interval
    steps, rows = twin_steps(interval, nfe), []
    for n, p in zip(steps[:0:-1], steps[-2::-1], strict=True):
        delta2 = fwd2[n] - fwd2[p]
        row = dict.fromkeys(COLUMNS, 0.0)
        row |= {"t": times[n], "p": 1, "q": -np.sqrt(fwd2[n]), "a": fwd2[p] / fwd2[n], "b": delta2 / fwd2[n]}
        if not ot_ode:
            row["s"] = np.sqrt(fwd2[p] * delta2 / fwd2[n]) if p > 0 else 0
            row["r"] = np.sqrt(fwd2[p] * bwd2[p] / (fwd2[p] + bwd2[p]))
        rows.append([row[column] for column in COLUMNS])
    return np.array(rows)


@given(half=st.integers(2, 700), nfe_share=st.floats(0, 1), beta_max=st.floats(1e-3, 50), ot_ode=st.booleans())
def test_posterior_equals_the_equations(half: int, nfe_share: float, beta_max: float, ot_ode: bool) -> None:
    interval = 2 * half
    nfe = 1 + int(nfe_share * (interval - 2))
    plan = Plan.posterior(Schedule(interval, beta_max), nfe, ot_ode=ot_ode)
    assert plan.rows.dtype == np.float32
    assert plan.steps is not None
    assert plan.steps.tolist() == twin_steps(interval, nfe)
    # Half a unit of float32, and what a difference of two close sums loses in float64.
    np.testing.assert_allclose(plan.rows, twin_rows(interval, beta_max, nfe, ot_ode), rtol=1.2e-7, atol=1e-12)


def test_steps_keep_the_accumulated_rounding_at_every_nfe() -> None:
    unlike_a_product = 0
    for nfe in range(1, 1000):
        steps = Plan.posterior(Schedule(), nfe).steps
        assert steps is not None
        assert steps.tolist() == twin_steps(1000, nfe)
        unlike_a_product += steps.tolist() != [round(i * 999 / nfe) for i in range(nfe + 1)]
    assert unlike_a_product == 283


def test_options_and_defaults() -> None:
    plan = Plan.posterior(Schedule(), 3)
    assert (plan.nfe, plan.clip, plan.known) == (3, False, "renew")
    assert Plan.posterior(Schedule(), 3, clip=True).clip
    assert not Plan.posterior(Schedule(), 3, ot_ode=True).rows[:, [COLUMNS.index("s"), COLUMNS.index("r")]].any()


@pytest.mark.parametrize("sampler", BRIDGE_SAMPLERS)
@given(nfe=st.integers(2, 40), interval=st.integers(30, 500).map(lambda half: 2 * half))
def test_a_network_that_says_x0_is_read_as_it_is(sampler: str, nfe: int, interval: int) -> None:
    schedule = Schedule(interval)
    noise, mean = (Plan.named(sampler, schedule, nfe, prediction=said) for said in ("noise", "mean"))
    assert mean.steps is not None
    np.testing.assert_array_equal(noise.rows[:, 3:], mean.rows[:, 3:])
    np.testing.assert_array_equal(noise.rows[:, 0], mean.rows[:, 0])
    np.testing.assert_array_equal(mean.rows[:, 1:3], np.tile(np.float32([0, 1]), (nfe, 1)))
    np.testing.assert_allclose(-noise.rows[:, 2], schedule.std_fwd[mean.steps[:0:-1]], rtol=1e-6)
    np.testing.assert_array_equal(noise.rows[:, 1], 1)


@pytest.mark.parametrize("nfe", [0, -1, 1000, 10**9])
def test_refuses_an_impossible_nfe(nfe: int) -> None:
    with pytest.raises(UsageError):
        Plan.posterior(Schedule(), nfe)


def test_refuses_what_no_network_of_a_bridge_says() -> None:
    with pytest.raises(UsageError, match='prediction is "noise" or "mean"'):
        Plan.posterior(Schedule(), 3, prediction="residual")


def test_own_rows_are_copied_and_frozen() -> None:
    rows = np.ones((2, 10))
    plan = Plan(rows, known="x0")  # type: ignore[arg-type]
    rows[:] = 5
    assert plan.rows.dtype == np.float32
    assert (plan.rows == 1).all()
    assert plan.steps is None
    with pytest.raises(ValueError, match="read-only"):
        plan.rows[0, 0] = 2


@pytest.mark.parametrize("copied", [copy.copy, copy.deepcopy, lambda plan: pickle.loads(pickle.dumps(plan))])
def test_copies_are_frozen_too(copied: Callable[[Plan], Plan]) -> None:
    plan = replace(Plan.posterior(Schedule(), 3), clip=True, known="x0")
    again = copied(plan)
    np.testing.assert_array_equal(again.rows, plan.rows)
    assert again.steps is not None
    assert again.steps.tolist() == [0, 333, 666, 999]
    assert (again.clip, again.known) == (True, "x0")
    for array in (again.rows, again.steps):
        with pytest.raises(ValueError, match="read-only"):
            array[0] = 2


@pytest.mark.parametrize(
    "rows", [np.ones((2, 9)), np.ones(10), np.ones((0, 10)), np.full((1, 10), np.nan), np.full((1, 10), 1e39)]
)
def test_refuses_rows_that_are_no_plan(rows: NDArray[np.float32]) -> None:
    with pytest.raises(UsageError):
        Plan(rows)


def test_refuses_an_unknown_rule() -> None:
    with pytest.raises(UsageError, match="renew"):
        Plan(np.ones((1, 10), np.float32), known="paste")  # type: ignore[arg-type]
