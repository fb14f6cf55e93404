"""Timing beside a baseline: turn about in one run, so that whatever else the machine does meets all alike."""

import os
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from i2sb_rt import models

Beside = Callable[..., None]


def _seconds(call: Callable[[], object]) -> float:
    begin = time.perf_counter()
    call()
    return time.perf_counter() - begin


@pytest.fixture
def beside(benchmark: Any) -> Beside:
    """Time a call and its baselines: beside(call, {name: baseline}, budget=10.0), budget in seconds.

    The benchmark is that of the call. `extra_info` holds each baseline's median in seconds, and how many times as long
    as the call it takes.
    """

    def run(call: Callable[[], object], baselines: dict[str, Callable[[], object]], budget: float = 10.0) -> None:
        warm_up = sum(_seconds(one) for one in (call, *baselines.values()))
        rounds = max(3, min(50, int(budget / warm_up)))
        seconds: dict[str, list[float]] = {name: [] for name in baselines}

        def time_baselines() -> None:
            for name, baseline in baselines.items():
                seconds[name].append(_seconds(baseline))

        benchmark.pedantic(call, setup=time_baselines, rounds=rounds)
        for name, values in seconds.items():
            median = statistics.median(values)
            benchmark.extra_info[f"{name} [s]"] = median
            benchmark.extra_info[f"{name} / this"] = round(median / benchmark.stats.stats.median, 3)

    return run


@pytest.fixture(scope="session")
def model_path() -> Path:
    """The model that is measured: the shipped `jpeg`, or the .onnx file that I2SB_BENCH_MODEL names."""
    return models.find(os.environ.get("I2SB_BENCH_MODEL", "jpeg"))
