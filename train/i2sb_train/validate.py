"""Held-out quality while training: PSNR after one network call against the PSNR of the damaged picture itself."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from i2sb_rt.evaluation.metrics import psnr
from i2sb_rt.operators.jpeg import compress
from i2sb_train.data import Pixels, to_signal
from i2sb_train.i2sb import Bridge


@dataclass(frozen=True)
class Score:
    """Mean RGB PSNR in dB over the validation pictures at one quality, damaged and restored."""

    quality: int
    before: float
    after: float

    def __str__(self) -> str:
        return f"QF {self.quality}: {self.before:.2f} -> {self.after:.2f} dB ({self.after - self.before:+.2f})"


def centre(picture: Pixels, size: int, multiple: int) -> Pixels:
    """Cut the middle out of a picture, at most `size` a side, each side a multiple of `multiple`."""
    height, width = (min(size, n) // multiple * multiple for n in picture.shape[:2])
    y, x = (picture.shape[0] - height) // 2, (picture.shape[1] - width) // 2
    return np.ascontiguousarray(picture[y : y + height, x : x + width])


@torch.no_grad()
def one_call(network: nn.Module, bridge: Bridge, damaged: Pixels, device: torch.device) -> Pixels:
    """Restore one picture with one network call from the last bridge step; uint8 [H, W, 3] to the same."""
    x1 = to_signal(torch.from_numpy(damaged.transpose(2, 0, 1).copy()))[None].to(device)
    step = torch.tensor([bridge.interval - 1])
    out = network(bridge.seen(x1, x1), bridge.times[step].to(device)).float()
    x0 = bridge.clean(x1, out, step).clamp(-1, 1)
    return ((x0[0] + 1) * 127.5).round().to(torch.uint8).permute(1, 2, 0).cpu().numpy()


def validate(
    network: nn.Module, bridge: Bridge, pictures: Sequence[Pixels], qualities: Sequence[int], device: torch.device
) -> list[Score]:
    """Score a network at several JPEG qualities, chroma 4:2:0."""
    scores = []
    for quality in qualities:
        damaged = [compress(p, quality) for p in pictures]
        before = np.mean([psnr(p, d) for p, d in zip(pictures, damaged, strict=True)])
        after = np.mean([psnr(p, one_call(network, bridge, d, device)) for p, d in zip(pictures, damaged, strict=True)])
        scores.append(Score(quality, float(before), float(after)))
    return scores


def swap(network: nn.Module, weights: dict[str, Tensor]) -> None:
    """Exchange a network's parameters with the given ones, in place; a second call undoes it."""
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            parameter.data, weights[name] = weights[name], parameter.data
