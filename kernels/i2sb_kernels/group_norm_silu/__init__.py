"""GroupNorm of a sum, with SiLU, on arrays laid out NHWC: all that stands between two convolutions of the U-Net.

With a convolution's output x, its bias, a skip connection's residual, and a second source joined behind the channels:

    s = x + bias + residual                 stored in `total`, in its type, if there is a residual
    c = concat(s, second)                   never stored
    y = (c - mean_g) / sqrt(var_g + eps) * gamma + beta
    out = y sigmoid(y) if silu, else y      halved by the mean of 2x2, or doubled by repetition, if asked for

in float32; mean and variance (biased) are those of a group of channels of one image. gamma and beta are tables with one
line a plan row: with AdaGN (arXiv 2105.05233, section 3) gamma (1 + scale) and beta (1 + scale) + shift, which depend
on the time alone. Source: arXiv 1803.08494, eq. 2 (GroupNorm).
"""

from typing import Any, Final, Literal

from i2sb_kernels import dispatch

Resize = Literal["none", "down", "up"]
EPS: Final = 1e-5


def group_norm_silu(
    x: Any,
    gamma: Any,
    beta: Any,
    step: Any,
    out: Any,
    *,
    groups: int,
    eps: float = EPS,
    silu: bool = True,
    resize: Resize = "none",
    bias: Any = None,
    residual: Any = None,
    residual_resize: Resize = "none",
    total: Any = None,
    second: Any = None,
) -> None:
    """Write `out`, and `total` if there is a residual.

    x, residual, total, second and out are contiguous, of one type (float32, float16; on a GPU bfloat16 too), all
    NumPy's or all PyTorch's on one device. Nothing here waits for a GPU, and the row is read when the kernel runs.

    Args:
        x: [N, H, W, C1].
        gamma: [rows, C] float32, C = C1 + C2.
        beta: likewise.
        step: the row; for tensors an int32 tensor of one element on their device.
        out: [N, H, W, C]; [N, H/2, W/2, C] for resize "down", [N, 2H, 2W, C] for "up".
        groups: divides C.
        eps: added to the variance.
        silu: whether SiLU follows.
        resize: what is done to the result: "none", "down" (mean of 2x2), "up" (each pixel four times).
        bias: [rows, C1] float32.
        residual: [N, H, W, C1]; [N, 2H, 2W, C1] for residual_resize "down", [N, H/2, W/2, C1] for "up".
        residual_resize: what is done to the residual before it is added.
        total: [N, H, W, C1], written; given if and only if residual is.
        second: [N, H, W, C2].

    Raises:
        TypeError, ValueError: an array is missing, or of another type, shape or layout.

    """
    dispatch.call(
        "group_norm_silu",
        "group_norm_silu",
        x,
        x=x,
        gamma=gamma,
        beta=beta,
        step=step,
        out=out,
        groups=groups,
        eps=eps,
        silu=silu,
        resize=resize,
        bias=bias,
        residual=residual,
        residual_resize=residual_resize,
        total=total,
        second=second,
    )


def check(
    x: Any, gamma: Any, beta: Any, out: Any, groups: int, resize: str, bias: Any, residual: Any, residual_resize: str,
    total: Any, second: Any,
) -> None:  # fmt: skip
    """Raise ValueError or TypeError, naming the array, where shapes, types or what is given do not fit together."""
    if len(x.shape) != 4:
        raise ValueError(f"x has shape {tuple(x.shape)}; it must be [N, H, W, C]")
    n, h, w, c1 = x.shape
    c = c1 + (0 if second is None else second.shape[-1])
    for name, value in (("resize", resize), ("residual_resize", residual_resize)):
        if value not in ("none", "down", "up"):
            raise ValueError(f"{name} is {value!r}; it must be 'none', 'down' or 'up'")
    if groups < 1 or c % groups:
        raise ValueError(f"groups is {groups}; it must divide the {c} channels")
    if (residual is None) != (total is None):
        raise ValueError("residual and total must be given together")
    if resize == "down" and (h % 2 or w % 2):
        raise ValueError(f"{h} x {w} pixels cannot be halved")
    if residual_resize == "up" and (h % 2 or w % 2):
        raise ValueError(f"a residual cannot be doubled to {h} x {w} pixels")
    rows = gamma.shape[0]
    wanted = {
        "gamma": (gamma, (rows, c)),
        "beta": (beta, (rows, c)),
        "bias": (bias, (rows, c1)),
        "residual": (residual, (n, *_resized(h, w, _opposite(residual_resize)), c1)),
        "total": (total, (n, h, w, c1)),
        "second": (second, (n, h, w, c - c1)),
        "out": (out, (n, *_resized(h, w, resize), c)),
    }
    for name, (array, shape) in wanted.items():
        if array is None:
            continue
        if tuple(array.shape) != shape:
            raise ValueError(f"{name} has shape {tuple(array.shape)}; it must be {shape}")
        if name not in ("gamma", "beta", "bias") and array.dtype != x.dtype:
            raise TypeError(f"{name} is {array.dtype}; it must be {x.dtype}, as x is")


def _resized(h: int, w: int, resize: str) -> tuple[int, int]:
    return {"none": (h, w), "down": (h // 2, w // 2), "up": (2 * h, 2 * w)}[resize]


def _opposite(resize: str) -> str:
    return {"none": "none", "down": "up", "up": "down"}[resize]


__all__ = ["EPS", "Resize", "check", "group_norm_silu"]
