"""Pictures that are drawn, for where any picture will do: they have slopes, edges and a little noise."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from i2sb_rt.image import U8

F32 = NDArray[np.float32]


def drawn_planes(channels: int, height: int, width: int, draw: np.random.Generator) -> F32:
    """Draw a picture as float32 [1, C, H, W] in [-1, 1]."""
    y, x = np.mgrid[:height, :width]
    c = np.arange(channels)[:, None, None]
    picture = 0.6 * np.sin(x / (5 + c) + y / 9) + 0.3 * np.where((x + (c + 2) * y) % 23 < 11, 1, -1)
    noisy: F32 = (picture + draw.normal(0, 0.05, picture.shape)).clip(-1, 1).astype(np.float32)
    return noisy[None]


def drawn_picture(channels: int, height: int, width: int, draw: np.random.Generator) -> U8:
    """Draw a picture as uint8 [H, W, C]."""
    planes = drawn_planes(channels, height, width, draw)[0].transpose(1, 2, 0)
    picture: U8 = np.rint((planes + 1) * 127.5).astype(np.uint8)
    return picture
