"""noise in C++: AVX-512, AVX2 or plain, with the same bits from each and from any number of threads."""

import numpy as np
from numpy.typing import NDArray

from i2sb_kernels import _native


def noise_fill(
    out: NDArray[np.float32],
    seed: int,
    first: int = 0,
    row: int = 0,
    purpose: int = 0,
    *,
    threads: int = 1,
    isa: str = "auto",
) -> None:
    """As `i2sb_kernels.noise.noise_fill`.

    Args:
        out: float32, C order.
        seed: as there; also `first`, `row`, `purpose`.
        first: see seed.
        row: see seed.
        purpose: see seed.
        threads: how many to use, at least 1.
        isa: `auto`, `scalar`, `avx2` or `avx512`.

    Raises:
        TypeError, ValueError: `out` is of another type, not contiguous or read-only; this CPU has no such `isa`.

    """
    _native.noise_fill(out, seed, first, row, purpose, threads=threads, isa=isa)
