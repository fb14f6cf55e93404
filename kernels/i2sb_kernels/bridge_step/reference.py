"""bridge_step in NumPy, to be held against the equations. The truth."""

from typing import Any, TypeVar

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


def to_planes(o: NDArray[Any], like: Array, patch: int, seen: NDArray[Any] | None) -> Array:
    """Return what the network says as float32 [B, C, H, W]: pixel_shuffle of its first C P^2 channels; P = 0: o itself.

    o, seen: [B, H/P, W/P, K or M]. Raises TypeError, ValueError where they are not, so before anything is written.
    """
    if seen is not None:
        check_layout("seen", seen, like, patch)
        if seen.dtype != o.dtype:
            raise TypeError(f"seen is {seen.dtype}; it must be {o.dtype}, as o is")
    if not patch:
        return o
    blocks = check_layout("o", o, like, patch)
    n, c, h, w = like.shape
    planes = blocks.reshape(n, h // patch, w // patch, c, patch, patch).transpose(0, 3, 1, 4, 2, 5)
    return np.ascontiguousarray(planes.reshape(like.shape), np.float32)


def show(x: Array, seen: NDArray[Any] | None, patch: int) -> None:
    """Write pixel_unshuffle(x, P) into the first C P^2 channels of seen [B, H/P, W/P, M], if there is one."""
    if seen is None:
        return
    blocks = check_layout("seen", seen, x, patch)
    n, c, h, w = x.shape
    cut = x.reshape(n, c, h // patch, patch, w // patch, patch).transpose(0, 2, 4, 1, 3, 5)
    with np.errstate(over="ignore"):
        blocks[...] = cut.reshape(blocks.shape)


def check_layout(name: str, array: NDArray[Any], like: Array, patch: int) -> NDArray[Any]:
    """Return the C P^2 channels of an array in the network's layout; raise TypeError, ValueError if it is not."""
    if like.ndim != 4 or patch < 1 or like.shape[2] % patch or like.shape[3] % patch:
        raise ValueError(f"patch is {patch}; it must divide the sides of x, which is {like.shape}")
    n, c, h, w = like.shape
    channels, sides = c * patch**2, (n, h // patch, w // patch)
    if array.dtype not in (np.float32, np.float16):
        raise TypeError(f"{name} is {array.dtype}; it must be float32 or float16")
    if array.ndim != 4 or array.shape[:3] != sides or array.shape[3] < channels:
        raise ValueError(f"{name} has shape {array.shape}; it must be {sides} with {channels} or more channels")
    if not array.flags.c_contiguous:
        raise ValueError(f"{name} must be contiguous")
    return array[..., :channels]


def bridge_step(
    x: Array,
    o: NDArray[Any],
    rows: Array,
    step: int,
    *,
    x0: Array | None = None,
    patch: int = 0,
    seen: NDArray[Any] | None = None,
    **options: object,
) -> None:
    """As `i2sb_kernels.bridge_step.bridge_step`."""
    after, clean = stepped(x, to_planes(o, x, patch, seen), rows, step, **options)  # type: ignore[arg-type]
    x[...] = after
    if x0 is not None:
        x0[...] = clean
    show(x, seen, patch)
