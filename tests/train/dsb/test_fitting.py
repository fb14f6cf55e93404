"""The targets of both algorithms have the means that theory gives them: regressions against closed forms."""

import numpy as np
import pytest
import torch
from gaussian_bridge import exact_coupling
from numpy.typing import NDArray

from i2sb_train.dsb.fitting import Batch, Pairs, Trajectories, as_drift, errors
from i2sb_train.dsb.process import Direction, Process, Reference
from i2sb_train.dsb.recipe import Bridge

F64 = NDArray[np.float64]
DIM, COUNT = 3, 400_000


def normal(count: int, mean: float, std: float, seed: int) -> torch.Tensor:
    drawn = torch.randn(count, DIM, 1, 1, generator=torch.Generator().manual_seed(seed))
    return mean + std * drawn


def regressions(batch: Batch) -> dict[int, tuple[F64, F64]]:
    """Slope and offset of the drift against x, for each state: coordinates are alike and independent."""
    found = {}
    for state in batch.states.unique().tolist():
        here = batch.states == state
        x, y = (v[here].flatten().double().numpy() for v in (batch.x, batch.drift))
        slope, offset = np.polyfit(x, y, 1)
        found[state] = slope, offset
    return found


@pytest.mark.parametrize("rate", [0.0, 1.0])
def test_first_backward_target_is_the_reverse_drift(rate: float) -> None:
    """-f + 2 grad log p of the chain's own Gaussian marginals (arXiv 2106.01357, section 2.2)."""
    mean, std = 0.7, 0.5
    process = Process(Bridge(steps=8, horizon=0.8).gammas(), Reference(rate), torch.device("cpu"))
    cache = Trajectories(
        process, lambda x, _: -rate * x, normal(40000, mean, std, 0), "backward", torch.Generator().manual_seed(1)
    )
    found = regressions(cache.batch(COUNT, torch.Generator().manual_seed(2)))
    assert sorted(found) == list(range(1, 9))
    m, v = mean, std**2
    for state, gamma in enumerate(process.gammas.tolist(), start=1):
        m, v = (1 - rate * gamma) * m, (1 - rate * gamma) ** 2 * v + 2 * gamma
        slope, offset = found[state]
        noise = 4 * np.sqrt(2 / gamma / (COUNT / 8 * DIM) / v)  # four standard errors
        assert slope == pytest.approx(rate - 2 / v, abs=noise + 0.02 * 2 / v)
        assert offset == pytest.approx(2 * m / v, abs=noise * (1 + abs(m)) + 0.02 * 2 * m / v)


def test_ipf_target_is_the_paper_s_mean() -> None:
    """x_j + G(x_i) - G(x_j), equation 13, for a drift that is not linear."""
    process = Process([0.1, 0.3], Reference(), torch.device("cpu"))

    def drift(x: torch.Tensor, state: int) -> torch.Tensor:
        return torch.sin(x) * (1 + state)

    for direction in ("backward", "forward"):
        cache = Trajectories(process, drift, normal(50, 0, 1, 0), direction, torch.Generator().manual_seed(3))
        batch = cache.batch(200, torch.Generator().manual_seed(4))
        gamma = process.gammas_from(batch.states, direction)
        for x, state, mean in zip(batch.x, batch.states, batch.x + gamma * batch.drift, strict=True):
            j = int(state)
            i = j - 1 if direction == "backward" else j + 1
            index = (cache.states == j).nonzero().item()
            k = (cache.x[index] == x).all(1).nonzero()[0, 0]
            before = cache.x[index - 1, k] if index else normal(50, 0, 1, 0)[k]
            g = float(gamma[batch.states == j][0])
            expected = x + (before + g * drift(before, i)) - (x + g * drift(x, i))
            torch.testing.assert_close(mean, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("direction", ["forward", "backward"])
def test_imf_keeps_the_bridge_of_gaussians(direction: Direction) -> None:
    """From the exact coupling the projected drift is the bridge's own: the fixed point of IMF (arXiv 2303.16852)."""
    horizon, eye = 0.5, np.eye(1)
    mean, covariance = exact_coupling(np.array([-0.5]), 0.6 * eye, np.array([0.8]), 1.5 * eye, 1.0)
    c, v0, v1 = covariance[0, 1], covariance[0, 0], covariance[1, 1]
    draw = np.random.default_rng(0)
    pairs = draw.multivariate_normal(mean, covariance, (100_000, DIM)).astype(np.float32)
    process = Process(Bridge(steps=6, horizon=horizon).gammas(), Reference(), torch.device("cpu"))
    x0, x1 = (torch.from_numpy(pairs[..., k].copy())[..., None, None] for k in (0, 1))
    cache = Pairs(process, x0, x1, direction)
    found = regressions(cache.batch(COUNT, torch.Generator().manual_seed(2)))
    assert sorted(found) == (list(range(6)) if direction == "forward" else list(range(1, 7)))
    for state, (slope, offset) in found.items():
        s = float(process.times[state]) / horizon  # time of dX = v ds + dW on [0, 1]; a drift of ours is 2 v
        m = (1 - s) * mean[0] + s * mean[1]
        v = (1 - s) ** 2 * v0 + s**2 * v1 + s * (1 - s) * (2 * c + 1)
        ahead = (s * (v1 - c - 1) - (1 - s) * (v0 - c)) / v
        # forward the drift, backward its reversal -v + grad log p, both about the mean that moves evenly
        wanted = 2 * ahead if direction == "forward" else 2 * (-ahead - 1 / v)
        drift_of_mean = 2 * (mean[1] - mean[0]) * (1 if direction == "forward" else -1)
        near = 1 - s if direction == "forward" else s
        noise = 5 * np.sqrt(4 / max(near, 0.02) / (COUNT / 6 * DIM) / v)
        assert slope == pytest.approx(wanted, abs=noise)
        assert offset + slope * m == pytest.approx(drift_of_mean, abs=noise)


def test_errors_and_outputs_of_every_prediction() -> None:
    x, drift = torch.randn(4, 2, 1, 1), torch.randn(4, 2, 1, 1)
    gamma = torch.full((4, 1, 1, 1), 0.25)
    batch = Batch(x, torch.zeros(4, dtype=torch.int64), drift, gamma)
    right = {"drift": drift, "noise": drift * 0.125**0.5, "residual": 0.25 * drift, "mean": x + 0.25 * drift}
    for kind, out in right.items():
        torch.testing.assert_close(as_drift(out, x, gamma, kind), drift)
        assert errors(out, batch, gamma, kind).abs().max() < 1e-12
        size = {"drift": 0.25, "noise": 2.0}.get(kind, 1.0)
        torch.testing.assert_close(errors(out + 1, batch, gamma, kind), torch.full_like(x, size), rtol=1e-5, atol=1e-5)
