"""bridge_step in C++: AVX-512, AVX2 or plain, with the same bits from each and from any number of threads."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from i2sb_kernels import _native
from i2sb_kernels.bridge_step import Known
from i2sb_kernels.bridge_step.reference import show, to_planes

Array = NDArray[np.float32]


def bridge_step(
    x: Array,
    o: NDArray[Any],
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
    patch: int = 0,
    seen: NDArray[Any] | None = None,
    threads: int = 1,
    isa: str = "auto",
) -> None:
    """As `i2sb_kernels.bridge_step.bridge_step`; the network's own layout, which no CPU engine has, is NumPy's work.

    Two more: threads, how many to use, at least 1; isa, `auto`, `scalar`, `avx2` or `avx512`.

    Raises:
        TypeError, ValueError: an array is missing, read-only, or of another type, shape or layout; this CPU has no
            such `isa`.
        IndexError: the plan has no such row.

    """
    _native.bridge_step(
        x,
        to_planes(o, x, patch, seen),
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
    show(x, seen, patch)
