"""bridge_step in NumPy, to be held against the equations. The truth."""

from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from i2sb_kernels.bridge_step import Known
from i2sb_kernels.noise import Purpose
from i2sb_kernels.noise.reference import normals

Array = NDArray[np.float32]
Number = TypeVar("Number", np.float32, np.uint64)


def given(array: NDArray[Number] | None) -> NDArray[Number]:
    """Return the array; raises ValueError if there is none."""
    if array is None:
        raise ValueError("an array is missing that this row reads")
    return array


def weighted_sum(*terms: tuple[np.float32, Array | None]) -> Array | np.float32:
    """Sum coefficient * array over the terms whose coefficient is not zero, in float32, from left to right."""
    total: Array | np.float32 = np.float32(0)
    for coefficient, array in terms:
        if coefficient != 0:
            total = total + coefficient * given(array)
    return total


def draw(seeds: NDArray[np.uint64] | None, shape: tuple[int, ...], row: int, purpose: Purpose) -> Array:
    """Draw the noise of a batch of images, float32 [B, ...], one seed each."""
    size = int(np.prod(shape[1:]))
    images = [normals(int(seed), 0, size, row, purpose).reshape(shape[1:]) for seed in given(seeds)]
    return np.stack(images).astype(np.float32)


def stepped(
    x: Array,
    o: Array,
    rows: Array,
    step: int,
    *,
    clip: bool = False,
    known: Known = "renew",
    x1: Array | None = None,
    mask: Array | None = None,
    h1: Array | None = None,
    h2: Array | None = None,
    z: Array | None = None,
    z_known: Array | None = None,
    seeds: NDArray[np.uint64] | None = None,
) -> tuple[Array, Array]:
    """Return (x', x0) of one step and leave the inputs as they are. Arguments as in `i2sb_kernels.bridge_step`."""
    _, p, q, a, b, c, d, e, s, r = rows[step]
    outside = np.bool_(False) if mask is None else mask == 0
    with np.errstate(all="ignore"):
        x0 = np.broadcast_to(weighted_sum((p, x), (q, o)), x.shape)
        if clip:
            x0 = np.clip(x0, np.float32(-1), np.float32(1))
        if mask is not None and known == "x0":
            x0 = np.where(outside, given(x1), x0)
        if s != 0 and z is None:
            z = draw(seeds, x.shape, step, Purpose.STEP)
        after = np.broadcast_to(weighted_sum((a, x), (b, x0), (c, x1), (d, h1), (e, h2), (s, z)), x.shape)
        if mask is not None and known == "renew":
            if r != 0 and z_known is None:
                z_known = draw(seeds, x.shape, step, Purpose.KNOWN)
            renewed = given(x1) if r == 0 else given(x1) + r * given(z_known)
            after = np.where(outside, renewed, after)
    return after, x0


def bridge_step(x: Array, o: Array, rows: Array, step: int, *, x0: Array | None = None, **options: object) -> None:
    """As `i2sb_kernels.bridge_step.bridge_step`."""
    after, clean = stepped(x, o, rows, step, **options)  # type: ignore[arg-type]
    x[...] = after
    if x0 is not None:
        x0[...] = clean
