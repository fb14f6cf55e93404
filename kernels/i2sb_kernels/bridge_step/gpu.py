"""bridge_step in Triton: coefficients, row and seeds are read from device memory when the kernel runs.

Values passed with a launch would be frozen into a captured graph, and a replay would use stale ones. Contraction to FMA
is off, so that the sums round as they do in the C++ twin.
"""

# mypy: disable-error-code="untyped-decorator,no-untyped-def,no-untyped-call"

import torch
import triton
import triton.language as tl

from i2sb_kernels.bridge_step import COLUMNS, Known
from i2sb_kernels.noise.gpu import GROUPS, check_device, normals

_COLUMNS = tl.constexpr(len(COLUMNS))
_TYPES = (torch.float32, torch.float16, torch.bfloat16)
_PURPOSE_STEP = tl.constexpr(0)
_PURPOSE_KNOWN = tl.constexpr(2)


@triton.jit
def term(coefficient, value):
    """Return coefficient * value, or +0 where the coefficient is zero, whatever the value."""
    return tl.where(coefficient != 0, coefficient * value, 0.0)


@triton.jit
def load_if(used, ptr, at, i, size):
    """Load elements i < size, at `at`; nothing is read, and zeros come back, if not used (a scalar)."""
    return tl.load(ptr + at, mask=i < tl.where(used, size, 0), other=0.0)


@triton.jit
def drawn(coefficient, z_ptr, seeds_ptr, image, at, inside, group, row, PURPOSE: tl.constexpr, GROUPS: tl.constexpr):
    """Take recorded draws, or those of the image's stream; zeros where the coefficient is zero."""
    z = tl.full([4 * GROUPS], 0.0, tl.float32)
    if coefficient != 0:
        if z_ptr is not None:
            z = tl.load(z_ptr + at, mask=inside, other=0.0)
        else:
            z = normals(tl.load(seeds_ptr + image), group, row, PURPOSE, GROUPS)
    return z


