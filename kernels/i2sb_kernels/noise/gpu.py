"""noise in Triton, with the operations of the C++ twin in the same order; contraction to FMA must be off."""

# mypy: disable-error-code="untyped-decorator,no-untyped-def,no-untyped-call"

import torch
import triton
import triton.language as tl

GROUPS = 256  # Philox groups of 4 elements a program


@triton.jit
def philox4x32_10(c0, c1, c2, c3, k0, k1):
    """Ten rounds of Philox4x32; counter and key are uint32, whatever the host passed."""
    m0 = tl.full([], 0xD2511F53, tl.uint32)
    m1 = tl.full([], 0xCD9E8D57, tl.uint32)
    w0 = tl.full([], 0x9E3779B9, tl.uint32)
    w1 = tl.full([], 0xBB67AE85, tl.uint32)
    for _ in tl.static_range(10):
        old0 = c0
        old2 = c2
        wide0 = old0.to(tl.uint64) * m0.to(tl.uint64)  # one instruction, where umulhi and * are two
        wide2 = old2.to(tl.uint64) * m1.to(tl.uint64)
        c0 = (wide2 >> 32).to(tl.uint32) ^ c1 ^ k0
        c2 = (wide0 >> 32).to(tl.uint32) ^ c3 ^ k1
        c1 = wide2.to(tl.uint32)
        c3 = wide0.to(tl.uint32)
        k0 = k0 + w0
        k1 = k1 + w1
    return c0, c1, c2, c3


@triton.jit
def minus_two_log(v):
    """Return -2 ln(v / 2^24), v odd and below 2^24: u = m / 2^n, m in [2/3, 4/3), minimax polynomial in m - 1."""
    bits = v.to(tl.float32).to(tl.int32, bitcast=True)
    exponent = (bits - 0x3F2AAAAB) >> 23
    f = (bits - (exponent << 23)).to(tl.float32, bitcast=True) - 1.0
    g = f * -0.2811223 + 0.30806395
    g = g * f - 0.279753
    g = g * f + 0.32825583
    g = g * f - 0.4002389
    g = g * f + 0.5001606
    g = g * f - 0.66666335
    g = g * f + 0.9999986
    g = g * f - 2.0
    return (24 - exponent).to(tl.float32) * 1.3862944 + f * g


@triton.jit
def cos_sin(v):
    """Return cosine and sine of 2 pi v / 2^24: quadrant by integers, minimax polynomials for the rest."""
    quadrant = (v + 0x200000) >> 22
    t = (v - (quadrant << 22)).to(tl.float32) * 2.384185791015625e-07
    t2 = t * t
    c = t2 * 0.00090402167 - 0.020860288
    c = c * t2 + 0.25366923
    c = c * t2 - 1.2337005
    c = c * t2 + 1.0
    s = t2 * -0.004601658 + 0.07968003
    s = s * t2 - 0.6459635
    s = s * t2 + 1.5707964
    s = s * t
    swapped = (quadrant & 1) == 1
    cosine = tl.where(swapped, s, c)
    sine = tl.where(swapped, c, s)
    cosine = tl.where(((quadrant + 1) & 2) == 2, -cosine, cosine)
    sine = tl.where((quadrant & 2) == 2, -sine, sine)
    return cosine, sine


@triton.jit
def normals(seed, group, row, purpose, GROUPS: tl.constexpr):
    """Draw the 4 * GROUPS elements of the given groups, in the order of memory; seed and group are int64."""
    r0, r1, r2, r3 = philox4x32_10(
        group.to(tl.uint32),
        (group >> 32).to(tl.uint32),
        tl.full([GROUPS], row, tl.uint32),
        tl.full([GROUPS], purpose, tl.uint32),
        seed.to(tl.uint32),
        (seed >> 32).to(tl.uint32),
    )
    radius01 = tl.sqrt_rn(minus_two_log(((r0 >> 8) | 1).to(tl.int32)))
    cos01, sin01 = cos_sin(((r1 >> 8) | 1).to(tl.int32))
    radius23 = tl.sqrt_rn(minus_two_log(((r2 >> 8) | 1).to(tl.int32)))
    cos23, sin23 = cos_sin(((r3 >> 8) | 1).to(tl.int32))
    even = tl.join(radius01 * cos01, radius23 * cos23)
    odd = tl.join(radius01 * sin01, radius23 * sin23)
    return tl.reshape(tl.join(even, odd), [4 * GROUPS])


@triton.jit(do_not_specialize=["seed", "first_group", "skip", "count", "row", "purpose"])
def noise_kernel(out_ptr, seed, first_group, skip, count, row, purpose, GROUPS: tl.constexpr):
    """Draw elements 4 * first_group + skip .. of a stream; skip is first mod 4, so that windows may start anywhere."""
    block = tl.program_id(0).to(tl.int64)
    group = first_group.to(tl.int64) + block * GROUPS + tl.arange(0, GROUPS)
    z = normals(seed.to(tl.int64), group, row, purpose, GROUPS)
    i = block * (4 * GROUPS) + tl.arange(0, 4 * GROUPS) - skip
    tl.store(out_ptr + i, z, mask=(i >= 0) & (i < count))


def check_device(tensor: torch.Tensor) -> None:
    """Raise TypeError for a tensor that Triton cannot reach: on the CPU, and not under its interpreter."""
    if tensor.device.type == "cpu" and isinstance(noise_kernel, triton.JITFunction):
        raise TypeError("this tensor is on the CPU; pass its NumPy array, or a tensor on a GPU")


def noise_fill(out: torch.Tensor, seed: int, first: int = 0, row: int = 0, purpose: int = 0) -> None:
    """As `i2sb_kernels.noise.noise_fill`, on a GPU.

    Raises:
        TypeError, ValueError: `out` is not float32 on a GPU, or not contiguous.

    """
    check_device(out)
    if out.dtype != torch.float32:
        raise TypeError(f"out is {out.dtype}; it must be torch.float32")
    if not out.is_contiguous():
        raise ValueError("out must be contiguous")
    if out.numel() == 0:
        return
    signed = seed - (1 << 64) if seed >= 1 << 63 else seed
    grid = (triton.cdiv(first % 4 + out.numel(), 4 * GROUPS),)
    with torch.cuda.device_of(out):
        noise_kernel[grid](
            out, signed, first // 4, first % 4, out.numel(), row, purpose, GROUPS=GROUPS, enable_fp_fusion=False
        )
