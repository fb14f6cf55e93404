"""The network of the golden runs, as the loop of a device meets networks."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import torch
from torch import Tensor

from i2sb_rt.engines.loop import Planes

DEVICE: Final = "cuda" if torch.cuda.is_available() else "cpu"


class GoldenNetwork:
    """The network of the golden runs, with the ways of a folded one: NHWC, its time from a table."""

    def __init__(self, channels: int) -> None:
        self.dtype, self.patch, self.in_width, self.capacity = torch.float32, 1, channels, 0
        self.step = torch.zeros(1, dtype=torch.int32, device=DEVICE)
        self.times = torch.zeros(0, device=DEVICE)

    def set_times(self, times: Tensor) -> None:
        if len(times) > self.capacity:
            self.capacity = len(times)
            self.times = torch.zeros(self.capacity, device=DEVICE)
        self.times[: len(times)] = times.to(DEVICE)

    def __call__(self, x: Tensor) -> Tensor:
        time = self.times.index_select(0, self.step.long())
        return 0.4 * x + 0.15 * torch.sin(3 * x) + 0.1 * torch.roll(x, 1, 2) + 2e-4 * time


class GoldenPlanes(Planes):
    """The same as an engine of another library: planes in, planes out, its time as an input."""

    def bound(self, batch: int, height: int, width: int) -> Callable[[Tensor], Tensor]:
        def run(x: Tensor) -> Tensor:
            assert x.shape[0] == batch
            assert x.shape[2:] == (height, width)
            time = self.time(batch)[:, None, None, None]
            return 0.4 * x + 0.15 * torch.sin(3 * x) + 0.1 * torch.roll(x, 1, 3) + 2e-4 * time

        return run
