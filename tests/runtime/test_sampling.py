from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from i2sb_rt import Plan, Schedule, noise, sample
from i2sb_rt.errors import NonFiniteError, UsageError
from i2sb_rt.plan import COLUMNS

F32 = NDArray[np.float32]

# Rows of pixels cut from runs of the published reference; pixels of different rows never meet in its network.
GOLDEN = np.load(Path(__file__).parents[1] / "data" / "sampling.npz")
CASES = sorted({key.removesuffix("/x1") for key in GOLDEN.files if key.endswith("/x1")})


def reference_network(x: F32, t: F32) -> F32:
    """The network of the golden runs."""
    return np.asarray(0.4 * x + 0.15 * np.sin(3 * x) + 0.1 * np.roll(x, 1, -1) + 2e-4 * t[:, None, None, None])


def plan_of_rows(*rows: dict[str, float], **options: Any) -> Plan:
    return Plan(np.array([[row.get(column, 0.0) for column in COLUMNS] for row in rows], np.float32), **options)


@pytest.mark.parametrize("case", CASES)
def test_reproduces_the_published_trajectories(case: str) -> None:
    bridge, calls, kind = case.split("/")
    nfe, beta_max = int(calls.removeprefix("nfe")), float(bridge.split("betamax")[1])
    plan = Plan.posterior(Schedule(1000, beta_max), nfe, ot_ode="ode" in kind, clip="clip" in kind)
    given = {name: GOLDEN[f"{case}/{name}"] for name in ("noises", "mask") if f"{case}/{name}" in GOLDEN}
    path = sample(
        reference_network,
        GOLDEN[f"{case}/x1"],
        plan,
        mask=given.get("mask"),
        noise=given.get("noises"),
        trajectory=True,
    )
    wanted = GOLDEN[f"{case}/trajectory"]
    assert plan.steps is not None
    assert plan.steps.tolist() == GOLDEN[f"{calls}/steps"].tolist()
    np.testing.assert_allclose(path[:, : wanted.shape[1]], wanted, rtol=0, atol=2e-5 if nfe <= 10 else 1e-4)


def twin(network: Any, x1: F32, plan: Plan, mask: F32 | None, cond: F32 | None, draws: Iterator[F32]) -> list[Any]:
    """The loop as the format of a plan tells it, in float64; the states after each row."""
    x, h1, h2, states = x1.astype(np.float64), 0.0, 0.0, []
    for row in plan.rows.astype(np.float64):
        t, p, q, a, b, c, d, e, s, r = row
        seen = x if cond is None else np.concatenate([x, cond], axis=1)
        x0 = p * x + q * network(seen.astype(np.float32), np.full(len(x), t, np.float32))
        x0 = x0.clip(-1, 1) if plan.clip else x0
        if mask is not None and plan.known == "x0":
            x0 = np.where(mask == 1, x0, x1)
        x = a * x + b * x0 + c * x1 + d * h1 + e * h2
        x = x + s * next(draws) if s else x
        renewed = r * next(draws) if mask is not None and r else 0.0
        if mask is not None and plan.known == "renew":
            x = np.where(mask == 1, x, x1 + renewed)
        h1, h2 = x0, h1
        states.append(x)
    return states


