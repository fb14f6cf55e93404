"""A random choice among other degradations, for models that are not told which one they undo."""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

from i2sb_rt.operators.base import CHOICES, F32, Draws, Mask, Operator

DEFAULT: Final = ("jpeg-5", "jpeg-10", "blur-uni", "blur-gauss", "sr4x-pool", "sr4x-bicubic")
"""What `mixture` chooses from: every task of the paper that needs no mask."""


def mixture(name: str, members: tuple[Operator, ...]) -> Operator:
    """Return the operator that applies to each image one of the members, equally likely, chosen by the image's seed.

    Its mask is that of the chosen member: all False where that one makes no hole, None if none of them does.
    """

    def chosen(seed: int) -> Operator:
        return members[Draws(seed, CHOICES).below(len(members))]

    def degrade(image: F32, seed: int) -> NDArray[np.float32]:
        damaged: NDArray[np.float32] = chosen(seed)(image[None], seed)[0]
        return damaged

    def hole(height: int, width: int, seed: int) -> Mask:
        mask = chosen(seed).mask(height, width, seed)
        return np.zeros((height, width), np.bool_) if mask is None else mask

    return Operator(name, degrade, hole if any(member.hole for member in members) else None)
