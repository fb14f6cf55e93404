"""Work on a model in a process of its own, whose peak memory is then that of the work alone.

python apart.py export SOURCE TARGET          exports the model
python apart.py run MODEL PRECISION X T OUT   loads it, then calls its network once for each line on standard input

X and OUT are .npy files. Each piece of work is answered by a line of JSON: seconds, and the peak memory so far in GiB.
"""

import json
import sys
import time
from collections.abc import Callable


def peak_memory() -> float:
    """Peak memory of this process in GiB."""
    from i2sb_rt import parallel

    peak = parallel.peak_memory()
    assert peak, "this system does not tell the peak memory of a process"
    return peak / 2**30


def answer(begin: float, **facts: object) -> None:
    """Print what the work since `begin` took."""
    print(json.dumps({"seconds": time.perf_counter() - begin, "peak": peak_memory(), **facts}), flush=True)


def export(source: str, target: str) -> None:
    """Export a model."""
    from i2sb_export.onnx import export_onnx

    begin = time.perf_counter()
    export_onnx(source, target)
    answer(begin)


def run(model: str, precision: str, x: str, t: str, out: str) -> None:
    """Load a model and call its network on the input X at the time T, again and again."""
    import numpy as np

    from i2sb_rt import _core, load

    begin = time.perf_counter()
    restorer, state = load(model, precision=precision), np.load(x)
    answer(begin, precision=restorer.precision)
    row = np.zeros((1, 10), np.float32)
    row[0, [0, 2, 4]] = float(t), 1, 1  # x' = x0 = what the network says
    for _ in sys.stdin:
        begin = time.perf_counter()
        np.save(out, _core.sample(restorer.engine.core, row, state, network_batch=1))
        answer(begin)


if __name__ == "__main__":
    WORK: dict[str, Callable[..., None]] = {"export": export, "run": run}
    WORK[sys.argv[1]](*sys.argv[2:])
