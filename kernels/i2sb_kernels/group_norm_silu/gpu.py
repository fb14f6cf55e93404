"""group_norm_silu in Triton: statistics by channel and chunk of pixels, merged in a fixed order, then one more pass.

Large maps take three launches: `stats_kernel` leaves mean and M2 (the sum of squares about it) of every channel in
every chunk, `merge_kernel` makes of them what each channel is moved and scaled by, `apply_kernel` reads the pixels
again. Small maps take one, `small_kernel`. Nothing is atomic and nothing is contracted to FMA, so two runs agree to the
bit. A group's channels may lie in both sources. The row is read from device memory when a kernel runs, so that a
captured graph may be replayed for another.
"""

# mypy: disable-error-code="untyped-decorator,no-untyped-def,no-untyped-call"

import torch
import triton
import triton.language as tl

from i2sb_kernels.group_norm_silu import EPS, Resize, check
from i2sb_kernels.noise.gpu import check_device

SMALL = 1024  # pixels of a map that takes one launch
CHUNK = 256  # pixels of a chunk
TILE = 2048  # elements of a tile
_RESIZE = {"none": 0, "down": 1, "up": 2}
_TYPES = (torch.float32, torch.float16, torch.bfloat16)


@triton.jit
def load_pixels(ptr, image, pixel, pixels, c, mask, C: tl.constexpr):
    """Load [len(pixel), len(c)] of an image [pixels, C] as float32, zeros outside the mask."""
    return tl.load(ptr + (image * pixels + pixel)[:, None] * C + c[None, :], mask=mask, other=0.0).to(tl.float32)


