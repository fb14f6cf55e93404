"""What is measured of a bridge: distances between samples, the cost of its coupling, its distance to a known plan."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from i2sb_train.dsb.known_plan import KnownPlan
from i2sb_train.dsb.process import Direction, Drift, Process

F64 = NDArray[np.float64]
Points = NDArray[np.floating[Any]]


def sliced_wasserstein(x: Points, y: Points, projections: int = 500, seed: int = 0) -> float:
    """Estimate the sliced 2-Wasserstein distance of two sets of points, both [n, d], from random projections.

    Source: arXiv 1503.02533 (Bonneel et al., 2015), for sets of one size.
    """
    directions = np.random.default_rng(seed).standard_normal((x.shape[1], projections))
    directions /= np.linalg.norm(directions, axis=0)
    apart = np.sort(x @ directions, axis=0) - np.sort(y @ directions, axis=0)
    return float(np.sqrt((apart**2).mean()))


def transport_cost(x0: Tensor, x1: Tensor) -> float:
    """Return the mean of |x0 - x1|^2 / 2 over coupled states [n, C, H, W]."""
    return float(((x0 - x1) ** 2).flatten(1).sum(1).mean() / 2)


def sinkhorn_cost(x0: Tensor, x1: Tensor, epsilon: float) -> float:
    """Return the mean of |x0 - x1|^2 / 2 over the entropic plan of two sets of points, as POT's Sinkhorn finds it.

    x0, x1: independent draws of both ends, [n, C, H, W]. What a bridge of Brownian motion with 2 horizon = epsilon
    should cost, but for the error of n points.
    """
    import ot

    a, b = (x.flatten(1).double().cpu().numpy() for x in (x0, x1))
    cost = ot.dist(a, b) / 2
    plan = ot.sinkhorn(ot.unif(len(a)), ot.unif(len(b)), cost, epsilon, method="sinkhorn_log", stopThr=1e-6)
    return float((plan * cost).sum())


def path_divergence(process: Process, drift: Drift, states: list[Tensor], direction: Direction) -> float:
    """Estimate KL(bridge | reference) of paths with one start, from the paths of a drift (Girsanov).

    The sum of gamma E|f - f_ref|^2 / 4 over the steps: forward paths against the reference, whose backward drift is
    not known without the start, so it is given for the forward direction, or for Brownian motion backwards.
    Entropic transport minimises E|x0 - x1|^2 / 2 + epsilon KL(coupling | product): with this, for Brownian motion,
    epsilon = 2 horizon times it, up to a constant of the two marginals.
    """
    total = 0.0
    for x, state in zip(states, process.left(direction), strict=False):
        reference = process.reference.drift(x)
        off = drift(x, state) - (reference if direction == "forward" else -reference)
        total += process.gamma_from(state, direction) * float((off**2).flatten(1).sum(1).mean()) / 4
    return total


def cbw2_uvp(plan: KnownPlan, x0: F64, x1: F64) -> float:
    """Return the conditional Bures-Wasserstein unexplained variance of a coupling, in per cent.

    x0: [n, d]; x1: [n, m, d], m draws of the learned coupling for each. The mean over x0 of BW2^2 between the Gaussians
    of the moments, as a share of half the variance of the true x1. Source: arXiv 2306.10161, section 5.
    """
    mean, covariance = plan.moments(x0)
    off = x1 - x1.mean(1, keepdims=True)
    found = np.einsum("nmd,nme->nde", off, off) / (x1.shape[1] - 1)
    distances = ((mean - x1.mean(1)) ** 2).sum(1) / 2 + _bures(found, covariance) / 2
    variance = float(np.trace(covariance.mean(0)) + mean.var(0).sum())  # of x1: within and between
    return float(100 * distances.mean() / (variance / 2))


def _bures(a: F64, b: F64) -> F64:
    """Return tr a + tr b - 2 tr (a^1/2 b a^1/2)^1/2 of covariances [n, d, d]."""
    values, vectors = np.linalg.eigh(a)
    root = (vectors * np.sqrt(values.clip(0))[:, None]) @ vectors.swapaxes(1, 2)
    cross = np.sqrt(np.linalg.eigvalsh(root @ b @ root).clip(0)).sum(1)
    found: F64 = np.trace(a, axis1=1, axis2=2) + np.trace(b, axis1=1, axis2=2) - 2 * cross
    return found
