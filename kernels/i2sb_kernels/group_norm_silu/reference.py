"""group_norm_silu in NumPy, to be held against the equations. The truth."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from i2sb_kernels.group_norm_silu import EPS, Resize, check

Array = NDArray[Any]


def resized(array: Array, resize: Resize) -> Array:
    """Halve [N, H, W, C] by the mean of 2x2, or double it by repetition, in the array's own type."""
    if resize == "down":
        quarters = [array[:, dy::2, dx::2] for dy in (0, 1) for dx in (0, 1)]
        halved: Array = ((quarters[0] + quarters[1]) + (quarters[2] + quarters[3])) * array.dtype.type(0.25)
        return halved
    if resize == "up":
        return array.repeat(2, axis=1).repeat(2, axis=2)
    return array


def summed(x: Array, bias: Array | None, residual: Array | None, residual_resize: Resize) -> Array:
    """Add up s = x + bias + residual in float32; with a residual it is rounded to the type of x."""
    s = x.astype(np.float32)
    if bias is not None:
        s = s + bias
    if residual is not None:
        s = (s + resized(residual.astype(np.float32), residual_resize)).astype(x.dtype).astype(np.float32)
    return s


def normalised(c: Array, groups: int, eps: float) -> NDArray[np.float64]:
    """Compute (c - mean) / sqrt(var + eps) of [N, H, W, C] in float64; mean and var over a group of channels."""
    n, h, w, channels = c.shape
    grouped = c.astype(np.float64).reshape(n, h * w, groups, channels // groups)
    mean = grouped.mean(axis=(1, 3), keepdims=True)
    var = np.square(grouped - mean).mean(axis=(1, 3), keepdims=True)
    found: NDArray[np.float64] = ((grouped - mean) / np.sqrt(var + eps)).reshape(c.shape)
    return found


def group_norm_silu(
    x: Array,
    gamma: Array,
    beta: Array,
    step: Any,
    out: Array,
    *,
    groups: int,
    eps: float = EPS,
    silu: bool = True,
    resize: Resize = "none",
    bias: Array | None = None,
    residual: Array | None = None,
    residual_resize: Resize = "none",
    total: Array | None = None,
    second: Array | None = None,
) -> None:
    """As `i2sb_kernels.group_norm_silu.group_norm_silu`, on NumPy arrays; statistics in float64."""
    check(x, gamma, beta, out, groups, resize, bias, residual, residual_resize, total, second)
    row = int(np.asarray(step).reshape(()))
    s = summed(x, None if bias is None else bias[row], residual, residual_resize)
    if total is not None:
        total[...] = s
    c = s if second is None else np.concatenate([s, second.astype(np.float32)], axis=3)
    y = normalised(c, groups, eps) * gamma[row] + beta[row]
    if silu:
        with np.errstate(over="ignore"):
            y = y / (1 + np.exp(-y))
    out[...] = resized(y, resize)
