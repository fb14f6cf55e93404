"""Noise on top of another degradation, as a sensor adds it."""

from __future__ import annotations

from functools import partial
from typing import Final

import numpy as np
from numpy.typing import NDArray

from i2sb_rt.errors import UsageError
from i2sb_rt.operators.base import F32, Operator
from i2sb_rt.sampling import noise

_ROW: Final = 2**32 - 1  # no plan has so many rows, so no sampler draws this noise too


def noisy(operator: Operator, name: str, level: float) -> Operator:
    """Return an operator with N(0, 1) times 2 `level` added to what it returns: `level` is that on a scale from 0 to 1.

    The noise is that of the image's seed. Raises UsageError where the operator makes holes or loses resolution.
    """
    if "+noise" in operator.name:
        raise UsageError(f"{name}: noise is added once; two of the same seed would be one that is stronger")
    if operator.hole is not None or operator.reduce is not None:
        raise UsageError(f"{name}: noise is added to pictures of full size without holes, which {operator.name} is not")
    return Operator(name, partial(_with_noise, operator, level))


def _with_noise(operator: Operator, level: float, image: F32, seed: int) -> NDArray[np.float32]:
    height, width = image.shape[1:]
    damaged: NDArray[np.float32] = operator(image[None], seed)[0]
    return damaged + np.float32(2 * level) * noise(seed, (3, height, width), row=_ROW)
