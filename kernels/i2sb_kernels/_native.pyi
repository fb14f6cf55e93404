import numpy as np
from numpy.typing import NDArray

def isa_best() -> str: ...
def bridge_step(
    x: NDArray[np.float32],
    o: NDArray[np.float32],
    row: NDArray[np.float32],
    row_index: int,
    *,
    clip: bool = False,
    known: str = "renew",
    x1: NDArray[np.float32] | None = None,
    mask: NDArray[np.float32] | None = None,
    h1: NDArray[np.float32] | None = None,
    h2: NDArray[np.float32] | None = None,
    x0: NDArray[np.float32] | None = None,
    z: NDArray[np.float32] | None = None,
    z_known: NDArray[np.float32] | None = None,
    seeds: NDArray[np.uint64] | None = None,
    threads: int = 1,
    isa: str = "auto",
) -> None: ...
def noise_fill(
    out: NDArray[np.float32],
    seed: int,
    first: int = 0,
    row: int = 0,
    purpose: int = 0,
    *,
    threads: int = 1,
    isa: str = "auto",
) -> None: ...
