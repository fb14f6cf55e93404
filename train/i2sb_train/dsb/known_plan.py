"""Pairs of distributions whose entropic optimal transport plan is known.

A potential that is a mixture of Gaussians makes the conditional plan one too, in closed form (the construction of
arXiv 2306.10161, section 4): pi(x1 | x0) is proportional to N(x1; x0, epsilon I) sum_k w_k N(x1; m_k, S_k), here with
S_k = s_k^2 I, for the cost |x0 - x1|^2 / 2 and the entropy's weight epsilon.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

F64 = NDArray[np.float64]


@dataclass(frozen=True)
class Mixture:
    """A mixture of K isotropic Gaussians in d dimensions: weights [K], means [K, d], standard deviations [K]."""

    weights: F64
    means: F64
    stds: F64

    @classmethod
    def drawn(cls, dim: int, components: int, spread: float, std: float, seed: int) -> Mixture:
        """Draw one: means on a sphere of radius `spread`, standard deviations between 0.6 and 1.4 `std`."""
        draw = np.random.default_rng(seed)
        means = draw.standard_normal((components, dim))
        means *= spread / np.linalg.norm(means, axis=1, keepdims=True)
        return cls(np.full(components, 1 / components), means, std * draw.uniform(0.6, 1.4, components))

    def sample(self, count: int, draw: np.random.Generator) -> F64:
        """Draw points, [count, d]."""
        which = draw.choice(len(self.weights), count, p=self.weights)
        noise: F64 = draw.standard_normal((count, self.means.shape[1]))
        points: F64 = self.means[which] + self.stds[which, None] * noise
        return points


@dataclass(frozen=True)
class KnownPlan:
    """The entropic plan of a potential from any start, of weight epsilon."""

    potential: Mixture
    epsilon: float

    def conditional(self, x0: F64) -> tuple[F64, F64, F64]:
        """Return pi(x1 | x0) of x0 [n, d] as mixtures: weights [n, K], means [n, K, d], variances [K]."""
        variances = self.potential.stds**2
        total = variances + self.epsilon  # of x0 given the component
        square = ((x0[:, None] - self.potential.means) ** 2).sum(2)
        logs = np.log(self.potential.weights) - square / (2 * total) - x0.shape[1] / 2 * np.log(total)
        weights = np.exp(logs - logs.max(1, keepdims=True))
        share = (variances / total)[None, :, None]
        means = share * x0[:, None] + (1 - share) * self.potential.means
        return weights / weights.sum(1, keepdims=True), means, variances * self.epsilon / total

    def sample(self, x0: F64, draw: np.random.Generator) -> F64:
        """Draw one x1 for each x0, [n, d]."""
        weights, means, variances = self.conditional(x0)
        which = (weights.cumsum(1) < draw.random((len(x0), 1))).sum(1).clip(max=weights.shape[1] - 1)
        noise: F64 = draw.standard_normal(x0.shape)
        ends: F64 = means[np.arange(len(x0)), which] + np.sqrt(variances[which])[:, None] * noise
        return ends

    def moments(self, x0: F64) -> tuple[F64, F64]:
        """Return mean [n, d] and covariance [n, d, d] of pi(x1 | x0)."""
        weights, means, variances = self.conditional(x0)
        mean = np.einsum("nk,nkd->nd", weights, means)
        off = means - mean[:, None]
        covariance = np.einsum("nk,nkd,nke->nde", weights, off, off)
        return mean, covariance + (weights @ variances)[:, None, None] * np.eye(x0.shape[1])

    def drift(self, x: F64, t: float) -> F64:
        """Return the drift of the bridge dX = v dt + sqrt(epsilon) dB on [0, 1], v = epsilon grad log h(x, t)."""
        total = self.potential.stds**2 + self.epsilon * (1 - t)
        off = self.potential.means - x[:, None]
        logs = np.log(self.potential.weights) - (off**2).sum(2) / (2 * total) - x.shape[1] / 2 * np.log(total)
        weights = np.exp(logs - logs.max(1, keepdims=True))
        weights /= weights.sum(1, keepdims=True)
        found: F64 = self.epsilon * np.einsum("nk,nkd->nd", weights / total, off)
        return found
