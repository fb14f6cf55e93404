"""Large images in tiles on a device, with the core's arithmetic."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from i2sb_rt import _core

F32 = NDArray[np.float32]


class Tiles:
    """The tiles of a batch, as in the core: padded by reflection, run in groups, blended in a fixed order."""

    def __init__(self, x: Tensor, side: int, overlap: int, group: int) -> None:
        """Lay out the tiles of `side` pixels for a batch like x, [B, C, H, W], on its device, in groups of `group`."""
        self.side, self.group = side, group
        batch, _, height, width = x.shape
        tops, lefts = (_core.tile_origins(n, side, overlap) for n in (height, width))
        jobs = [(image, top, left) for image in range(batch) for top in tops for left in lefts]
        self.groups = [jobs[first : first + group] for first in range(0, len(jobs), group)]
        self.sources = {(n, o): _sources(o, side, n, x.device) for n in (height, width) for o in {*tops, *lefts}}
        self.shares = {}
        window, weight = _window(side, overlap), np.zeros((height, width), np.float32)
        for top in tops:
            for left in lefts:
                region = weight[top : top + self.side, left : left + self.side]
                part = (window[:, None] * window)[: region.shape[0], : region.shape[1]]
                region += part
                self.shares[top, left] = torch.tensor(part / region).to(x.device)

    def predict(
        self, network: Callable[[Tensor, Tensor | None], Tensor], x: Tensor, cond: Tensor | None, o: Tensor
    ) -> None:
        """Write the blended output of a network into o."""
        for group in self.groups:
            padded = group + group[-1:] * (self.group - len(group))
            out = network(self._cut(x, padded), None if cond is None else self._cut(cond, padded)).float()
            for values, (image, top, left) in zip(out, group, strict=False):
                share = self.shares[top, left]
                height, width = share.shape
                region = o[image, :, top : top + height, left : left + width]
                mean = region + share * (values[:, :height, :width] - region)
                region.copy_(torch.where(share == 1, values[:, :height, :width], mean))

    def _cut(self, x: Tensor, group: list[tuple[int, int, int]]) -> Tensor:
        height, width = x.shape[2:]
        cut = [x[i][:, self.sources[height, t]][:, :, self.sources[width, left]] for i, t, left in group]
        return torch.stack(cut)


def _sources(origin: int, side: int, size: int, device: torch.device) -> Tensor:
    """Tell which pixel of an axis each pixel of a tile is: reflected behind the end, the first where that ends too."""
    at = np.arange(origin, origin + side)
    return torch.tensor(np.where(at < size, at, np.maximum(2 * (size - 1) - at, 0))).to(device)


def _window(side: int, overlap: int) -> F32:
    i = np.arange(side)
    if overlap == 0:
        return np.ones(side, np.float32)
    u = np.minimum(1, (np.minimum(i, side - 1 - i) + np.float32(0.5)) / np.float32(overlap)).astype(np.float32)
    window: F32 = u * u * (3 - 2 * u)
    return window
