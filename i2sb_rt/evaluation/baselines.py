"""What classical methods make of damaged pictures, to compare with: Lanczos enlargement, Telea's inpainting."""

from __future__ import annotations

import numpy as np
from PIL import Image

from i2sb_rt.errors import UsageError
from i2sb_rt.image import U8
from i2sb_rt.operators.base import Mask, Operator

_RADIUS = 3.0


def baseline(operator: Operator) -> str | None:
    """Name the classical method for a degradation: "lanczos", "telea", or None where there is none.

    Raises UsageError where its package is missing.
    """
    if operator.reduce is not None:
        return "lanczos"
    if operator.hole is None:
        return None
    try:
        import cv2  # noqa: F401
    except ImportError as error:
        raise UsageError("--baseline needs OpenCV for holes: pip install 'i2sb-rt[eval]'") from error
    return "telea"


def lanczos(small: U8, factor: int) -> U8:
    """Enlarge [h, w, 3] to [factor h, factor w, 3] with Pillow's Lanczos filter of three lobes."""
    height, width = small.shape[:2]
    image = Image.fromarray(small).resize((factor * width, factor * height), Image.Resampling.LANCZOS)
    return np.asarray(image)


def telea(damaged: U8, mask: Mask) -> U8:
    """Fill the hole of a picture [H, W, 3] as OpenCV's INPAINT_TELEA does with a radius of 3 pixels (Telea 2004)."""
    import cv2

    filled: U8 = cv2.inpaint(np.ascontiguousarray(damaged), mask.astype(np.uint8), _RADIUS, cv2.INPAINT_TELEA)
    return filled
