"""PyTorch's switches of precision: whose they are, and when."""

from __future__ import annotations

import threading
import time
from typing import Any

import numpy as np
import pytest
import torch
from golden_network import GoldenNetwork
from torch import Tensor

from i2sb_rt import Plan, Schedule
from i2sb_rt.engines.loop import Loop
from i2sb_rt.engines.switches import SWITCHES


def _flags() -> tuple[Any, ...]:
    cudnn: Any = torch.backends.cudnn
    products = torch.backends.cuda.matmul.fp32_precision
    return cudnn.conv.fp32_precision, products, cudnn.benchmark, cudnn.deterministic


@pytest.mark.parametrize("asked", ["ieee", "tf32"])
@pytest.mark.parametrize("others", ["none", "ieee", "tf32"])
def test_what_others_chose_for_float32_neither_counts_nor_changes(asked: str, others: str) -> None:
    met = []

    class Watching(GoldenNetwork):
        def __call__(self, x: Tensor) -> Tensor:
            met.append(_flags())
            return super().__call__(x)

    cudnn: Any = torch.backends.cudnn
    x1, before = np.zeros((1, 3, 8, 8), np.float32), _flags()
    try:
        cudnn.conv.fp32_precision = torch.backends.cuda.matmul.fp32_precision = others
        cudnn.benchmark = True
        chosen, network = _flags(), Watching(3)
        Loop(network, tf32=asked == "tf32").run(x1, Plan.posterior(Schedule(), 1).rows, x1=x1)  # type: ignore[arg-type]
        assert _flags() == chosen
    finally:
        cudnn.conv.fp32_precision, torch.backends.cuda.matmul.fp32_precision, cudnn.benchmark, _ = before
    assert set(met) == {(asked, asked, False, True)}


def test_arrays_come_and_go_while_others_have_the_switches() -> None:
    """Else two threads of one loop that follow each other would keep a loop of another precision away for ever."""
    loop, x1 = Loop(GoldenNetwork(3), tf32=True), np.zeros((40, 3, 8, 8), np.float32)  # type: ignore[arg-type]
    carrier, ways = loop._carrier, []

    class Told:
        receive = staticmethod(carrier.receive)

        def __getattr__(self, way: str) -> Any:
            def carry(*arrays: Any) -> Any:
                ways.append((way, SWITCHES._users))
                return getattr(carrier, way)(*arrays)

            return carry

    loop._carrier = Told()  # type: ignore[assignment]
    loop.run(x1, Plan.posterior(Schedule(), 1).rows, x1=x1)
    assert ways == [("send", 0), ("send", 0), ("fetch", 0), ("fetch", 0)]


def test_loops_that_want_other_switches_wait_for_each_other() -> None:
    before, seen = _flags(), []

    def other() -> None:
        with SWITCHES.held(False):
            seen.append(_flags())

    with SWITCHES.held(True):
        thread = threading.Thread(target=other)
        thread.start()
        while not SWITCHES._changed._waiters:  # type: ignore[attr-defined]
            time.sleep(0.001)
        with SWITCHES.held(True):
            assert _flags() == ("tf32", "tf32", False, True)
        assert _flags() == ("tf32", "tf32", False, True)
    thread.join()
    assert seen == [("ieee", "ieee", False, True)]
    assert _flags() == before