@triton.jit
def in_blocks(image, i, pixels, width, CHANNELS: tl.constexpr, PATCH: tl.constexpr):
    """Where element i of an image [C, H, W] lies in [B, H/P, W/P, CHANNELS]: channel (c P + y % P) P + x % P."""
    c = i // pixels
    place = i % pixels
    y = place // width
    x = place % width
    block = (y // PATCH) * (width // PATCH) + x // PATCH
    channel = (c * PATCH + y % PATCH) * PATCH + x % PATCH
    return image.to(tl.int64) * (pixels // (PATCH * PATCH)) * CHANNELS + block.to(tl.int64) * CHANNELS + channel


@triton.jit
def bridge_step_kernel(
    x_ptr,
    o_ptr,
    rows_ptr,
    step_ptr,
    x1_ptr,
    mask_ptr,
    h1_ptr,
    h2_ptr,
    x0_ptr,
    z_ptr,
    z_known_ptr,
    seeds_ptr,
    seen_ptr,
    size,
    pixels,
    blocks,
    width,
    CLIP: tl.constexpr,
    KNOWN_X0: tl.constexpr,
    WIDE: tl.constexpr,
    GROUPS: tl.constexpr,
    PATCH: tl.constexpr = 0,
    SAID: tl.constexpr = 0,
    SEEN: tl.constexpr = 0,
):
    """Step 4 * GROUPS elements of an image of `size`; `blocks` programs an image. WIDE: indices of 64 bits.

    PATCH: of the layout of o, which has SAID channels, and of seen, which has SEEN; 0: o lies as x does.
    """
    program = tl.program_id(0)
    image = program // blocks
    block = program % blocks
    if WIDE:
        block = block.to(tl.int64)
    group = (block * GROUPS).to(tl.int64) + tl.arange(0, GROUPS)
    i = block * (4 * GROUPS) + tl.arange(0, 4 * GROUPS)
    inside = i < size
    at = image.to(tl.int64) * size + i

    row = tl.load(step_ptr)
    row_ptr = rows_ptr + row * _COLUMNS
    p = tl.load(row_ptr + 1)
    q = tl.load(row_ptr + 2)
    a = tl.load(row_ptr + 3)
    b = tl.load(row_ptr + 4)
    c = tl.load(row_ptr + 5)
    d = tl.load(row_ptr + 6)
    e = tl.load(row_ptr + 7)
    s = tl.load(row_ptr + 8)
    r = tl.load(row_ptr + 9)

    x = load_if((p != 0) | (a != 0), x_ptr, at, i, size)
    if PATCH == 0:
        o = load_if(q != 0, o_ptr, at, i, size)
    else:
        o = load_if(q != 0, o_ptr, in_blocks(image, i, pixels, width, SAID, PATCH), i, size).to(tl.float32)
    x0 = 0.0 + term(p, x) + q * o  # what is not loaded is zero, and needs no term()
    if CLIP:
        x0 = tl.where(x0 < -1.0, -1.0, x0)
        x0 = tl.where(x0 > 1.0, 1.0, x0)
    if mask_ptr is not None:
        outside = tl.load(mask_ptr + image.to(tl.int64) * pixels + i % pixels, mask=inside, other=1.0) == 0.0
        x1 = tl.load(x1_ptr + at, mask=(inside & outside) | (i < tl.where(c != 0, size, 0)), other=0.0)
        if KNOWN_X0:
            x0 = tl.where(outside, x1, x0)
    elif x1_ptr is not None:
        x1 = load_if(c != 0, x1_ptr, at, i, size)

    after = 0.0 + term(a, x) + term(b, x0)
    if x1_ptr is not None:
        after += term(c, x1)
    if h1_ptr is not None:
        after += d * load_if(d != 0, h1_ptr, at, i, size)
    if h2_ptr is not None:
        after += e * load_if(e != 0, h2_ptr, at, i, size)
    if (z_ptr is not None) or (seeds_ptr is not None):
        after += s * drawn(s, z_ptr, seeds_ptr, image, at, inside, group, row, _PURPOSE_STEP, GROUPS)
    if (mask_ptr is not None) and (not KNOWN_X0):
        renewed = x1
        if (z_known_ptr is not None) or (seeds_ptr is not None):
            z = drawn(r, z_known_ptr, seeds_ptr, image, at, inside, group, row, _PURPOSE_KNOWN, GROUPS)
            renewed = tl.where(r != 0, x1 + r * z, x1)
        after = tl.where(outside, renewed, after)
    tl.store(x_ptr + at, after, mask=inside)
    if x0_ptr is not None:
        tl.store(x0_ptr + at, x0, mask=inside)
    if seen_ptr is not None:
        tl.store(seen_ptr + in_blocks(image, i, pixels, width, SEEN, PATCH), after, mask=inside)


def _check(
    name: str, tensor: torch.Tensor | None, like: torch.Tensor, shape: tuple[int, ...], dtype: torch.dtype
) -> None:
    """Raise TypeError or ValueError, naming the tensor, if it is there and not as it must be."""
    if tensor is None:
        return
    if tensor.dtype != dtype:
        raise TypeError(f"{name} is {tensor.dtype}; it must be {dtype}")
    if tuple(tensor.shape) != shape:
        raise ValueError(f"{name} has shape {tuple(tensor.shape)}; it must be {shape}")
    if tensor.device != like.device:
        raise ValueError(f"{name} is on {tensor.device}; it must be on {like.device}, where x is")
    if not tensor.is_contiguous():
        raise ValueError(f"{name} must be contiguous")


def _check_blocks(o: torch.Tensor, seen: torch.Tensor | None, x: torch.Tensor, patch: int) -> None:
    """Raise TypeError or ValueError if o or seen is not [B, H/P, W/P, C P^2 or more] of the network's type."""
    if x.dim() != 4 or patch < 1 or x.shape[2] % patch or x.shape[3] % patch:
        raise ValueError(f"patch is {patch}; it must divide the sides of x, which is {tuple(x.shape)}")
    n, c, h, w = x.shape
    if o.dtype not in _TYPES:
        raise TypeError(f"o is {o.dtype}; it must be float32, float16 or bfloat16")
    for name, tensor in {"o": o, "seen": seen}.items():
        if tensor is None:
            continue
        least = c * patch**2
        _check(name, tensor, x, (n, h // patch, w // patch, max(least, tensor.shape[-1])), o.dtype)


def bridge_step(
    x: torch.Tensor,
    o: torch.Tensor,
    rows: torch.Tensor,
    step: torch.Tensor,
    *,
    clip: bool = False,
    known: Known = "renew",
    x1: torch.Tensor | None = None,
    mask: torch.Tensor | None = None,
    h1: torch.Tensor | None = None,
    h2: torch.Tensor | None = None,
    x0: torch.Tensor | None = None,
    z: torch.Tensor | None = None,
    z_known: torch.Tensor | None = None,
    seeds: torch.Tensor | None = None,
    patch: int = 0,
    seen: torch.Tensor | None = None,
) -> None:
    """As `i2sb_kernels.bridge_step.bridge_step`, on a GPU; nothing here waits for it.

    The row is not known here: that every array is given whose column is not zero is for the caller to see to. One that
    is missing counts as zeros.

    Raises:
        TypeError, ValueError: a tensor is of another type, shape, device or layout; there is a mask and no x1.

    """
    check_device(x)
    shape = tuple(x.shape)
    if len(shape) < 2:
        raise ValueError(f"x has shape {shape}; it must be [batch, channels, ...]")
    if patch or seen is not None:
        _check_blocks(o, seen, x, patch)
    else:
        _check("o", o, x, shape, torch.float32)
    for name, tensor in {"x": x, "x1": x1, "h1": h1, "h2": h2, "x0": x0, "z": z, "z_known": z_known}.items():
        _check(name, tensor, x, shape, torch.float32)
    _check("mask", mask, x, (shape[0], 1, *shape[2:]), torch.float32)
    _check("rows", rows, x, (rows.shape[0], len(COLUMNS)), torch.float32)
    _check("step", step, x, (1,), torch.int32)
    _check("seeds", seeds, x, (shape[0],), torch.int64)
    if mask is not None and x1 is None:
        raise ValueError("x1 is missing, and there is a mask")
    if known not in ("x0", "renew"):
        raise ValueError(f"known is {known!r}; it must be 'x0' or 'renew'")
    if x.numel() == 0:
        return
    size = x.numel() // shape[0]
    blocks = triton.cdiv(size, 4 * GROUPS)
    with torch.cuda.device_of(x):
        bridge_step_kernel[(shape[0] * blocks,)](
            x, o, rows, step, x1, mask, h1, h2, x0, z, z_known, seeds, seen, size, size // shape[1], blocks, shape[-1],
            PATCH=patch, SAID=o.shape[-1] if patch else 0, SEEN=0 if seen is None else seen.shape[-1],
            CLIP=clip, KNOWN_X0=known == "x0", WIDE=size > 2**31 - 8 * GROUPS, GROUPS=GROUPS, enable_fp_fusion=False,
        )  # fmt: skip
