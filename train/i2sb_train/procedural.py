"""Dead leaves: procedural pictures whose edges and sizes are distributed as in nature (Lee, Mumford, Huang 2001).

Opaque shapes fall on each other; radii follow a density r^-3, so that the picture looks alike at every scale. Shapes
carry gradients, stripes or grain, so that a restorer meets textures as well as edges.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

_OVERSAMPLE = 2
_SHAPES = 80
_RADII = (2.0, 90.0)

Array = NDArray[np.float32]


@dataclass(frozen=True)
class _Frame:
    """The pixels a shape may cover, in its own axes: u and v run from -1 to 1 over the shape's radius."""

    window: tuple[slice, slice]
    u: Array
    v: Array
    radius: float


def dead_leaves(size: int, rng: np.random.Generator) -> NDArray[np.uint8]:
    """Draw one dead-leaves picture, uint8 RGB [size, size, 3], decided by the generator's state alone."""
    side = size * _OVERSAMPLE
    palette = _palette(rng)
    canvas = np.empty((side, side, 3), np.float32)
    canvas[:] = palette[0]
    low, high = _RADII[0] * _OVERSAMPLE, _RADII[1] * _OVERSAMPLE
    # Inverse of the cumulative distribution of r^-3 on [low, high]; the largest are drawn apart, and fall first.
    radii = (high**-2 + rng.random(_SHAPES) * (low**-2 - high**-2)) ** -0.5
    radii[: _SHAPES // 7] = rng.uniform(0.15 * side, 0.6 * side, _SHAPES // 7)
    for radius in radii:
        frame = _frame(side, float(radius), rng)
        if frame is not None:
            _paint(canvas, frame, palette, rng)
    pixels = np.clip(canvas, 0, 255).astype(np.uint8)
    if rng.random() < 0.5:
        return np.asarray(Image.fromarray(pixels).reduce(_OVERSAMPLE))
    return np.asarray(Image.fromarray(pixels).resize((size, size), Image.Resampling.LANCZOS))


def _palette(rng: np.random.Generator) -> Array:
    """Draw a few colours around greys of any brightness; most pictures are as little saturated as photos are."""
    count = int(rng.integers(3, 12))
    greys = rng.uniform(0, 255, (count, 1))
    return np.asarray(greys + rng.normal(0, rng.choice([6.0, 18.0, 45.0]), (count, 3)), np.float32)


def _frame(side: int, radius: float, rng: np.random.Generator) -> _Frame | None:
    cy, cx = rng.uniform(-radius / 2, side + radius / 2, 2)
    angle, aspect = rng.uniform(0, np.pi), rng.uniform(0.35, 1.0)
    y0, x0 = max(0, int(cy - radius)), max(0, int(cx - radius))
    y1, x1 = min(side, int(cy + radius) + 2), min(side, int(cx + radius) + 2)
    if y0 >= y1 or x0 >= x1:
        return None
    dy = (np.arange(y0, y1, dtype=np.float32) - np.float32(cy))[:, None]
    dx = (np.arange(x0, x1, dtype=np.float32) - np.float32(cx))[None]
    cos, sin = np.float32(np.cos(angle)), np.float32(np.sin(angle))
    u = np.asarray((dx * cos + dy * sin) / np.float32(radius), np.float32)
    v = np.asarray((dy * cos - dx * sin) / np.float32(radius * aspect), np.float32)
    return _Frame((slice(y0, y1), slice(x0, x1)), u, v, radius)


def _paint(canvas: NDArray[np.float32], frame: _Frame, palette: Array, rng: np.random.Generator) -> None:
    u, v = frame.u, frame.v
    kind = rng.integers(0, 4)
    if kind == 0:
        mask = u * u + v * v <= 1
    elif kind == 1:
        mask = (abs(u) <= 0.7) & (abs(v) <= 0.7)
    elif kind == 2:
        mask = (v >= -0.5) & (v + 1.7 * abs(u) <= 0.9)
    else:
        mask = (abs(u) <= 0.95) & (abs(v) <= rng.uniform(0.03, 0.25))
    colour = palette[rng.integers(len(palette))] + rng.normal(0, 6, 3).astype(np.float32)
    paint = np.broadcast_to(colour, (*u.shape, 3)) + _texture(frame, rng)
    region = canvas[frame.window]
    np.copyto(region, paint, where=mask[:, :, None])


def _texture(frame: _Frame, rng: np.random.Generator) -> Array:
    """Draw what a shape carries on its colour: nothing, a gradient, stripes, a grid, or grain; [h, w, 1 or 3]."""
    u, v = frame.u, frame.v
    kind = rng.integers(0, 6)
    strength = np.float32(rng.uniform(4, 60))
    if kind <= 1:
        tint = (1 + rng.normal(0, 0.3, 3).astype(np.float32)) * strength
        return np.asarray(u[:, :, None] * tint, np.float32)
    if kind == 2:
        waves = np.sin(u * np.float32(frame.radius * rng.uniform(0.15, 1.2)) + np.float32(rng.uniform(0, 6)))
        return np.asarray((waves * strength)[:, :, None], np.float32)
    if kind == 3:
        rate = np.float32(frame.radius * rng.uniform(0.1, 0.8))
        return np.asarray((np.sin(u * rate) * np.sin(v * rate) * strength)[:, :, None], np.float32)
    if kind == 4:
        coarse = int(rng.integers(1, 5))
        h, w = u.shape
        grain = rng.normal(0, 1, (h // coarse + 1, w // coarse + 1)).astype(np.float32)
        return np.asarray(grain.repeat(coarse, 0)[:h].repeat(coarse, 1)[:, :w, None] * (strength / 2), np.float32)
    return np.zeros((1, 1, 1), np.float32)
