"""Degradations of whole pictures, grey and clear ones too: what `i2sb-rt degrade` writes and `eval` restores."""

from __future__ import annotations

from dataclasses import replace
from typing import Final

import numpy as np
from PIL import Image

from i2sb_rt.image import U8, Picture
from i2sb_rt.operators.base import Mask, Operator, from_bytes, to_bytes
from i2sb_rt.operators.superresolution import reduced

# What stands in a hole; who restores it fills the hole anew.
GREY: Final = 128


def degrade(picture: Picture, operator: Operator, seed: int, mask: Mask | None, full_size: bool) -> Picture:
    """Return the damaged picture in bytes, clamped and rounded: grey stays grey, alpha, profile, EXIF are kept.

    mask: that of the operator for this size and seed. full_size: where the operator loses resolution, return its result
    enlarged again, in place of the small picture. Raises what the operator raises.
    """
    grey = picture.colour.ndim == 2
    x = from_bytes(np.repeat(picture.colour[..., None], 3, axis=2) if grey else picture.colour)[None]
    small = operator.reduce is not None and not full_size
    colour = to_bytes((operator.downsample(x) if small else operator(x, seed))[0])
    if mask is not None:
        colour[mask] = GREY
    alpha = _small(picture.alpha) if small and picture.alpha is not None else picture.alpha
    return replace(picture, colour=np.asarray(Image.fromarray(colour).convert("L")) if grey else colour, alpha=alpha)


def _small(alpha: U8) -> U8:
    """Return transparency a quarter as wide and high: the means of its blocks."""
    small: U8 = np.rint(reduced(alpha[None], "sr4x-pool")[0]).astype(np.uint8)
    return small
