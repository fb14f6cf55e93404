"""A random choice among other degradations, for models that are not told which one they undo."""

from __future__ import annotations

from functools import partial
from typing import Final

import numpy as np
from numpy.typing import NDArray

from i2sb_rt.errors import UsageError
from i2sb_rt.operators.base import CHOICES, F32, Draws, Mask, Operator

DEFAULT: Final = ("jpeg-5", "jpeg-10", "blur-uni", "blur-gauss", "sr4x-pool", "sr4x-bicubic")
"""What `mixture` chooses from: every task of the paper that needs no mask."""


def mixture(name: str, members: tuple[Operator, ...]) -> Operator:
    """Return the operator that applies to each image one of the members, equally likely, chosen by the image's seed.

    Its mask is that of the chosen member. Raises UsageError where some members make holes and others do not: outside a
    hole a picture is known, so a mask cannot say of a damaged picture that it has none.
    """
    holed = [member.name for member in members if member.hole is not None]
    if 0 < len(holed) < len(members):
        raise UsageError(f"{name}: {holed[0]} makes holes and other members do not; mix either kind alone")
    return Operator(name, partial(_degrade, members), partial(_hole, members) if holed else None)


def _chosen(members: tuple[Operator, ...], seed: int) -> Operator:
    return members[Draws(seed, CHOICES).below(len(members))]


def _degrade(members: tuple[Operator, ...], image: F32, seed: int) -> NDArray[np.float32]:
    damaged: NDArray[np.float32] = _chosen(members, seed)(image[None], seed)[0]
    return damaged


def _hole(members: tuple[Operator, ...], height: int, width: int, seed: int) -> Mask:
    mask = _chosen(members, seed).mask(height, width, seed)
    assert mask is not None
    return mask
