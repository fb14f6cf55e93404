"""What the networks of a bridge are trained on: the targets of IPF and IMF, drawn from caches."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from i2sb_train.dsb.process import Direction, Drift, Process, opposite, spread


@dataclass(frozen=True)
class Batch:
    """States x [B, C, H, W], the numbers of the states int64 [B], drifts to learn, and the weights of their errors."""

    x: Tensor
    states: Tensor
    drift: Tensor
    weight: Tensor


class Cache(Protocol):
    """Where batches of one half-iteration come from, until it is made anew."""

    def batch(self, count: int, generator: torch.Generator) -> Batch:
        """Draw a batch."""
        ...


class Trajectories:
    """IPF: the network of `direction` learns to go back along trajectories of the other one.

    Of a step from state i to j with drift g, made with noise, it learns at x_j the mean x_j + G(x_i) - G(x_j), where
    G(x) = x + gamma g(x) (arXiv 2106.01357, proposition 3 and equations 12, 13). As a drift that is (x_i - x_j) / gamma
    + g(x_i) - g(x_j), whose noise has the variance 2 / gamma: hence the weight gamma.
    """

    def __init__(
        self, process: Process, other: Drift, x: Tensor, direction: Direction, generator: torch.Generator
    ) -> None:
        self.process, self.direction = process, direction
        made = opposite(direction)
        left, ahead = process.left(made), 1 if made == "forward" else -1
        self.states = torch.tensor([state + ahead for state in left], device=x.device)
        self.x, self.drift = (x.new_empty(len(process), *x.shape) for _ in range(2))
        for index, state in enumerate(left):
            gamma, drift = process.gamma_from(state, made), other(x, state)
            there = process.stepped(x, drift, gamma, generator)
            self.drift[index] = (x - there) / gamma + drift - other(there, state)
            self.x[index] = x = there

    def batch(self, count: int, generator: torch.Generator) -> Batch:
        """Draw steps of trajectories, any of each as likely."""
        device = self.x.device
        step = torch.randint(len(self.x), (count,), generator=generator, device=device)
        which = torch.randint(self.x.shape[1], (count,), generator=generator, device=device)
        states = self.states[step]
        weight = self.process.gammas_from(states, self.direction)
        return Batch(self.x[step, which], states, self.drift[step, which], weight)


class Pairs:
    """IMF: the network of `direction` learns the drift, on average, of bridges of the reference between given pairs.

    The Markovian projection of their mixture (arXiv 2303.16852, section 3; arXiv 2304.00917). The target's noise grows
    towards the bridge's own end as one over the variance that is left: hence that as the weight.
    """

    def __init__(self, process: Process, x0: Tensor, x1: Tensor, direction: Direction) -> None:
        self.process, self.x0, self.x1, self.direction = process, x0, x1, direction

    def batch(self, count: int, generator: torch.Generator) -> Batch:
        """Draw pairs, a step for each, and a state of the bridge between them."""
        process, reference, device = self.process, self.process.reference, self.x0.device
        which = torch.randint(len(self.x0), (count,), generator=generator, device=device)
        steps = torch.randint(len(process), (count,), generator=generator, device=device)
        states = steps if self.direction == "forward" else steps + 1
        x0, x1 = self.x0[which], self.x1[which]
        t, rest = spread(process.times[states]), spread(process.horizon - process.times[states])
        z = torch.empty_like(x0).normal_(generator=generator)
        x = reference.between(x0, x1, t, rest, z)
        if self.direction == "forward":
            drift, left = reference.towards_end(x, x1, rest), reference.variance(rest)
        else:
            drift, left = reference.towards_start(x, x0, t), reference.variance(t)
        return Batch(x, states, drift, left / reference.variance(t + rest))


def errors(out: Tensor, batch: Batch, gamma: Tensor, prediction: str) -> Tensor:
    """Compute the squared errors of what a network says, [B, C, H, W].

    Those of the next state's mean and of the residual are left as they are, as in arXiv 2106.01357; those of a drift,
    and of one in units of noise, are weighted, which makes them of one size in all steps.
    """
    drift = as_drift(out, batch.x, gamma, prediction)
    weight = gamma**2 if prediction in ("mean", "residual") else batch.weight
    return weight * (drift - batch.drift) ** 2


def as_drift(out: Tensor, x: Tensor, gamma: Tensor, prediction: str) -> Tensor:
    """Return the drift f that a network's output means, for steps of sizes gamma [B, 1, 1, 1]."""
    if prediction == "drift":
        return out
    if prediction == "noise":
        return out * (2 / gamma).sqrt()
    return (out - x if prediction == "mean" else out) / gamma
