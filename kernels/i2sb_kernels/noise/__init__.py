"""Standard normal noise that depends on an image's seed and on nothing else.

Element i (over C, H, W of one image) of plan row `row` for `purpose`: Philox4x32-10 with key = the 64-bit seed and
counter = (lo(i div 4), hi(i div 4), row, purpose) gives four words. Each word r gives u = ((r >> 9) + 1/2) 2^-23.
Lanes i mod 4 = 0, 1 are R cos, R sin of 2 pi u1 with R = sqrt(-2 ln u0); lanes 2, 3 likewise from u3 and u2.
"""

from enum import IntEnum
from typing import Any

from i2sb_kernels import dispatch


class Purpose(IntEnum):
    """What noise is for: the fourth word of its counter."""

    STEP = 0
    HOLE = 1
    KNOWN = 2
    X1 = 3


def noise_fill(out: Any, seed: int, first: int = 0, row: int = 0, purpose: int = Purpose.STEP) -> None:
    """Fill `out` with elements first .. first + size - 1 of a stream of noise.

    Args:
        out: float32, contiguous, any shape; a NumPy array or a PyTorch tensor.
        seed: 0 .. 2^64 - 1.
        first: 0 .. 2^64 - 1 - size.
        row: the plan row, 0 .. 2^32 - 1.
        purpose: a `Purpose`.

    Raises:
        TypeError, ValueError: `out` is of another type or not contiguous.

    The twins agree to 1e-6 max(1, |z|). Philox: Salmon et al. 2011, "Parallel random numbers: as easy as 1, 2, 3".

    """
    dispatch.call("noise", "noise_fill", out, out=out, seed=seed, first=first, row=row, purpose=purpose)


__all__ = ["Purpose", "noise_fill"]
