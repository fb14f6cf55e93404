"""Training against a closed form: for Gaussian pictures the best network is linear, and its loss can be computed.

x0 = s0 u, x1 = r x0 + s1 v and x_k = mu_x0 x0 + mu_x1 x1 + std_sb z are linear in three independent normals u, v, z for
each pixel, so the best guess of the target from what the network sees is the projection on it.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from torch import Tensor, nn

from i2sb_rt import Schedule
from i2sb_train import loop
from i2sb_train.data import Sample
from i2sb_train.loop import Pictures, Trainer
from i2sb_train.recipe import Recipe

MakeRecipe = Callable[..., Recipe]
INTERVAL, BATCH, STEPS = 8, 512, 400
BETA_MAX = 10.0  # noise as strong as the pictures: with little, x_k and x1 are one, and their weights hard to find
SCHEDULE = Schedule(interval=INTERVAL, beta_max=BETA_MAX)


class PerStep(nn.Module):
    """A linear map of the channels for each bridge step."""

    multiple = 1

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(INTERVAL, channels))

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        times = torch.tensor(SCHEDULE.noise_levels, dtype=t.dtype)
        step = (t[:, None] - times).abs().argmin(dim=1)
        return torch.einsum("bc,bcphw->bphw", self.weight[step], x.unflatten(1, (-1, 3)))


def losses(s0: float, s1: float, r: float, ot_ode: bool, cond: bool, weights: NDArray[np.float64] | None) -> float:
    """The mean loss over all steps of linear maps, [N, channels], or without them the least there can be."""
    x0, x1, z = np.array([s0, 0, 0]), np.array([r * s0, s1, 0]), np.array([0, 0, 1])
    found = []
    for k in range(INTERVAL):
        x = SCHEDULE.mu_x0[k] * x0 + SCHEDULE.mu_x1[k] * x1 + (0 if ot_ode else SCHEDULE.std_sb[k]) * z
        target = (x - x0) / SCHEDULE.std_fwd[k]
        seen = np.stack([x, x1] if cond else [x])
        chosen = np.linalg.lstsq(seen.T, target, rcond=None)[0] if weights is None else weights[k]
        found.append(float(np.sum((target - chosen @ seen) ** 2)))
    return float(np.mean(found))


@settings(max_examples=6, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    s0=st.floats(0.2, 1.0),
    s1=st.floats(0.3, 1.0),
    r=st.floats(-0.5, 1.5),
    switches=st.sampled_from([(False, False), (True, False), (False, True)]),
)
def test_the_loss_reaches_the_least_there_can_be(
    make_recipe: MakeRecipe, tmp_path_factory: pytest.TempPathFactory, s0: float, s1: float, r: float, switches: Any
) -> None:
    ot_ode, cond = switches
    recipe = make_recipe(
        bridge={"interval": INTERVAL, "beta_max": BETA_MAX, "ot_ode": ot_ode, "cond_x1": cond},
        network={"in_channels": 6 if cond else 3},
        train={"lr": 0.3, "steps": STEPS, "batch": BATCH, "warmup": 0, "decay": 300, "ema": 0.9, "clip": 1e9},
        model={"sampler": "ode" if ot_ode else "sde"},
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loop, "UNet", lambda **_: PerStep(2 if cond else 1))
        trainer = Trainer(recipe, Pictures([], []), tmp_path_factory.mktemp("run"))
    generator = torch.Generator().manual_seed(0)

    def batch(size: int) -> Sample:
        u, v, z = torch.randn(3, size, 3, 4, 4, generator=generator)
        step = torch.randint(INTERVAL, (size,), generator=generator)
        return Sample(s0 * u, r * s0 * u + s1 * v, step, None if ot_ode else z)

    for _ in range(STEPS):
        trainer.step(batch(BATCH))
    case = (s0, s1, r, ot_ode, cond)
    best = losses(*case, None)
    assert best <= losses(*case, trainer.state.ema["weight"].double().numpy()) < 1.02 * best
