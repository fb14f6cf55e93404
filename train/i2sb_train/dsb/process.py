"""The discrete process of a diffusion Schrodinger bridge: its times, its reference, its steps and bridges.

All in the units of arXiv 2106.01357: dX = f dt + sqrt(2) dB, and a step of size gamma is x + gamma f + sqrt(2 gamma) z.
States are counted 0 .. N from the data; the forward step k goes from state k to k + 1, the backward one back.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Final, Literal

import numpy as np
import torch
from torch import Tensor

from i2sb_rt import Plan

Direction = Literal["forward", "backward"]
DIRECTIONS: Final[tuple[Direction, ...]] = ("backward", "forward")  # in the order of the halves
Drift = Callable[[Tensor, int], Tensor]
"""x [B, ...] and the number of the state it is in to the drift of the step that leaves it."""


@dataclass(frozen=True)
class Reference:
    """Brownian motion (rate 0), or Ornstein-Uhlenbeck dX = -rate X dt + sqrt(2) dB, stationary at N(0, 1/rate)."""

    rate: float = 0.0

    def drift(self, x: Tensor) -> Tensor:
        """Return -rate x."""
        return -self.rate * x

    def decay(self, t: Tensor) -> Tensor:
        """Return what is left of a state after a time: E[X_t | x] = decay x."""
        return torch.exp(-self.rate * t)

    def variance(self, t: Tensor) -> Tensor:
        """Return the variance of X_t given X_0."""
        return 2 * t if self.rate == 0 else -torch.expm1(-2 * self.rate * t) / self.rate

    def between(self, x0: Tensor, x1: Tensor, t: Tensor, rest: Tensor, z: Tensor) -> Tensor:
        """Draw X_t given X_0 = x0 and X_{t + rest} = x1, z ~ N(0, I): the product of the two Gaussians that it is."""
        left, right = self.variance(t), self.variance(rest)
        c = self.decay(rest)
        total = self.variance(t + rest)
        mean = (right * self.decay(t) * x0 + left * c * x1) / total
        return mean + (left * right / total).sqrt() * z

    def towards_end(self, x: Tensor, x1: Tensor, rest: Tensor) -> Tensor:
        """Return the forward drift of the bridge to x1: f + 2 grad log p(X_{t + rest} = x1 | X_t = x)."""
        c = self.decay(rest)
        return self.drift(x) + 2 * c * (x1 - c * x) / self.variance(rest)

    def towards_start(self, x: Tensor, x0: Tensor, t: Tensor) -> Tensor:
        """Return the backward drift of the bridge to x0: -f + 2 grad log p(X_t = x | X_0 = x0)."""
        return -self.drift(x) - 2 * (x - self.decay(t) * x0) / self.variance(t)


class Process:
    """The steps of a bridge on a device: gammas [N], times [N + 1], both float64, and the network's times [N + 1]."""

    def __init__(self, gammas: list[float], reference: Reference, device: torch.device) -> None:
        self.reference = reference
        self._sizes = gammas
        self.gammas = torch.tensor(gammas, dtype=torch.float64, device=device)
        self.times = torch.cat([self.gammas.new_zeros(1), self.gammas.cumsum(0)])
        self.horizon = float(self.times[-1])
        # The states' times as plans tell them to the network: forward from all but the last, backward from that.
        told = [Plan.dsb(gammas, "forward").rows[:, 0], Plan.dsb(gammas, "backward").rows[:1, 0]]
        self.network_times = torch.from_numpy(np.concatenate(told)).to(device)

    def __len__(self) -> int:
        return len(self.gammas)

    def left(self, direction: Direction) -> list[int]:
        """List the states that the steps of a direction leave, in order."""
        steps = range(len(self))
        return list(steps) if direction == "forward" else [len(self) - k for k in steps]

    def gamma_from(self, state: int, direction: Direction) -> float:
        """Return the size of the step that leaves a state."""
        return self._sizes[state if direction == "forward" else state - 1]

    def gammas_from(self, states: Tensor, direction: Direction) -> Tensor:
        """Return the sizes of the steps that leave the states int64 [B], float32 [B, 1, 1, 1]."""
        return spread(self.gammas[states if direction == "forward" else states - 1])

    def stepped(self, x: Tensor, drift: Tensor, gamma: float, generator: torch.Generator | None) -> Tensor:
        """Return x + gamma drift + sqrt(2 gamma) z; without a generator there is no noise."""
        mean = x + gamma * drift
        if generator is None:
            return mean
        noise: Tensor = torch.empty_like(x).normal_(generator=generator)
        return mean + float((2 * gamma) ** 0.5) * noise

    def walk(self, drift: Drift, x: Tensor, direction: Direction, generator: torch.Generator) -> Iterator[Tensor]:
        """Yield the N + 1 states of the chain from x [B, C, H, W], as a plan makes them: no noise in the last step."""
        yield x
        for count, state in enumerate(self.left(direction), start=1):
            noise = generator if count < len(self) else None
            x = self.stepped(x, drift(x, state), self.gamma_from(state, direction), noise)
            yield x

    def simulate(self, drift: Drift, x: Tensor, direction: Direction, generator: torch.Generator) -> list[Tensor]:
        """Return all states of `walk`."""
        return list(self.walk(drift, x, direction, generator))

    def end(self, drift: Drift, x: Tensor, direction: Direction, generator: torch.Generator) -> Tensor:
        """Return the last state of `walk`; the others are not kept."""
        return deque(self.walk(drift, x, direction, generator), maxlen=1)[0]


def spread(values: Tensor) -> Tensor:
    """Shape values [B] as float32 [B, 1, 1, 1]."""
    return values.float()[:, None, None, None]


def opposite(direction: Direction) -> Direction:
    """Return the other direction."""
    return "backward" if direction == "forward" else "forward"
