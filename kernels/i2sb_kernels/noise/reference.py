"""noise in NumPy: integers exact, logarithm and cosine in float64, rounded to float32 once. The truth."""

import numpy as np
from numpy.typing import NDArray

Words = NDArray[np.uint32]

MULTIPLIERS = (0xD2511F53, 0xCD9E8D57)
WEYL = (0x9E3779B9, 0xBB67AE85)
LOW = 0xFFFFFFFF


def philox4x32_10(counter: tuple[Words, Words, Words, Words], key: tuple[int, int]) -> tuple[Words, ...]:
    """Ten rounds of Philox4x32 (Salmon et al. 2011, section 3.3) on counters of any shape, one key for all."""
    c0, c1, c2, c3 = counter
    k0, k1 = key
    for _ in range(10):
        p0 = np.uint64(MULTIPLIERS[0]) * c0.astype(np.uint64)
        p1 = np.uint64(MULTIPLIERS[1]) * c2.astype(np.uint64)
        c0, c1 = (p1 >> np.uint64(32)).astype(np.uint32) ^ c1 ^ np.uint32(k0), p1.astype(np.uint32)
        c2, c3 = (p0 >> np.uint64(32)).astype(np.uint32) ^ c3 ^ np.uint32(k1), p0.astype(np.uint32)
        k0, k1 = (k0 + WEYL[0]) & LOW, (k1 + WEYL[1]) & LOW
    return c0, c1, c2, c3


def uniform(word: Words) -> NDArray[np.float64]:
    """Return u = ((word >> 9) + 1/2) 2^-23, in (0, 1), exact."""
    return ((word >> np.uint32(9)).astype(np.float64) + 0.5) * 2.0**-23


def normals(seed: int, first: int, count: int, row: int, purpose: int) -> NDArray[np.float64]:
    """Draw elements first .. first + count - 1 of a stream, float64 [count] (Box and Muller 1958)."""
    group = np.uint64(first // 4) + np.arange((first % 4 + count + 3) // 4, dtype=np.uint64)
    counter = (
        group.astype(np.uint32),
        (group >> np.uint64(32)).astype(np.uint32),
        np.full(group.shape, row, np.uint32),
        np.full(group.shape, purpose, np.uint32),
    )
    u0, u1, u2, u3 = (uniform(word) for word in philox4x32_10(counter, (seed & LOW, seed >> 32)))
    radius01, radius23 = np.sqrt(-2 * np.log(u0)), np.sqrt(-2 * np.log(u2))
    angle01, angle23 = 2 * np.pi * u1, 2 * np.pi * u3
    pair01 = radius01 * np.cos(angle01), radius01 * np.sin(angle01)
    pair23 = radius23 * np.cos(angle23), radius23 * np.sin(angle23)
    return np.stack(pair01 + pair23, axis=-1).reshape(-1)[first % 4 : first % 4 + count]


def noise_fill(out: NDArray[np.float32], seed: int, first: int = 0, row: int = 0, purpose: int = 0) -> None:
    """As `i2sb_kernels.noise.noise_fill`."""
    out[...] = normals(seed, first, out.size, row, purpose).reshape(out.shape)
