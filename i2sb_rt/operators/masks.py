"""Masks for inpainting: the middle of the image, and brush strokes. True is the hole."""

from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction
from math import ceil, floor
from typing import Final

import numpy as np

from i2sb_rt.errors import UsageError
from i2sb_rt.operators.base import MASKS, Draws, Mask
from i2sb_rt.sampling import seed_list

SMALLEST: Final = 8
# Positions count in 1/64 of a pixel; a sixteenth of a turn each, first to the right, of length 1.
_UNIT: Final = 64
_QUARTER: Final = ((0, 64), (24, 59), (45, 45), (59, 24))
_DIRECTIONS: Final = (
    *_QUARTER,
    *((x, -y) for y, x in _QUARTER),
    *((-y, -x) for y, x in _QUARTER),
    *((-x, y) for y, x in _QUARTER),
)


def center_mask(height: int, width: int) -> Mask:
    """Return the mask of the middle half of rows and columns, bool [H, W]: a quarter of the image.

    Where a side is no multiple of 4, the known margin is a quarter of it rounded down. Raises UsageError for sides
    below 1.
    """
    if min(height, width) < 1:
        raise UsageError(f"a mask has at least one row and one column, not {height} and {width}")
    mask = np.zeros((height, width), np.bool_)
    mask[height // 4 : height - height // 4, width // 4 : width - width // 4] = True
    return mask


def freeform_mask(height: int, width: int, low: float, high: float, seed: int = 0) -> Mask:
    """Return a mask of brush strokes, bool [H, W], that covers a share of the pixels in [low, high], ends included.

    The share is drawn uniformly from the band. seed: 0 .. 2^64 - 1; the same arguments give the same mask everywhere.
    The strokes are random walks of discs; the last one ends where the share is met. Raises UsageError for sides below
    8, for a band outside [0, 1], and for one between two numbers of pixels.
    """
    if min(height, width) < SMALLEST:
        raise UsageError(f"a freeform mask needs sides of at least {SMALLEST} pixels, not {height} x {width}")
    (checked,) = seed_list(seed, 1)
    least, most = _band(height * width, low, high)
    draws, mask = Draws(checked, MASKS), np.zeros((height, width), np.bool_)
    left = draws.between(least, most)
    while left:
        for y, x, radius in _stroke(height, width, draws):
            left -= _stamp(mask, y, x, radius, left)
            if not left:
                break
    return mask


def _band(pixels: int, low: float, high: float) -> tuple[int, int]:
    """Return the least and the largest number of pixels in a band, read as the decimals that it is written with."""
    if not 0 <= low <= high <= 1:
        raise UsageError(f"a band of coverage is low <= high within 0 .. 1, not {low} and {high}")
    least, most = ceil(Fraction(str(low)) * pixels), floor(Fraction(str(high)) * pixels)
    if least > most:
        raise UsageError(f"no number of {pixels} pixels is a share within {low} .. {high}; widen the band")
    return least, most


def _stroke(height: int, width: int, draws: Draws) -> Iterator[tuple[int, int, int]]:
    """Yield the discs (row, column, radius) of a stroke: three to eight straight pieces, each turned from the last.

    At the border it is thrown back: a stride is shorter than any side.
    """
    side = min(height, width)
    radius = draws.between(max(1, side // 40), max(1, side // 14))
    stride = max(1, radius // 2)
    y, x, direction = draws.below(height) * _UNIT, draws.below(width) * _UNIT, draws.below(16)
    for _ in range(draws.between(3, 8)):
        direction += draws.between(-4, 4)
        dy, dx = _DIRECTIONS[direction % 16]
        for _ in range(draws.between(max(1, side // 12), side // 4) // stride + 1):
            yield y // _UNIT, x // _UNIT, radius
            dy = dy if 0 <= y + dy * stride < height * _UNIT else -dy
            dx = dx if 0 <= x + dx * stride < width * _UNIT else -dx
            y, x = y + dy * stride, x + dx * stride


def _stamp(mask: Mask, y: int, x: int, radius: int, limit: int) -> int:
    """Add a disc to the mask, but at most `limit` pixels of it, inner ones first; return how many were added."""
    top, left = max(0, y - radius), max(0, x - radius)
    window = mask[top : y + radius + 1, left : x + radius + 1]
    rows, columns = np.ogrid[top - y : top - y + window.shape[0], left - x : left - x + window.shape[1]]
    distance = rows * rows + columns * columns
    new = (distance <= radius * (radius + 1)) & ~window
    count = int(np.count_nonzero(new))
    if count <= limit:
        window |= new
        return count
    places = np.flatnonzero(new)
    inner = places[np.argsort(distance.ravel()[places], kind="stable")[:limit]]
    window[np.unravel_index(inner, window.shape)] = True
    return limit