@given(seed=st.integers(0, 2**32 - 1), data=st.data())
def test_every_plan_runs_as_its_columns_say(seed: int, data: st.DataObject) -> None:
    rng = np.random.default_rng(seed)
    rows = rng.uniform(-0.7, 0.7, (data.draw(st.integers(1, 5)), 10)) * (rng.random((1, 10)) < 0.7)
    plan = Plan(
        rows.astype(np.float32), clip=data.draw(st.booleans()), known=data.draw(st.sampled_from(["renew", "x0"]))
    )
    shape = tuple(data.draw(st.integers(1, limit)) for limit in (3, 3, 5, 19))
    x1 = rng.standard_normal(shape).astype(np.float32)
    masked, has_cond = data.draw(st.booleans()), data.draw(st.booleans())
    mask = rng.integers(0, 2, (shape[0], 1, *shape[2:])).astype(np.float32) if masked else None
    cond = rng.standard_normal((shape[0], 2, *shape[2:])).astype(np.float32) if has_cond else None
    columns = [8, 9] if masked else [8]
    draws = rng.standard_normal((int(np.count_nonzero(plan.rows[:, columns])), *shape)).astype(np.float32)

    def network(x: F32, t: F32) -> F32:
        extra = 0 if cond is None else 0.3 * x[:, shape[1] :].mean(axis=1, keepdims=True)
        return np.float32(0.5) * np.sin(x[:, : shape[1]]) + extra + t[:, None, None, None]

    states = twin(network, x1, plan, mask, cond, iter(draws))
    path = sample(network, x1, plan, mask=mask, cond=cond, noise=draws, trajectory=True)
    assert path.shape == (shape[0], plan.nfe, *shape[1:])
    np.testing.assert_allclose(path, np.stack(states[::-1], axis=1), rtol=1e-5, atol=1e-5)
    last = sample(network, x1, plan, mask=mask, cond=cond, noise=draws)
    np.testing.assert_array_equal(last, path[:, 0])


def test_draws_the_noise_that_it_tells() -> None:
    x1 = np.full((2, 3, 4, 5), 0.25, np.float32)
    plan = plan_of_rows({"s": 1}, {"s": 0.5, "r": 2})
    mask = np.zeros((2, 1, 4, 5), np.float32)
    mask[..., 2:] = 1
    path = sample(lambda x, t: x, x1, plan, seeds=[3, 2**63], mask=mask, trajectory=True)
    for image, seed in enumerate([3, 2**63]):
        hole = mask[image, 0] == 1
        first, second = noise(seed, (3, 4, 5), 0), 0.5 * noise(seed, (3, 4, 5), 1)
        known = np.float32(0.25) + 2 * noise(seed, (3, 4, 5), 1, purpose=2)
        np.testing.assert_allclose(path[image, 1], np.where(hole, first, 0.25), atol=2e-6)
        np.testing.assert_allclose(path[image, 0], np.where(hole, second, known), atol=4e-6)


def test_noise_depends_on_each_argument_and_on_nothing_else() -> None:
    first = noise(1, (3, 8, 8), 0)
    assert first.dtype == np.float32
    np.testing.assert_array_equal(first, noise(1, (3, 8, 8), 0, purpose=0))
    for other in (
        noise(2, (3, 8, 8), 0),
        noise(1, (3, 8, 8), 1),
        noise(1, (3, 8, 8), 0, 1),
        noise(1 + 2**32, (3, 8, 8), 0),
    ):
        assert abs(np.corrcoef(first.ravel(), other.ravel())[0, 1]) < 0.3
    np.testing.assert_array_equal(first.ravel()[:64], noise(1, (1, 8, 8), 0).ravel())


@pytest.mark.parametrize("wrong", [(-1, (3, 4, 4), 0), (2**64, (3, 4, 4), 0), (0, (3, 0, 4), 0), (0, (3, 4, 4), -1)])
def test_noise_refuses_what_it_cannot_make(wrong: tuple[int, tuple[int, int, int], int]) -> None:
    with pytest.raises(UsageError):
        noise(*wrong)


def test_an_image_does_not_depend_on_its_batch() -> None:
    x1 = np.random.default_rng(0).uniform(-1, 1, (7, 3, 9, 11)).astype(np.float32)
    plan, seeds = Plan.posterior(Schedule(), 4), [5, 5, 1, 9, 2**40, 0, 7]
    together = sample(reference_network, x1, plan, seeds=seeds)
    for index in (6, 0, 3):
        alone = sample(reference_network, x1[index : index + 1], plan, seeds=seeds[index])
        np.testing.assert_array_equal(alone[0], together[index])