@triton.jit
def load_residual(ptr, image, pixel, c, mask, H, W, C: tl.constexpr, RESIZE: tl.constexpr):
    """Load the residual of pixels of an H x W map: as it is (RESIZE 0), the mean of 2x2 (1), or repeated (2)."""
    if RESIZE == 0:
        return load_pixels(ptr, image, pixel, H * W, c, mask, C)
    y = pixel // W
    x = pixel % W
    if RESIZE == 2:
        return load_pixels(ptr, image, (y // 2) * (W // 2) + x // 2, H * W // 4, c, mask, C)
    corner = 4 * y * W + 2 * x
    first = load_pixels(ptr, image, corner, 4 * H * W, c, mask, C)
    first += load_pixels(ptr, image, corner + 1, 4 * H * W, c, mask, C)
    second = load_pixels(ptr, image, corner + 2 * W, 4 * H * W, c, mask, C)
    second += load_pixels(ptr, image, corner + 2 * W + 1, 4 * H * W, c, mask, C)
    return (first + second) * 0.25


@triton.jit
def load_joined(
    x_ptr, bias_ptr, residual_ptr, second_ptr, image, pixel, inside, c, used, H, W,
    C1: tl.constexpr, C2: tl.constexpr, RESIDUAL: tl.constexpr,
):  # fmt: skip
    """Load concat(s, second), float32 [pixels, channels], s rounded as `total` is if there is a residual."""
    first = used & (c < C1)
    mask = inside[:, None] & first[None, :]
    v = load_pixels(x_ptr, image, pixel, H * W, c, mask, C1)
    if bias_ptr is not None:
        v += tl.load(bias_ptr + c, mask=first, other=0.0)[None, :]
    if residual_ptr is not None:
        v += load_residual(residual_ptr, image, pixel, c, mask, H, W, C1, RESIDUAL)
        v = v.to(x_ptr.dtype.element_ty).to(tl.float32)
    if second_ptr is not None:
        mask = inside[:, None] & (used & (c >= C1))[None, :]
        v = tl.where((c >= C1)[None, :], load_pixels(second_ptr, image, pixel, H * W, c - C1, mask, C2), v)
    return v


@triton.jit
def activated(v, mean, scale, beta, SILU: tl.constexpr):
    """Normalise [pixels, channels] by what each channel is moved and scaled by; apply SiLU if asked for."""
    y = (v - mean[None, :]) * scale[None, :] + beta[None, :]
    if SILU:
        y = y * tl.sigmoid(y)
    return y


@triton.jit
def write(
    x_ptr, bias_ptr, residual_ptr, second_ptr, out_ptr, image, pixel, c, used, mean, scale, beta, H, W,
    C1: tl.constexpr, C2: tl.constexpr, RESIDUAL: tl.constexpr, RESIZE: tl.constexpr, SILU: tl.constexpr,
):  # fmt: skip
    """Finish pixels: those of the input's map, or for RESIZE 1 (halved) those of the output's."""
    C: tl.constexpr = C1 + C2
    if RESIZE == 1:
        pixels = H * W // 4
        corner = 2 * (pixel // (W // 2)) * W + 2 * (pixel % (W // 2))
    else:
        pixels = H * W
        corner = pixel
    inside = pixel < pixels
    v = load_joined(x_ptr, bias_ptr, residual_ptr, second_ptr, image, corner, inside, c, used, H, W, C1, C2, RESIDUAL)
    y = activated(v, mean, scale, beta, SILU)
    if RESIZE == 1:
        for quarter in tl.static_range(1, 4):
            there = corner + (quarter // 2) * W + quarter % 2
            v = load_joined(
                x_ptr, bias_ptr, residual_ptr, second_ptr, image, there, inside, c, used, H, W, C1, C2, RESIDUAL
            )
            y += activated(v, mean, scale, beta, SILU)
        y *= 0.25
    y = y.to(out_ptr.dtype.element_ty)
    mask = inside[:, None] & used[None, :]
    if RESIZE == 2:
        corner = 4 * (pixel // W) * W + 2 * (pixel % W)
        for quarter in tl.static_range(4):
            there = image * 4 * pixels + corner + (quarter // 2) * 2 * W + quarter % 2
            tl.store(out_ptr + there[:, None] * C + c[None, :], y, mask=mask)
    else:
        tl.store(out_ptr + (image * pixels + pixel)[:, None] * C + c[None, :], y, mask=mask)


@triton.jit
def stats_kernel(
    x_ptr, bias_ptr, residual_ptr, second_ptr, total_ptr, step_ptr, partial_ptr, H, W, chunks,
    C1: tl.constexpr, C2: tl.constexpr, RESIDUAL: tl.constexpr, CHUNK: tl.constexpr, ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
):  # fmt: skip
    """Write mean and M2 of COLUMNS channels in one chunk of one image, partial [N, chunks, 2, C]; and total."""
    C: tl.constexpr = C1 + C2
    blocks: tl.constexpr = (C + COLUMNS - 1) // COLUMNS  # programs that run together read neighbouring channels
    chunk = tl.program_id(0) // blocks
    c = tl.program_id(0) % blocks * COLUMNS + tl.arange(0, COLUMNS)
    used = c < C
    image = tl.program_id(1).to(tl.int64)
    count = tl.minimum(CHUNK, H * W - chunk * CHUNK)
    if bias_ptr is not None:
        bias_ptr += tl.load(step_ptr).to(tl.int64) * C1
    # Sums about each channel's first value, so that little cancels where the mean is large.
    about = tl.zeros([COLUMNS], tl.float32)
    sums = tl.zeros([ROWS, COLUMNS], tl.float32)
    squares = tl.zeros([ROWS, COLUMNS], tl.float32)
    for start in range(0, CHUNK, ROWS):
        row = start + tl.arange(0, ROWS)
        inside = row < count
        pixel = chunk * CHUNK + row
        v = load_joined(
            x_ptr, bias_ptr, residual_ptr, second_ptr, image, pixel, inside, c, used, H, W, C1, C2, RESIDUAL
        )
        if total_ptr is not None:
            at = (image * H * W + pixel)[:, None] * C1 + c[None, :]
            tl.store(total_ptr + at, v.to(total_ptr.dtype.element_ty), mask=inside[:, None] & (c < C1)[None, :])
        if start == 0:
            about = tl.sum(tl.where((row == 0)[:, None], v, 0.0), 0)
        v = tl.where(inside[:, None], v - about[None, :], 0.0)
        sums += v
        squares += v * v
    shift = tl.sum(sums, 0) / count
    m2 = tl.maximum(tl.sum(squares, 0) - shift * shift * count, 0.0)
    to = partial_ptr + (image * chunks + chunk) * 2 * C + c
    tl.store(to, about + shift, mask=used)
    tl.store(to + C, m2, mask=used)


@triton.jit
def merge_kernel(
    partial_ptr, gamma_ptr, beta_ptr, step_ptr, moved_ptr, HW, chunks, eps,
    C: tl.constexpr, WIDTH: tl.constexpr, CHUNK: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr,
):  # fmt: skip
    """Merge the chunks of a group of WIDTH channels: moved [N, 3, C] holds its mean, gamma / std, beta."""
    image = tl.program_id(1).to(tl.int64)
    column = tl.arange(0, COLUMNS)
    used = column < WIDTH
    c = tl.program_id(0) * WIDTH + column
    partial_ptr += image * chunks * 2 * C + c[None, :]
    about = tl.sum(tl.load(partial_ptr, mask=(column == 0)[None, :], other=0.0))
    sums = tl.zeros([ROWS, COLUMNS], tl.float32)
    for start in range(0, chunks, ROWS):
        chunk = start + tl.arange(0, ROWS)
        mask = (chunk < chunks)[:, None] & used[None, :]
        count = tl.minimum(CHUNK, HW - chunk * CHUNK).to(tl.float32)
        mean = tl.load(partial_ptr + chunk[:, None] * 2 * C, mask=mask, other=0.0)
        sums += tl.where(mask, (mean - about) * count[:, None], 0.0)
    middle = about + tl.sum(sums) / (HW * WIDTH)
    m2 = tl.zeros([ROWS, COLUMNS], tl.float32)
    for start in range(0, chunks, ROWS):
        chunk = start + tl.arange(0, ROWS)
        mask = (chunk < chunks)[:, None] & used[None, :]
        count = tl.minimum(CHUNK, HW - chunk * CHUNK).to(tl.float32)
        at = partial_ptr + chunk[:, None] * 2 * C
        off = tl.load(at, mask=mask, other=0.0) - middle
        m2 += tl.where(mask, tl.load(at + C, mask=mask, other=0.0) + off * off * count[:, None], 0.0)
    scale = 1.0 / tl.sqrt(tl.sum(m2) / (HW * WIDTH) + eps)
    row = tl.load(step_ptr).to(tl.int64) * C + c
    to = moved_ptr + image * 3 * C + c
    tl.store(to, tl.zeros([COLUMNS], tl.float32) + middle, mask=used)
    tl.store(to + C, tl.load(gamma_ptr + row, mask=used, other=0.0) * scale, mask=used)
    tl.store(to + 2 * C, tl.load(beta_ptr + row, mask=used, other=0.0), mask=used)


@triton.jit
def apply_kernel(
    x_ptr, bias_ptr, second_ptr, step_ptr, moved_ptr, out_ptr, H, W,
    C1: tl.constexpr, C2: tl.constexpr, RESIZE: tl.constexpr, SILU: tl.constexpr, ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
):  # fmt: skip
    """Write ROWS pixels of COLUMNS channels; x is total where there is one."""
    C: tl.constexpr = C1 + C2
    blocks: tl.constexpr = (C + COLUMNS - 1) // COLUMNS  # programs that run together read neighbouring channels
    pixel = tl.program_id(0) // blocks * ROWS + tl.arange(0, ROWS)
    c = tl.program_id(0) % blocks * COLUMNS + tl.arange(0, COLUMNS)
    used = c < C
    image = tl.program_id(1).to(tl.int64)
    moved_ptr += image * 3 * C + c
    mean = tl.load(moved_ptr, mask=used, other=0.0)
    scale = tl.load(moved_ptr + C, mask=used, other=0.0)
    beta = tl.load(moved_ptr + 2 * C, mask=used, other=0.0)
    if bias_ptr is not None:
        bias_ptr += tl.load(step_ptr).to(tl.int64) * C1
    write(
        x_ptr, bias_ptr, None, second_ptr, out_ptr, image, pixel, c, used, mean, scale, beta, H, W,
        C1, C2, 0, RESIZE, SILU,
    )  # fmt: skip


@triton.jit
def by_group(values, group, used):
    """Sum [channels] over each group, and give every channel its group's sum."""
    same = (group[:, None] == group[None, :]) & used[None, :]
    return tl.sum(tl.where(same, values[None, :], 0.0), 1)


@triton.jit
def small_kernel(
    x_ptr, bias_ptr, residual_ptr, second_ptr, total_ptr, gamma_ptr, beta_ptr, step_ptr, out_ptr, H, W, eps,
    C1: tl.constexpr, C2: tl.constexpr, WIDTH: tl.constexpr, TAKEN: tl.constexpr, RESIDUAL: tl.constexpr,
    RESIZE: tl.constexpr, SILU: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr,
):  # fmt: skip
    """Do all for TAKEN groups of WIDTH channels of one image: the mean, the variance about it, the result."""
    C: tl.constexpr = C1 + C2
    image = tl.program_id(1).to(tl.int64)
    column = tl.arange(0, COLUMNS)
    c = tl.program_id(0) * TAKEN * WIDTH + column
    used = (column < TAKEN * WIDTH) & (c < C)
    group = column // WIDTH
    HW = H * W
    row = tl.load(step_ptr).to(tl.int64)
    if bias_ptr is not None:
        bias_ptr += row * C1
    about = tl.zeros([COLUMNS], tl.float32)
    sums = tl.zeros([ROWS, COLUMNS], tl.float32)
    for start in range(0, HW, ROWS):
        pixel = start + tl.arange(0, ROWS)
        inside = pixel < HW
        v = load_joined(
            x_ptr, bias_ptr, residual_ptr, second_ptr, image, pixel, inside, c, used, H, W, C1, C2, RESIDUAL
        )
        if total_ptr is not None:
            at = (image * HW + pixel)[:, None] * C1 + c[None, :]
            there = inside[:, None] & (used & (c < C1))[None, :]
            tl.store(total_ptr + at, v.to(total_ptr.dtype.element_ty), mask=there)
        if start == 0:
            about = tl.sum(tl.where((pixel == 0)[:, None], v, 0.0), 0)
        sums += tl.where(inside[:, None], v - about[None, :], 0.0)
    mean = by_group(about + tl.sum(sums, 0) / HW, group, used) / WIDTH
    squares = tl.zeros([ROWS, COLUMNS], tl.float32)
    for start in range(0, HW, ROWS):
        pixel = start + tl.arange(0, ROWS)
        inside = pixel < HW
        v = load_joined(
            x_ptr, bias_ptr, residual_ptr, second_ptr, image, pixel, inside, c, used, H, W, C1, C2, RESIDUAL
        )
        off = tl.where(inside[:, None], v - mean[None, :], 0.0)
        squares += off * off
    var = by_group(tl.sum(squares, 0), group, used) / (HW * WIDTH)
    scale = tl.load(gamma_ptr + row * C + c, mask=used, other=0.0) / tl.sqrt(var + eps)
    beta = tl.load(beta_ptr + row * C + c, mask=used, other=0.0)
    written = HW // 4 if RESIZE == 1 else HW
    for start in range(0, written, ROWS):
        write(
            x_ptr, bias_ptr, residual_ptr, second_ptr, out_ptr, image, start + tl.arange(0, ROWS), c, used,
            mean, scale, beta, H, W, C1, C2, RESIDUAL, RESIZE, SILU,
        )  # fmt: skip


def _check_tensors(x: torch.Tensor, step: torch.Tensor, tensors: dict[str, torch.Tensor | None]) -> None:
    """Raise TypeError or ValueError, naming the tensor, for what `check` does not see."""
    if x.dtype not in _TYPES:
        raise TypeError(f"x is {x.dtype}; it must be float32, float16 or bfloat16")
    if step.dtype != torch.int32 or step.numel() != 1:
        raise TypeError("step must be an int32 tensor of one element")
    for name, tensor in ({"x": x, "step": step} | tensors).items():
        if tensor is None:
            continue
        if tensor.device != x.device:
            raise ValueError(f"{name} is on {tensor.device}; it must be on {x.device}, where x is")
        if not tensor.is_contiguous():
            raise ValueError(f"{name} must be contiguous")
        if name in ("gamma", "beta", "bias") and tensor.dtype != torch.float32:
            raise TypeError(f"{name} is {tensor.dtype}; it must be float32")


def group_norm_silu(
    x: torch.Tensor,
    gamma: torch.Tensor,
    beta: torch.Tensor,
    step: torch.Tensor,
    out: torch.Tensor,
    *,
    groups: int,
    eps: float = EPS,
    silu: bool = True,
    resize: Resize = "none",
    bias: torch.Tensor | None = None,
    residual: torch.Tensor | None = None,
    residual_resize: Resize = "none",
    total: torch.Tensor | None = None,
    second: torch.Tensor | None = None,
) -> None:
    """As `i2sb_kernels.group_norm_silu.group_norm_silu`, on a GPU; nothing here waits for it."""
    check_device(x)
    check(x, gamma, beta, out, groups, resize, bias, residual, residual_resize, total, second)
    others = {"gamma": gamma, "beta": beta, "out": out, "bias": bias, "residual": residual}
    _check_tensors(x, step, others | {"total": total, "second": second})
    n, h, w, c1 = x.shape
    if x.numel() == 0:
        return
    c2 = 0 if second is None else second.shape[3]
    shape = {"C1": c1, "C2": c2}
    how = {"RESIZE": _RESIZE[resize], "SILU": silu}
    with torch.cuda.device_of(x):
        if h * w <= SMALL:
            width, taken = (c1 + c2) // groups, max(1, 16 * groups // (c1 + c2))
            columns = triton.next_power_of_2(taken * width)
            tile = _tile(resize, residual_resize)
            rows = max(1, min(tile // columns, triton.next_power_of_2(h * w)))
            small_kernel[(triton.cdiv(groups, taken), n)](
                x, bias, residual, second, total, gamma, beta, step, out, h, w, eps, WIDTH=width, TAKEN=taken,
                RESIDUAL=_RESIZE[residual_resize], ROWS=rows, COLUMNS=columns, enable_fp_fusion=False, **shape, **how,
            )  # fmt: skip
        else:
            moved = _moved(x, gamma, beta, step, groups, eps, bias, residual, residual_resize, total, second)
            columns = _columns(c1 + c2)
            rows = TILE // columns
            written = h * w // 4 if resize == "down" else h * w
            grid = (triton.cdiv(written, rows) * triton.cdiv(c1 + c2, columns), n)
            source, added = (x, bias) if total is None else (total, None)
            apply_kernel[grid](
                source, added, second, step, moved, out, h, w, ROWS=rows, COLUMNS=columns, enable_fp_fusion=False,
                **shape, **how,
            )  # fmt: skip


def _tile(*resized: Resize) -> int:
    return TILE // 2 if "down" in resized else TILE  # four pixels are loaded for each


def _columns(channels: int) -> int:
    wanted: int = triton.next_power_of_2(channels)
    return min(64, wanted)


def _moved(
    x: torch.Tensor, gamma: torch.Tensor, beta: torch.Tensor, step: torch.Tensor, groups: int, eps: float,
    bias: torch.Tensor | None, residual: torch.Tensor | None, residual_resize: Resize, total: torch.Tensor | None,
    second: torch.Tensor | None,
) -> torch.Tensor:  # fmt: skip
    """Compute what each channel is moved and scaled by, float32 [N, 3, C], and write total."""
    n, h, w, c1 = x.shape
    c2 = 0 if second is None else second.shape[3]
    chunks, columns = triton.cdiv(h * w, CHUNK), _columns(c1 + c2)
    partial = x.new_empty((n, chunks, 2, c1 + c2), dtype=torch.float32)
    moved = x.new_empty((n, 3, c1 + c2), dtype=torch.float32)
    stats_kernel[(chunks * triton.cdiv(c1 + c2, columns), n)](
        x, bias, residual, second, total, step, partial, h, w, chunks, C1=c1, C2=c2,
        RESIDUAL=_RESIZE[residual_resize], CHUNK=CHUNK, ROWS=_tile(residual_resize) // columns, COLUMNS=columns,
        enable_fp_fusion=False,
    )  # fmt: skip
    width = (c1 + c2) // groups
    columns = triton.next_power_of_2(width)
    merge_kernel[(groups, n)](
        partial, gamma, beta, step, moved, h * w, chunks, eps, C=c1 + c2, WIDTH=width, CHUNK=CHUNK,
        ROWS=max(1, min(TILE // columns, triton.next_power_of_2(chunks))), COLUMNS=columns,
        enable_fp_fusion=False,
    )  # fmt: skip
    return moved
