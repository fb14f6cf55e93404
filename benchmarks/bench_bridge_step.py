"""bridge_step beside what it replaces, the expression in eager PyTorch fp32 and in ONNX Runtime, and beside a copy.

Every figure of one case is taken in the same run, turn about; ratios stand in extra_info. A twin that is not the
reference, on the very arrays that are timed, is not timed.
"""

from __future__ import annotations

import io
import os
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import onnxruntime
import pytest

from i2sb_kernels import _native
from i2sb_kernels.bridge_step import cpu, reference
from i2sb_kernels.cases import STEP_BENCHMARKS, StepCase, step_bounds
from i2sb_kernels.noise import Purpose

torch = pytest.importorskip("torch", reason="the baseline is PyTorch")

CALLS = 20  # on a GPU, a timing
# A copy so long that the C library writes past the caches: one that does not reads what it is about to overwrite, too,
# and moves half as much again as it says. 400 MB are beyond the bound of glibc, 3/4 of what it takes for the cache.
LONG = 8
THREADS = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
cases = pytest.mark.parametrize("case", STEP_BENCHMARKS, ids=lambda case: case.name)
Arrays = dict[str, np.ndarray]
Tensors = dict[str, "torch.Tensor"]


def inputs(case: StepCase) -> Arrays:
    """The arrays that the row reads, noise made inside."""
    arrays = {name: array for name, array in case.arrays().items() if not np.isnan(array.flat[0])}
    arrays = {name: array for name, array in arrays.items() if name not in ("z", "z_known")}
    return arrays | {"seeds": case.seeds()}


def check(case: StepCase, arrays: Arrays, after: np.ndarray) -> None:
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


def in_onnxruntime(case: StepCase, t: Tensors) -> Callable[[], object]:
    """The same expression as an ONNX graph, on arrays that are already there."""

    class Expression(torch.nn.Module):
        def forward(self, *values: torch.Tensor) -> torch.Tensor:
            return eager(case, dict(zip(t, values, strict=True)))

    buffer = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the exporter's, of packages that are not needed
        torch.onnx.export(Expression(), tuple(t.values()), buffer, input_names=list(t), dynamo=True, verbose=False)
    session = onnxruntime.InferenceSession(buffer.getvalue(), providers=["CPUExecutionProvider"])
    used = {entry.name for entry in session.get_inputs()}
    feeds = {name: tensor.numpy() for name, tensor in t.items() if name in used}
    return lambda: session.run(None, feeds)


def bytes_moved(case: StepCase, arrays: Arrays) -> int:
    """What the step must read and write at least."""
    written = arrays["x"].nbytes * (2 if case.keeps_x0 else 1)
    return written + sum(array.nbytes for array in arrays.values())


def report(benchmark: Any, case: StepCase, arrays: Arrays, copied: dict[str, int], **more: object) -> None:
    """Say what share of the fastest copy's bandwidth the step has.

    What counts are the bytes that must move: the step's arrays, and what a copy reads and writes. copied: how many
    bytes each copy copies.
    """
    bandwidth = max(2 * size / benchmark.extra_info[f"{name} [s]"] for name, size in copied.items())
    share = bytes_moved(case, arrays) / benchmark.stats.stats.median / bandwidth
    benchmark.extra_info |= {"of copy bandwidth": round(share, 2), "torch": torch.__version__, **more}


@cases
def test_native(benchmark: Any, beside: Any, case: StepCase) -> None:
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
    long = np.concatenate([arrays["x"].ravel()] * LONG)
    long_target = np.empty_like(long)
    baselines = {
        "PyTorch fp32": lambda: eager(case, tensors),
        "ONNX Runtime": in_onnxruntime(case, tensors),
        "copy": lambda: target.copy_(tensors["x"]),
        "long copy": lambda: np.copyto(long_target, long),
    }
    beside(step, baselines)
    copied = {"copy": arrays["x"].nbytes, "long copy": long.nbytes}
    threads = {"threads": THREADS, "torch_threads": torch.get_num_threads()}
    report(benchmark, case, arrays, copied, isa=_native.isa_best(), **threads)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU")
@cases
def test_triton(benchmark: Any, beside: Any, case: StepCase) -> None:
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
            for _ in range(CALLS):  # so that one wait counts little
                call()
            torch.cuda.synchronize()

        return run

    def step() -> None:
        gpu.bridge_step(x, rows=rows, step=row, clip=case.clip, known=case.known, **rest)

    step()
    check(case, arrays, x.cpu().numpy())
    baselines = {"PyTorch fp32": lambda: eager(case, tensors), "copy": lambda: target.copy_(tensors["x"])}
    beside(waited(step), {name: waited(call) for name, call in baselines.items()})
    report(benchmark, case, arrays, {"copy": arrays["x"].nbytes}, calls=CALLS, device=torch.cuda.get_device_name())