def test_seeds_default_to_zero_and_one_serves_all() -> None:
    x1 = np.zeros((2, 1, 4, 4), np.float32)
    plan = plan_of_rows({"s": 1})
    results = [sample(reference_network, x1, plan, seeds=seeds) for seeds in (None, 0, [0, 0], np.zeros(2, np.int64))]
    for result in results:
        np.testing.assert_array_equal(result, results[0])
    np.testing.assert_array_equal(results[0][0], results[0][1])


def test_points_are_images_of_one_pixel() -> None:
    x1 = np.random.default_rng(1).standard_normal((50, 2, 1, 1)).astype(np.float32)
    out = sample(lambda x, t: 0 * x, x1, plan_of_rows({"a": 1, "c": 1}))
    np.testing.assert_array_equal(out, 2 * x1)


def test_the_network_may_keep_what_it_sees() -> None:
    kept: list[tuple[F32, F32]] = []

    def network(x: F32, t: F32) -> F32:
        kept.append((x, t))
        return x

    x1 = np.ones((1, 1, 2, 2), np.float32)
    path = sample(network, x1, plan_of_rows({"t": 3, "a": 0.5}, {"t": 2, "a": 0.5}, {"t": 1}), trajectory=True)
    assert [t.tolist() for _, t in kept] == [[3.0], [2.0], [1.0]]
    for (x, _), seen in zip(kept, [x1, path[:, 2], path[:, 1]], strict=True):
        np.testing.assert_array_equal(x, seen)


def test_torch_tensors_give_torch_tensors() -> None:
    import torch

    seen: list[object] = []

    def network(x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        seen.extend([x, t])
        return torch.sin(x) + t[:, None, None, None]

    x1 = torch.linspace(-1, 1, 24).reshape(1, 3, 2, 4)
    plan = Plan.posterior(Schedule(), 3)
    out = sample(network, x1, plan, seeds=4, mask=torch.ones(1, 1, 2, 4))
    assert isinstance(out, torch.Tensor)
    assert all(isinstance(value, torch.Tensor) for value in seen)
    with_arrays = sample(lambda x, t: np.sin(x) + t[:, None, None, None], x1.numpy(), plan, seeds=4)
    np.testing.assert_allclose(out.numpy(), with_arrays, atol=1e-5)


def test_a_module_takes_arrays() -> None:
    import torch

    class Half(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.factor = torch.nn.Parameter(torch.tensor(0.5))

        def forward(self, x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
            return self.factor * x

    x1 = np.full((1, 1, 2, 2), 4.0, np.float32)
    out = sample(Half(), x1, plan_of_rows({"q": 1, "b": 1}))
    assert isinstance(out, np.ndarray)
    np.testing.assert_array_equal(out, np.full((1, 1, 2, 2), 2.0))


X1 = np.zeros((2, 3, 4, 4), np.float32)


@pytest.mark.parametrize(
    "wrong",
    [
        {"x1": X1[0]},
        {"x1": X1[:0]},
        {"seeds": [1]},
        {"seeds": -1},
        {"seeds": 2**64},
        {"seeds": 0.5},
        {"mask": X1[:, :1] + 0.5},
        {"mask": X1},
        {"cond": X1[:, :, :2]},
        {"noise": np.zeros((1, 2, 3, 4, 4), np.float32)},
        {"noise": np.zeros((0, 2, 3, 4, 4), np.float32)},
        {"network": lambda x, t: x[:, :1]},
    ],
)
def test_refuses_what_does_not_fit(wrong: dict[str, Any]) -> None:
    arguments = {"network": reference_network, "x1": X1, "plan": Plan.posterior(Schedule(), 3), **wrong}
    with pytest.raises(UsageError):
        sample(**arguments)


def test_a_result_that_is_not_finite_is_an_error() -> None:
    with pytest.raises(NonFiniteError):
        sample(lambda x, t: x * np.nan, X1, Plan.posterior(Schedule(), 1))


def test_the_networks_own_exception_comes_through() -> None:
    def network(x: F32, t: F32) -> F32:
        raise ZeroDivisionError("mine")

    with pytest.raises(ZeroDivisionError, match="mine"):
        sample(network, X1, Plan.posterior(Schedule(), 1))
