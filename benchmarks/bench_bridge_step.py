"""bridge_step beside what it replaces, the eager fp32 expression of PyTorch, and beside a plain copy of memory.

Every figure of one case is taken in the same run, the three in turn; ratios stand in extra_info. A twin that is not the
reference, on the very arrays that are timed, is not timed.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable

import numpy as np
import pytest

from i2sb_kernels import _native
from i2sb_kernels.bridge_step import cpu, reference
from i2sb_kernels.cases import STEP_BENCHMARKS, StepCase, step_bounds
from i2sb_kernels.noise import Purpose

torch = pytest.importorskip("torch", reason="the baseline is PyTorch")

ROUNDS = 7
THREADS = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
cases = pytest.mark.parametrize("case", STEP_BENCHMARKS, ids=lambda case: case.name)
Tensors = dict[str, "torch.Tensor"]


def inputs(case: StepCase) -> dict[str, np.ndarray]:
    """The arrays that the row reads, noise made inside."""
    arrays = {name: array for name, array in case.arrays().items() if not np.isnan(array.flat[0])}
    arrays = {name: array for name, array in arrays.items() if name not in ("z", "z_known")}
    return arrays | {"seeds": case.seeds()}


def check(case: StepCase, arrays: dict[str, np.ndarray], after: np.ndarray) -> None:
    """Fails if the first image of x' is not the reference's."""
    only = {name: array[:1] for name, array in arrays.items()}
    first = StepCase(case.name, (1, *case.shape[1:]), case.row, case.step, case.mask, case.known, case.clip)
    wanted, _ = reference.stepped(rows=case.rows, step=case.step, clip=case.clip, known=case.known, **only)
    for name, purpose in (("z", Purpose.STEP), ("z_known", Purpose.KNOWN)):
        only[name] = reference.draw(only["seeds"], first.shape, case.step, purpose)
    bound, _ = step_bounds(first, only, noise_made=True)
    assert (np.abs(after[:1] - wanted) <= bound).all(), "this twin is not the reference: it is not timed"


def eager(case: StepCase, t: Tensors) -> torch.Tensor:
    """The same row as PyTorch users write it; x stays as it is."""
    row = {column: case.row.get(column, 0.0) for column in "pqabcdesr"}
    x0 = row["p"] * t["x"] + row["q"] * t["o"]
    after = row["a"] * t["x"] + row["b"] * x0
    for column, name in (("c", "x1"), ("d", "h1"), ("e", "h2")):
        if row[column]:
            after = after + row[column] * t[name]
    if row["s"]:
        after = after + row["s"] * torch.randn_like(after)
    if "mask" in t:
        after = t["mask"] * after + (1 - t["mask"]) * (t["x1"] + row["r"] * torch.randn_like(after))
    return after


def bytes_moved(case: StepCase, arrays: dict[str, np.ndarray]) -> int:
    """What the step must read and write at least."""
    written = arrays["x"].nbytes * (2 if case.keeps_x0 else 1)
    return written + sum(array.nbytes for array in arrays.values())


def best_in_turn(*calls: Callable[[], object]) -> list[float]:
    """The least seconds of each call, taken in turn so that all see the same machine."""
    best = [float("inf")] * len(calls)
    for _ in range(ROUNDS):
        for i, call in enumerate(calls):
            start = time.perf_counter()
            call()
            best[i] = min(best[i], time.perf_counter() - start)
    return best


def report(benchmark, case: StepCase, arrays: dict[str, np.ndarray], times: list[float], **more: object) -> None:
    step, expression, copy = times
    bandwidth = 2 * arrays["x"].nbytes / copy
    benchmark.extra_info.update(
        over_eager=round(expression / step, 2),
        of_copy_bandwidth=round(bytes_moved(case, arrays) / step / bandwidth, 2),
        copy_gigabytes_per_second=round(bandwidth / 1e9, 1),
        eager_milliseconds=round(expression * 1e3, 2),
        step_milliseconds=round(step * 1e3, 2),
        torch=torch.__version__,
        **more,
    )


@cases
def test_native(benchmark, case):
    arrays = inputs(case)
    rest = {name: array for name, array in arrays.items() if name != "x"}
    if case.keeps_x0:
        rest["x0"] = np.full(case.shape, np.nan, np.float32)
    x = arrays["x"].copy()

    def step() -> None:
        cpu.bridge_step(x, rows=case.rows, step=case.step, clip=case.clip, known=case.known, threads=THREADS, **rest)

    step()
    check(case, arrays, x)
    tensors = {name: torch.from_numpy(array) for name, array in arrays.items() if name != "seeds"}
    target = torch.empty_like(tensors["x"])
    times = best_in_turn(step, lambda: eager(case, tensors), lambda: target.copy_(tensors["x"]))
    report(
        benchmark, case, arrays, times, threads=THREADS, torch_threads=torch.get_num_threads(), isa=_native.isa_best()
    )
    benchmark.pedantic(step, rounds=ROUNDS, warmup_rounds=1)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU")
@cases
def test_triton(benchmark, case):
    gpu = pytest.importorskip("i2sb_kernels.bridge_step.gpu", reason="Triton is not installed")
    arrays = inputs(case)
    tensors = {
        name: torch.from_numpy(array.view(np.int64) if name == "seeds" else array) for name, array in arrays.items()
    }
    tensors = {name: tensor.cuda() for name, tensor in tensors.items()}
    rest = {name: tensor for name, tensor in tensors.items() if name != "x"}
    x, target = tensors["x"].clone(), torch.empty_like(tensors["x"])
    if case.keeps_x0:
        rest["x0"] = torch.empty_like(x)
    rows, row = torch.from_numpy(case.rows).cuda(), torch.tensor([case.step], dtype=torch.int32, device="cuda")

    def waited(call: Callable[[], object]) -> Callable[[], None]:
        def run() -> None:
            for _ in range(20):  # so that one wait counts little
                call()
            torch.cuda.synchronize()

        return run

    def step() -> None:
        gpu.bridge_step(x, rows=rows, step=row, clip=case.clip, known=case.known, **rest)

    step()
    check(case, arrays, x.cpu().numpy())
    calls = (step, lambda: eager(case, tensors), lambda: target.copy_(tensors["x"]))
    times = [seconds / 20 for seconds in best_in_turn(*map(waited, calls))]
    report(benchmark, case, arrays, times, device=torch.cuda.get_device_name())
    benchmark.pedantic(waited(step), rounds=ROUNDS, warmup_rounds=1)
