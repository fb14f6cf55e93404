"""The oracle of Gaussian bridges: the static Schrodinger bridge of two Gaussians in closed form, and its score."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

F64 = NDArray[np.float64]


def exact_coupling(m0: F64, S0: F64, m1: F64, S1: F64, sigma: float) -> tuple[F64, F64]:
    """Mean [2d] and covariance [2d, 2d] of the bridge's ends, for the reference dX = sigma dW on [0, 1].

    C = (S0^1/2 D S0^-1/2 - sigma^2 I) / 2 with D = (4 S0^1/2 S1 S0^1/2 + sigma^4 I)^1/2 (arXiv 2202.05722).
    """
    root = _root(S0)
    D = _root(4 * root @ S1 @ root + sigma**4 * np.eye(len(S0)))
    C = (root @ D @ np.linalg.inv(root) - sigma**2 * np.eye(len(S0))) / 2
    return np.concatenate([m0, m1]), np.block([[S0, C], [C.T, S1]])


def divergence(mean: F64, covariance: F64, to_mean: F64, to_covariance: F64) -> float:
    """KL(N(mean, covariance) | N(to_mean, to_covariance))."""
    inverse = np.linalg.inv(to_covariance)
    off = mean - to_mean
    logs = np.linalg.slogdet(to_covariance)[1] - np.linalg.slogdet(covariance)[1]
    return float((np.trace(inverse @ covariance) - len(mean) + off @ inverse @ off + logs) / 2)


def fitted(pairs: F64) -> tuple[F64, F64]:
    """Mean and covariance of pairs [n, 2d]."""
    return pairs.mean(0), np.cov(pairs.T)


def _root(S: F64) -> F64:
    values, vectors = np.linalg.eigh(S)
    found: F64 = (vectors * np.sqrt(values)) @ vectors.T
    return found
