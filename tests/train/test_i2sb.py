"""The bridge's points and targets against the closed forms of the paper."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from i2sb_rt import Plan, Schedule
from i2sb_train import recipe
from i2sb_train.i2sb import Bridge, elements, errors

N = 1000
BRIDGES = {ot_ode: Bridge.of(recipe.Bridge(ot_ode=ot_ode)) for ot_ode in (False, True)}


def variances() -> tuple[np.ndarray, np.ndarray]:
    """std_fwd^2 and std_bwd^2, straight from the definition of the betas."""
    half = np.linspace(np.sqrt(1e-4), np.sqrt(0.3 / N), N)[: N // 2] ** 2
    betas = np.concatenate([half, half[::-1]])
    return np.cumsum(betas), np.cumsum(betas[::-1])[::-1]


def pair(seed: int = 0, batch: int = 1) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """x0, x1 and z."""
    x0, x1, z = torch.randn(3, batch, 3, 4, 4, generator=torch.Generator().manual_seed(seed))
    return x0, x1, z


@given(step=st.integers(0, N - 1), ot_ode=st.booleans(), seed=st.integers(0, 99))
@settings(max_examples=60, deadline=None)
def test_points_and_targets_equal_the_closed_forms(step: int, ot_ode: bool, seed: int) -> None:
    fwd, bwd = variances()
    pairs = pair(seed)
    x0, x1, z = (a.numpy().astype(np.float64) for a in pairs)
    total = fwd[step] + bwd[step]
    x = (bwd[step] * x0 + fwd[step] * x1) / total + (0 if ot_ode else np.sqrt(fwd[step] * bwd[step] / total)) * z
    bridge, steps = BRIDGES[ot_ode], torch.tensor([step])
    point = bridge.point(pairs[0], pairs[1], steps, pairs[2])
    np.testing.assert_allclose(point.numpy(), x, atol=2e-6)
    # The division by std_fwd (at least 0.01) enlarges the rounding of x.
    target = bridge.target(point, pairs[0], steps)
    np.testing.assert_allclose(target.numpy(), (x - x0) / np.sqrt(fwd[step]), atol=5e-4)


@given(step=st.integers(0, N - 1), seed=st.integers(0, 99), prediction=st.sampled_from(["noise", "mean"]))
@settings(max_examples=40, deadline=None)
def test_clean_undoes_target(step: int, seed: int, prediction: str) -> None:
    x0, x1, z = pair(seed)
    bridge, steps = replace(BRIDGES[False], prediction=prediction), torch.tensor([step])
    x = bridge.point(x0, x1, steps, z)
    torch.testing.assert_close(bridge.clean(x, bridge.target(x, x0, steps), steps), x0, atol=1e-5, rtol=0)


def test_a_network_of_the_mean_learns_the_clean_picture() -> None:
    x0, x1, z = pair()
    bridge, steps = Bridge.of(recipe.Bridge(prediction="mean")), torch.tensor([500])
    x = bridge.point(x0, x1, steps, z)
    assert torch.equal(x, BRIDGES[False].point(x0, x1, steps, z))
    assert torch.equal(bridge.target(x, x0, steps), x0)


def test_the_ends_of_the_bridge_are_the_pair() -> None:
    x0, x1, z = pair()
    bridge = BRIDGES[True]
    first, last = (bridge.point(x0, x1, torch.tensor([k]), z) for k in (0, N - 1))
    # Sums are inclusive, so an end keeps one beta of 1e-4 in 0.14 of the other side.
    torch.testing.assert_close(first, x0, atol=5e-3, rtol=0)
    torch.testing.assert_close(last, x1, atol=5e-3, rtol=0)


def test_every_sample_has_its_own_step() -> None:
    x0, x1, z = pair(batch=3)
    steps = torch.tensor([0, 500, 999])
    bridge = BRIDGES[False]
    together = bridge.point(x0, x1, steps, z)
    for i in range(3):
        alone = bridge.point(x0[i : i + 1], x1[i : i + 1], steps[i : i + 1], z[i : i + 1])
        assert torch.equal(together[i : i + 1], alone)


def test_the_target_of_pure_noise_has_its_spread() -> None:
    # With x0 = x1 the target is z std_sb / std_fwd: about 1 at the clean end, 0 at the other.
    x0 = torch.zeros(4096, 1, 1, 1)
    z = torch.randn(x0.shape, generator=torch.Generator().manual_seed(0))
    bridge = BRIDGES[False]
    for step in (0, 500, 999):
        steps = torch.full((4096,), step)
        spread = bridge.target(bridge.point(x0, x0, steps, z), x0, steps).std().item()
        expected = (bridge.std_sb[step] / bridge.std_fwd[step]).item()
        assert spread == pytest.approx(expected, rel=0.05)


def test_the_network_sees_the_damaged_picture_if_asked_to() -> None:
    x, x1, _ = pair()
    assert BRIDGES[False].seen(x, x1) is x
    both = Bridge.of(recipe.Bridge(cond_x1=True)).seen(x, x1)
    assert torch.equal(both[:, :3], x)
    assert torch.equal(both[:, 3:], x1)


def test_times_are_the_schedule_s() -> None:
    np.testing.assert_allclose(BRIDGES[False].times.numpy(), Schedule().noise_levels, rtol=1e-6)


@pytest.mark.parametrize("ot_ode", [False, True])
def test_known_pixels_are_trained_on_as_sampling_shows_them(ot_ode: bool) -> None:
    # Where x0 = x1, a plan leaves x1 + r z behind each of its rows, and its first call sees x1 itself.
    plan, bridge = Plan.posterior(Schedule(), 10, ot_ode), BRIDGES[ot_ode]
    assert plan.steps is not None
    x1, _, z = pair()
    for step, renewed in zip(plan.steps[-2::-1], plan.rows[:, -1], strict=True):
        steps = torch.tensor([int(step)])
        seen = bridge.begun(bridge.point(x1, x1, steps, z), x1, steps)
        torch.testing.assert_close(seen, x1 + float(renewed) * z, atol=2e-6, rtol=0)
    steps = torch.tensor([N - 1, 500])
    both = bridge.begun(bridge.point(*[torch.cat([a, a]) for a in (x1, x1)], steps, torch.cat([z, z])), x1, steps)
    assert torch.equal(both[0], x1[0])
    assert ot_ode or not torch.equal(both[1], x1[0])


def test_the_error_of_holes_is_theirs_alone() -> None:
    out, target, _ = pair(batch=2)
    mask = torch.zeros(2, 1, 4, 4, dtype=torch.bool)
    mask[0, 0, :2, 1] = True
    mask[1, 0, 3] = True
    out.requires_grad_()
    error = errors(out, target, mask).sum() / elements(out, mask).sum()
    chosen = [(out - target)[i, :, y, x] for i, _, y, x in mask.nonzero().tolist()]
    assert error.item() == pytest.approx(torch.stack(chosen).square().mean().item())
    (gradient,) = torch.autograd.grad(error, out)
    inside = mask.expand_as(gradient)
    assert (gradient[~inside] == 0).all()
    assert (gradient[inside] != 0).all()
    assert elements(out, mask).tolist() == [6, 12]
    assert elements(out).tolist() == [48, 48]
    torch.testing.assert_close(errors(out, target), ((out - target) ** 2).sum((1, 2, 3)))
