"""Inpainting: the image with noise in the hole."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Final

import numpy as np
from numpy.typing import NDArray

from i2sb_rt.operators.base import F32, Mask
from i2sb_rt.operators.masks import center_mask, freeform_mask
from i2sb_rt.sampling import noise


def _center(height: int, width: int, seed: int) -> Mask:
    return center_mask(height, width)


def _freeform(low: float, high: float, height: int, width: int, seed: int) -> Mask:
    return freeform_mask(height, width, low, high, seed)


HOLES: Final[dict[str, Callable[[int, int, int], Mask]]] = {
    "inpaint-center": _center,
    "inpaint-freeform1020": partial(_freeform, 0.1, 0.2),
    "inpaint-freeform2030": partial(_freeform, 0.2, 0.3),
}
"""The mask of each name, by height, width and seed."""

_HOLE_FILL: Final = 1


def filled(image: F32, seed: int, name: str) -> NDArray[np.float32]:
    """Return (1 - m) x + m z with z ~ N(0, 1), the seed's noise of row 0 and purpose 1.

    image: [3, H, W]. name: that of a mask in `HOLES`. This is what `restore` starts from where the model pads nothing.
    """
    channels, height, width = image.shape
    z = noise(seed, (channels, height, width), row=0, purpose=_HOLE_FILL)
    return np.where(HOLES[name](height, width, seed), z, image)
