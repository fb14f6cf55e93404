"""Inpainting: the image with noise in the hole."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import numpy as np
from numpy.typing import NDArray

from i2sb_rt.operators.base import F32, Mask
from i2sb_rt.operators.masks import center_mask, freeform_mask
from i2sb_rt.sampling import noise

HOLES: Final[dict[str, Callable[[int, int, int], Mask]]] = {
    "inpaint-center": lambda height, width, seed: center_mask(height, width),
    "inpaint-freeform1020": lambda height, width, seed: freeform_mask(height, width, 0.1, 0.2, seed),
    "inpaint-freeform2030": lambda height, width, seed: freeform_mask(height, width, 0.2, 0.3, seed),
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
