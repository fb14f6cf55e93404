"""The steps of a diffusion Schrodinger bridge as rows, against their equations."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from i2sb_rt import Plan, Schedule, sample
from i2sb_rt.errors import UsageError
from i2sb_rt.plan import COLUMNS

gamma_lists = st.lists(st.floats(1e-6, 10), min_size=1, max_size=40)


@given(gammas=gamma_lists, backward=st.booleans(), prediction=st.sampled_from(["drift", "noise", "mean", "residual"]))
def test_rows_are_euler_maruyama(gammas: list[float], backward: bool, prediction: str) -> None:
    """arXiv 2106.01357, section 3.3: x' = x + gamma f(x, t) + sqrt(2 gamma) z, no noise in the last step."""
    plan = Plan.dsb(gammas, "backward" if backward else "forward", prediction=prediction)
    times = np.cumsum([0, *gammas])
    wanted = []
    for k, gamma in enumerate(gammas[::-1] if backward else gammas):
        row = dict.fromkeys(COLUMNS, 0.0)
        row["t"] = 1000 * times[len(gammas) - k if backward else k] / times[-1]
        scale = {"drift": gamma, "noise": np.sqrt(2 * gamma)}.get(prediction, 1.0)
        row |= {"p": float(prediction != "mean"), "q": scale, "b": 1.0}
        row["s"] = np.sqrt(2 * gamma) if k + 1 < len(gammas) else 0.0
        wanted.append([row[column] for column in COLUMNS])
    np.testing.assert_allclose(plan.rows, wanted, rtol=1e-6)
    assert plan.steps is not None
    assert plan.steps.tolist() == list(range(len(gammas) + 1))
    assert (plan.nfe, plan.clip) == (len(gammas), False)


@given(gammas=gamma_lists, share=st.floats(0, 1), backward=st.booleans())
def test_fewer_calls_pass_the_same_time_with_the_same_noise(gammas: list[float], share: float, backward: bool) -> None:
    nfe = 1 + int(share * (len(gammas) - 1))
    plan = Plan.dsb(gammas, "backward" if backward else "forward", nfe)
    assert plan.nfe == nfe
    rows = plan.rows.astype(np.float64)
    assert rows[:, COLUMNS.index("q")].sum() == pytest.approx(sum(gammas), rel=1e-5)
    np.testing.assert_allclose(rows[:-1, COLUMNS.index("s")] ** 2, 2 * rows[:-1, COLUMNS.index("q")], rtol=1e-5)
    assert rows[-1, COLUMNS.index("s")] == 0
    t = rows[:, 0]
    assert t[0] == (1000 if backward else 0)
    assert (np.diff(t) < 0).all() if backward else (np.diff(t) > 0).all()


def test_fewer_calls_take_noise_for_the_drift_of_its_own_step() -> None:
    """f sqrt(gamma / 2) with the gamma of the step that leaves the state: the rows lead to the same states."""
    gammas = [0.1, 0.4, 0.3, 0.2]
    for direction, own in (("forward", [0.1, 0.3]), ("backward", [0.2, 0.4])):
        drift, noise = (Plan.dsb(gammas, direction, 2, kind).rows for kind in ("drift", "noise"))
        np.testing.assert_allclose(noise[:, 2], drift[:, 2] * np.sqrt(2 / np.array(own)), rtol=1e-6)
        np.testing.assert_array_equal(np.delete(noise, 2, 1), np.delete(drift, 2, 1))


def test_a_drift_is_followed_through_the_loop() -> None:
    """For dX = -X dt the chain has the product of its factors; the noise is that of `noise`."""
    gammas = [0.1, 0.2, 0.3]
    x = np.random.default_rng(0).standard_normal((4, 2, 1, 1)).astype(np.float32)
    plan = Plan.dsb(gammas, "forward")
    out = sample(lambda x, t: -x, x, plan, noise=np.zeros((2, 4, 2, 1, 1), np.float32))
    np.testing.assert_allclose(out, x * 0.9 * 0.8 * 0.7, rtol=1e-5)
    z = np.random.default_rng(1).standard_normal((2, 4, 2, 1, 1)).astype(np.float32)
    out = sample(lambda x, t: 0 * x, x, plan, noise=z)
    np.testing.assert_allclose(out, x + 0.2**0.5 * z[0] + 0.4**0.5 * z[1], rtol=1e-5)


@pytest.mark.parametrize(
    ("arguments", "right"),
    [
        (([0.1], "sideways"), "direction must be forward or backward"),
        (([], "forward"), "gamma_count must be from 1"),
        (([0.1, 0.0], "forward"), "gammas must be from 1e-12"),
        (([0.1, float("nan")], "forward"), "gammas must be from 1e-12"),
        (([0.1, float("inf")], "forward"), "gammas must be from 1e-12"),
        (([0.1, 0.1], "forward", 3), r"nfe must be from 1 to 2 \(the number of gammas\), not 3"),
        (([0.1, 0.1], "forward", 0), r"nfe must be from 1 to 2"),
        (([0.1, 0.1], "forward", 1, "mean"), "predicts the mean knows its own steps alone, so nfe must be 2"),
        (([0.1, 0.1], "forward", 2, "x0"), 'prediction is "drift", "noise", "mean" or "residual"'),
    ],
)
def test_what_does_not_fit_is_refused(arguments: tuple[Any, ...], right: str) -> None:
    with pytest.raises(UsageError, match=right):
        Plan.dsb(*arguments)


def test_a_schedule_and_gammas_do_not_mix() -> None:
    with pytest.raises(UsageError, match="has gammas in place of a schedule"):
        Plan.named("dsb", Schedule(), 3)
