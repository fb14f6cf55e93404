"""What the benchmarks share: timing beside a baseline, and the check that comes before it."""

import os
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from i2sb_rt import models
from i2sb_rt.evaluation.speed import REST

Beside = Callable[..., None]
Agree = Callable[[NDArray[np.float32], NDArray[np.float32], str], float]

# Of a network's output, relative to the largest value: what fp32 sums in another order give, and what bf16 does.
TOLERANCE = {"fp32": 1e-4, "bf16": 3e-2}


def pytest_xdist_auto_num_workers() -> int:
    """Time in this process alone: nothing else may run meanwhile."""
    return 0


def _seconds(call: Callable[[], object]) -> float:
    time.sleep(REST)
    begin = time.perf_counter()
    call()
    return time.perf_counter() - begin


@pytest.fixture
def beside(benchmark: Any) -> Beside:
    """Time a call and its baselines: beside(call, {name: baseline}, budget=10.0), budget in seconds.

    They are run turn about, so that whatever else the machine does meets all alike. The benchmark is that of the call.
    `extra_info` holds each baseline's median in seconds, and how many times as long as the call it takes.
    """

    def run(call: Callable[[], object], baselines: dict[str, Callable[[], object]], budget: float = 10.0) -> None:
        warm_up = sum(_seconds(one) + REST for one in (call, *baselines.values()))
        rounds = max(3, min(50, int(budget / warm_up)))
        seconds: dict[str, list[float]] = {name: [] for name in baselines}

        def time_baselines() -> None:
            for name, baseline in baselines.items():
                seconds[name].append(_seconds(baseline))
            time.sleep(REST)  # the call is next

        benchmark.pedantic(call, setup=time_baselines, rounds=rounds)
        for name, values in seconds.items():
            median = statistics.median(values)
            benchmark.extra_info[f"{name} [s]"] = median
            benchmark.extra_info[f"{name} / this"] = round(median / benchmark.stats.stats.median, 3)

    return run


@pytest.fixture(scope="session")
def agree() -> Agree:
    """Compare what a network gave with what it should: agree(found, wanted, precision) returns the relative error.

    It fails where the error is larger than the precision explains, so that nothing wrong is timed.
    """

    def compare(found: NDArray[np.float32], wanted: NDArray[np.float32], precision: str) -> float:
        error = float(np.abs(found - wanted).max() / np.abs(wanted).max())
        assert error < TOLERANCE[precision], f"not timed: the outputs differ by {error:.1e} of their range"
        return error

    return compare


@pytest.fixture(scope="session")
def model_path() -> Path:
    """The model that is measured: the shipped `jpeg`, or the .onnx file that I2SB_BENCH_MODEL names."""
    return models.find(os.environ.get("I2SB_BENCH_MODEL", "jpeg"))
