"""One step of a bridge: what the network said of x becomes the next x, in one pass over memory.

With the columns p q a b c d e s r of the plan row, and o = network(x, t):

    x0 = p x + q o                                   clamped to [-1, 1] if clip; x1 outside the hole if known = "x0"
    x' = a x + b x0 + c x1 + d h1 + e h2 + s z       x1 + r z' outside the hole if known = "renew"

in float32, sums from left to right beginning at +0. A term whose coefficient is zero is left out, its array not read.
z and z' are the noise of purposes STEP and KNOWN of this row (`i2sb_kernels.noise`), unless recorded draws are given.
For the posterior of I2SB (arXiv 2302.05872, eq. 4): p = 1, q = -std_fwd, a = s_p^2/s_n^2, b = 1 - a, s = s_p sqrt(b).
"""

from typing import Any, Final, Literal

from i2sb_kernels import dispatch

COLUMNS: Final = ("t", "p", "q", "a", "b", "c", "d", "e", "s", "r")
Known = Literal["x0", "renew"]


def bridge_step(
    x: Any,
    o: Any,
    rows: Any,
    step: Any,
    *,
    clip: bool = False,
    known: Known = "renew",
    x1: Any = None,
    mask: Any = None,
    h1: Any = None,
    h2: Any = None,
    x0: Any = None,
    z: Any = None,
    z_known: Any = None,
    seeds: Any = None,
    patch: int = 0,
    seen: Any = None,
) -> None:
    """Overwrite x by x', x0, if given, by this row's x0, and in seen, if given, what the network sees next.

    All arrays are contiguous float32, all NumPy's or all PyTorch's on one device; o and seen may be as the network has
    them. On a GPU the coefficients are read from `rows` and `step` when the kernel runs, so that a captured graph may
    be replayed for another row.

    With patch = P above 0, o is [B, H/P, W/P, K], float32 or float16 (on a GPU bfloat16 too), K >= C P^2: the channels
    that pixel_shuffle(P) takes, the last axis innermost; what stands behind C P^2 is not read. So is seen, which gets
    pixel_unshuffle(x', P); what stands behind C P^2 (cond, zeros) is left as it is.

    Args:
        x: [B, C, ...], read and overwritten.
        o: like x.
        rows: [N, 10], the plan; columns as in `COLUMNS`.
        step: the row, 0 .. N - 1; among tensors an int32 tensor of one element.
        clip: clamp x0 to [-1, 1].
        known: what a mask does.
        x1: like x; needed if c is not zero or there is a mask.
        mask: [B, 1, ...]; 0 = known, anything else = hole.
        h1: like x, x0 of the row before; needed if d is not zero.
        h2: like x, x0 of two rows before; needed if e is not zero.
        x0: like x, written; may be h1 or h2 itself.
        z: like x, recorded draws.
        z_known: like x, recorded draws for known pixels.
        seeds: [B], uint64 (as a tensor int64, the same bits); needed if noise is made here.
        patch: 0, or the P of o's and seen's layout, which divides H and W.
        seen: [B, H/P, W/P, M], of o's type, M >= C P^2, written; only with a patch.

    Raises:
        TypeError, ValueError: an array is missing, or of another type, shape or layout.

    """
    dispatch.call(
        "bridge_step",
        "bridge_step",
        x,
        x=x,
        o=o,
        rows=rows,
        step=step,
        clip=clip,
        known=known,
        x1=x1,
        mask=mask,
        h1=h1,
        h2=h2,
        x0=x0,
        z=z,
        z_known=z_known,
        seeds=seeds,
        patch=patch,
        seen=seen,
    )


__all__ = ["COLUMNS", "Known", "bridge_step"]
