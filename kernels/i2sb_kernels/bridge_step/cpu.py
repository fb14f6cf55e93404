"""bridge_step in C++: AVX-512, AVX2 or plain, with the same bits from each and from any number of threads."""

import numpy as np
from numpy.typing import NDArray

from i2sb_kernels import _native
from i2sb_kernels.bridge_step import Known

Array = NDArray[np.float32]


def bridge_step(
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
    x0: Array | None = None,
    z: Array | None = None,
    z_known: Array | None = None,
    seeds: NDArray[np.uint64] | None = None,
    threads: int = 1,
    isa: str = "auto",
) -> None:
    """As `i2sb_kernels.bridge_step.bridge_step`.

    Two more: threads, how many to use, at least 1; isa, `auto`, `scalar`, `avx2` or `avx512`.

    Raises:
        TypeError, ValueError: an array is missing, read-only, or of another type, shape or layout; this CPU has no
            such `isa`.
        IndexError: the plan has no such row.

    """
    _native.bridge_step(
        x,
        o,
        rows[step],
        step,
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
        threads=threads,
        isa=isa,
    )
